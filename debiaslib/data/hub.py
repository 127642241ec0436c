"""Data sets of the Hugging Face hub, by `datasets`; without a network, from its cache. Imports no torch."""

import functools
import sys
from pathlib import Path

from ..errors import InputError, one_line
from .decode import decode_all
from .folders import HELD_OUT, Source
from .tables import image_column, label_column, whole_labels

_ANSWER_SECONDS = 10


def hub_source(hub_id, split):
    """The `Source` of a split of the hub's data set `hub_id`. It is identified by the commit that the hub names now.

    Where the hub does not answer within 10 s, it is what `datasets` has prepared before. Raises InputError if there is
    nothing, or the hub has no such data set.
    """
    revision = _newest_commit(hub_id)
    # What is decoded already need not be loaded.
    table = functools.cache(lambda: _table(hub_id, load(), split))
    load = functools.cache(lambda: _load(hub_id, revision))
    identity = {"hub": hub_id, "revision": revision or _prepared_commit(load())}
    return Source(hub_id, identity, lambda resolution: table() and table().open(resolution),
                  lambda: table() and table().labels())  # fmt: skip


def _newest_commit(hub_id):
    """The commit that the hub names now, or None, with a line on stderr, where it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        return HfApi().dataset_info(hub_id, timeout=_ANSWER_SECONDS).sha
    except RepositoryNotFoundError:
        private = "it is private and needs `hf auth login`"
        raise InputError(f"data set {hub_id!r} is no existing path and not on the hub, or {private}") from None
    except OfflineModeIsEnabled:  # as the user asked for
        return None
    except Exception as error:  # of the HTTP library's many
        said = f"no answer from the hub ({one_line(error)}); looking for {hub_id} in its caches"
        print(said, file=sys.stderr, flush=True)
        return None


def _table(hub_id, splits, split):
    """The `Source` of a split of a DatasetDict, or None where it has none."""
    where = f"the hub data set {hub_id!r}"
    name = next((name for name in (("train",) if split == "train" else HELD_OUT) if name in splits), None)
    if name is None and split == "train":
        raise InputError(f"{where} has no split 'train'; it has {', '.join(splits)}")
    if name is None:
        return None
    rows = splits[name]

    def labels():
        column = label_column(rows.features)
        # The rows may be a selection of their Arrow table's.
        return column and whole_labels(rows.select_columns([column]).with_format("arrow")[:].column(0), where)

    return Source(name, {}, lambda resolution: (len(rows), decode_all(_contents(rows, where), resolution)), labels)


def _contents(rows, where):
    from datasets import Image

    column = image_column(rows.features, where)
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
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    if revision:
        print(f"loading {hub_id} from the hub, commit {revision[:12]}", file=sys.stderr, flush=True)
    try:
        constants.HF_HUB_OFFLINE = offline or not revision  # or `datasets` asks the silent hub for 23 s
        return datasets.load_dataset(hub_id, revision=revision)
    except Exception as error:  # the library's own, pyarrow's, the network's
        if revision:
            raise InputError(f"the hub data set {hub_id!r} cannot be loaded: {one_line(error)}") from None
        instead = "give a folder of its images or parquet files (DATASET=path), or copy the hub's cache, HF_HOME"
        raise InputError(f"data set {hub_id!r} is no existing path, and the hub cannot be reached; {instead}") from None
    finally:
        constants.HF_HUB_OFFLINE = offline


def _prepared_commit(splits):
    """`datasets` keeps what it has prepared in a folder that is named by the commit."""
    return Path(next(iter(splits.values())).cache_files[0]["filename"]).parent.name
