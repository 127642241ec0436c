"""Data sets of the Hugging Face hub, by `datasets`; without a network, from what its caches hold. Imports no torch."""

import contextlib
import functools
import sys
import threading
from pathlib import Path

from ..errors import InputError
from .columns import image_column, label_column
from .decoding import HELD_OUT, Source, decode_all, local_source
from .labels import whole_labels

_ANSWER_SECONDS = 12


def hub_source(hub_id, split, decoded):
    """The `Source` of a split of the hub's data set `hub_id`. It is identified by the commit that the hub names now.

    Where the hub does not answer within 12 s it is, in this order, the newest of `decoded()` (commits whose images are
    decoded already), what `datasets` has prepared, and the files in the hub's cache. Raises InputError if there is none
    of them, or the hub has no such data set.
    """
    revision, reason = _ask(hub_id)
    if revision:
        return _source(hub_id, revision, lambda: _load(hub_id, revision), split)
    if reason:
        print(f"no answer from the hub ({reason}); looking for {hub_id} in its caches", file=sys.stderr, flush=True)
    known = decoded()
    if known:
        return _source(hub_id, known[-1], lambda: _load_offline(hub_id, known[-1]), split)
    splits = _load_offline(hub_id)
    if isinstance(splits, Path):
        source = local_source(splits, split)
        return source and Source(hub_id, {"hub": hub_id, "revision": splits.name}, source.open, source.labels)
    return _source(hub_id, _prepared_revision(splits), lambda: splits, split)


def _ask(hub_id):
    """(newest commit, None), or (None, why there is no answer: empty if the user asked to be offline)."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    answer = {}

    def ask():
        try:
            answer["revision"] = HfApi().dataset_info(hub_id, timeout=_ANSWER_SECONDS / 2).sha
        except Exception as error:  # of the HTTP library's many, and handed to the thread that waits
            answer["error"] = error

    # In a thread, as no time-out of the library covers the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    error = answer.get("error")
    if isinstance(error, RepositoryNotFoundError):
        raise InputError(
            f"data set {hub_id!r} is no existing path and not on the hub, or it is private and needs `hf auth login`"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return None, ""
    late = f"no answer in {_ANSWER_SECONDS} s"
    return answer.get("revision"), _one_line(error) if error else late


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _unreachable(hub_id):
    return InputError(
        f"data set {hub_id!r} is no existing path, and the hub cannot be reached; give a folder of its images or "
        "parquet files (DATASET=path), or copy the hub's cache, HF_HOME"
    )


def _source(hub_id, revision, load, split):
    load = functools.cache(load)

    def start(resolution):
        splits = load()
        if isinstance(splits, Path):
            source = local_source(splits, split)
            return source and source.open(resolution)
        name = _split_name(hub_id, splits, split)
        return name and _open(hub_id, splits[name], resolution)

    def labels():
        splits = load()
        if isinstance(splits, Path):
            return local_source(splits, split).labels()
        rows = splits[_split_name(hub_id, splits, split)]
        column = label_column(rows.features.arrow_schema)
        return column and whole_labels(_plain_column(rows, column), f"the hub data set {hub_id!r}")

    return Source(hub_id, {"hub": hub_id, "revision": revision}, start, labels)


def _plain_column(rows, column):
    """The Arrow column of a data set whose rows may be a selection of its table's."""
    return rows.select_columns([column]).with_format("arrow")[:].column(0)


def _split_name(hub_id, splits, split):
    wanted = ("train",) if split == "train" else HELD_OUT
    name = next((name for name in wanted if name in splits), None)
    if name is None and split == "train":
        raise InputError(f"the hub data set {hub_id!r} has no split 'train'; it has {', '.join(splits)}")
    return name


def _open(hub_id, rows, resolution):
    from datasets import Image

    column = image_column(rows.features.arrow_schema, f"the hub data set {hub_id!r}")
    rows = rows.select_columns([column]).cast_column(column, Image(decode=False))

    def items():
        for start in range(0, len(rows), 64):
            for row, image in enumerate(rows[start : start + 64][column], start):
                where = f"row {row} (from 0) of the hub data set {hub_id!r}"
                yield where, _bytes(image, where)

    return len(rows), decode_all(items(), resolution)


def _bytes(image, where):
    if image and image["bytes"]:
        return image["bytes"]
    try:  # a data set of single files lies beside its table
        return Path(image["path"]).read_bytes()
    except (OSError, TypeError):
        raise InputError(f"{where} holds no image") from None


def _load(hub_id, revision):
    """All splits of a data set, downloaded where needed: a DatasetDict."""
    import datasets

    print(f"loading {hub_id} from the hub, commit {revision[:12]}", file=sys.stderr, flush=True)
    with _quiet():
        try:
            return datasets.load_dataset(hub_id, revision=revision)
        except Exception as error:  # the library's own, pyarrow's, the network's
            raise InputError(f"the hub data set {hub_id!r} cannot be loaded: {_one_line(error)}") from None


def _load_offline(hub_id, revision=None):
    """A DatasetDict that `datasets` prepared earlier, or the Path of files in the hub's cache."""
    import datasets
    import huggingface_hub

    with _quiet(), _offline():
        try:
            splits = datasets.load_dataset(hub_id)
            if revision in (None, _prepared_revision(splits)):
                return splits
        except Exception:  # it says in many ways that it has nothing
            pass
        try:
            folder = Path(huggingface_hub.snapshot_download(hub_id, repo_type="dataset", local_files_only=True))
            if revision in (None, folder.name):
                local_source(folder, "train")
                return folder
        except Exception:
            pass
    raise _unreachable(hub_id)


def _prepared_revision(splits):
    """The commit from which `datasets` prepared its files: the name of their folder."""
    return Path(next(iter(splits.values())).cache_files[0]["filename"]).parent.name


@contextlib.contextmanager
def _offline():
    """Keep `datasets` from trying again for 23 s what has just failed."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet():
    """No bars and no log lines of `datasets` and the hub's client."""
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars, hub_bars = datasets.are_progress_bars_disabled(), are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
        if not hub_bars:
            enable_progress_bars()
