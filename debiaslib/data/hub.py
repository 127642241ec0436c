"""Data sets of the Hugging Face hub, by `datasets`; without a network, from what its caches hold. Imports no torch."""

import contextlib
import functools
import queue
import sys
import threading
from pathlib import Path

from ..errors import InputError
from .decode import decode_all
from .folders import HELD_OUT, Source, local_source
from .tables import image_column, label_column, whole_labels

_ANSWER_SECONDS = 10


def hub_source(hub_id, split, decoded):
    """The `Source` of a split of the hub's data set `hub_id`. It is identified by the commit that the hub names now.

    Where the hub does not answer within 10 s it is, in this order, the newest of `decoded()` (commits whose images are
    decoded already), what `datasets` has prepared, and the files in the hub's cache. Raises InputError if there is none
    of them, or the hub has no such data set.
    """
    revision = _newest_commit(hub_id)
    if revision:
        load = functools.cache(lambda: (revision, _load(hub_id, revision, split)))
    else:
        wanted = (decoded() or [None])[-1]
        load = functools.cache(lambda: _load_offline(hub_id, wanted, split))
        revision = wanted or load()[0]

    def of_split(read):  # what is decoded already need not be loaded
        return lambda *given: load()[1] and read(load()[1])(*given)

    identity = {"hub": hub_id, "revision": revision}
    return Source(hub_id, identity, of_split(lambda one: one.open), of_split(lambda one: one.labels))


def ask_hub(ask):
    """What `ask()` returns or raises. Raises TimeoutError after 10 s; no time-out of the hub's library covers DNS."""
    answers = queue.SimpleQueue()

    def put():
        try:
            answers.put((ask(), None))
        except Exception as error:  # raised where the answer is awaited
            answers.put((None, error))

    threading.Thread(target=put, daemon=True).start()
    try:
        answer, error = answers.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_ANSWER_SECONDS} s") from None
    if error is not None:
        raise error
    return answer


def _newest_commit(hub_id):
    """The commit that the hub names now, or None, with a line on stderr, where it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        return ask_hub(lambda: HfApi().dataset_info(hub_id, timeout=_ANSWER_SECONDS / 2).sha)
    except RepositoryNotFoundError:
        private = "it is private and needs `hf auth login`"
        raise InputError(f"data set {hub_id!r} is no existing path and not on the hub, or {private}") from None
    except OfflineModeIsEnabled:  # as the user asked for
        return None
    except Exception as error:  # of the HTTP library's many
        said = f"no answer from the hub ({_one_line(error)}); looking for {hub_id} in its caches"
        print(said, file=sys.stderr, flush=True)
        return None


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


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


def _load(hub_id, revision, split):
    """The `Source` of a split, downloaded where needed."""
    import datasets

    print(f"loading {hub_id} from the hub, commit {revision[:12]}", file=sys.stderr, flush=True)
    try:
        splits = datasets.load_dataset(hub_id, revision=revision)
    except Exception as error:  # the library's own, pyarrow's, the network's
        raise InputError(f"the hub data set {hub_id!r} cannot be loaded: {_one_line(error)}") from None
    return _table(hub_id, splits, split)


def _load_offline(hub_id, wanted, split):
    """(commit, `Source` of a split) of what `datasets` prepared earlier, or of files in the hub's cache.

    `datasets` does not look into the hub's cache by itself. wanted: the commit, or None for any.
    """
    import datasets
    from huggingface_hub import constants, snapshot_download

    def prepared():
        splits = datasets.load_dataset(hub_id)
        commit = Path(next(iter(splits.values())).cache_files[0]["filename"]).parent.name
        return commit, lambda: _table(hub_id, splits, split)

    def downloaded():
        folder = Path(snapshot_download(hub_id, repo_type="dataset", local_files_only=True))
        local_source(folder, "train")
        return folder.name, lambda: local_source(folder, split)

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # or `datasets` tries again for 23 s
    try:
        for find in (prepared, downloaded):
            with contextlib.suppress(Exception):  # they say in many ways that there is nothing
                commit, source = find()
                if wanted in (None, commit):
                    break
        else:
            instead = "give a folder of its images or parquet files (DATASET=path), or copy the hub's cache, HF_HOME"
            raise InputError(f"data set {hub_id!r} is no existing path, and the hub cannot be reached; {instead}")
        return commit, source()
    finally:
        constants.HF_HUB_OFFLINE = before
