"""Data sets of the Hugging Face hub, by `datasets`; without a network, from its cache. Imports no torch."""

import functools
import sys
from pathlib import Path

from ..errors import InputError, one_line
from .decode import decode_all
from .folders import HELD_OUT, Source, image_column, label_column, whole_labels


def hub_source(hub_id, split):
    """The `Source` of a split of the hub's data set `hub_id`, or None where it has no held-out images.

    It is identified by the commit that the hub names now; where the hub does not answer within 10 s, it is what
    `datasets` has prepared before. Raises InputError if there is nothing, or the hub has no such data set.
    """
    revision, where = _newest_commit(hub_id), f"the hub data set {hub_id!r}"

    @functools.cache
    def rows():  # what is decoded already need not be loaded
        splits = _load(hub_id, revision)
        names = ("train",) if split == "train" else HELD_OUT
        found = next((splits[name] for name in names if name in splits), None)
        if found is None and split == "train":
            raise InputError(f"{where} has no split 'train'; it has {', '.join(splits)}")
        return found

    if split != "train" and rows() is None:
        return None

    def labels():
        column = label_column(rows().features.arrow_schema)
        # The rows may be a selection of their Arrow table's.
        return column and whole_labels(rows().select_columns([column]).with_format("arrow")[:].column(0), where)

    identity = {"hub": hub_id, "revision": revision or _prepared_commit(rows())}
    return Source(hub_id, identity, lambda size: (len(rows()), decode_all(_contents(rows(), where), size)), labels)


def _newest_commit(hub_id):
    """The commit that the hub names now, or None, with a line on stderr, where it does not answer."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, timeout=10).sha
    except Exception as error:  # of the HTTP library's many
        print(f"the hub names no commit of {hub_id} ({one_line(error, 80)}); looking in its caches", file=sys.stderr)
        return None


def _contents(rows, where):
    from datasets import Image

    column = image_column(rows.features.arrow_schema, where)
    rows = rows.select_columns([column]).cast_column(column, Image(decode=False))
    for number, row in enumerate(rows):
        try:  # a data set of single files lies beside its table
            data = row[column]["bytes"] or Path(row[column]["path"]).read_bytes()
        except (OSError, TypeError):
            raise InputError(f"row {number} (from 0) of {where} holds no image") from None
        yield f"row {number} (from 0) of {where}", data


def _load(hub_id, revision):
    """The DatasetDict, downloaded where needed; without a revision, what `datasets` has prepared before."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, revision=revision)
    except Exception as error:  # the library's own, pyarrow's, the network's
        instead = "give a folder (DATASET=path), or copy the hub's cache, HF_HOME"
        raise InputError(f"data set {hub_id!r} cannot be loaded ({one_line(error, 80)}); {instead}") from None


def _prepared_commit(rows):
    """`datasets` keeps what it has prepared in a folder that is named by the commit."""
    return Path(rows.cache_files[0]["filename"]).parent.name
