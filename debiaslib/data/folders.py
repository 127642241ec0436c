"""Local data sets: images in folders, or parquet shards, by split and class. Imports no torch.

Not `datasets`' imagefolder: it takes a file called test_1.png for a split of its own, and drops the others in silence.
Nor its tables: it would first copy all rows to Arrow files, or, streaming, hold a whole row group in memory.
"""

import collections
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..paths import user_path
from .decode import SUFFIXES, decode_all

HELD_OUT = ("test", "validation")
_SPLIT_NAMES = {name: name for name in ("train", *HELD_OUT)}
_SPLIT_NAMES |= {"training": "train", "testing": "test", "valid": "validation", "val": "validation"}


@dataclass(frozen=True)
class Source:
    """A split before decoding: equal `identity` (JSON-native) means equal images.

    `open(resolution)` gives (N, iterator of N arrays uint8 (3, R, R)). `labels()` gives their class labels, int64 (N,),
    or None where there are none. `drawn`: by our code, not decoded.
    """

    name: str
    identity: dict
    open: Callable
    labels: Callable = lambda: None
    drawn: bool = False


def local_source(path, split):
    """The `Source` of the folder or parquet file at `path`, or None where it has no held-out images.

    A folder holds images, in sub-folders or not, or parquet shards in the hub's layout. "train" is what lies in train/
    or training/ at any depth (shards: or has it in its name), else what is not held out; "heldout" is test(ing), else
    validation, valid or val. Raises InputError if there is nothing to read, or a shard is missing.
    """
    root = user_path(path).resolve()
    if root.is_file():
        one = [root]
        found = Source(root.stem, _identity(root, one), partial(_open_shards, one), partial(_shard_labels, one))
        return found if split == "train" else None
    every = _files(root)
    shards, images = ([file for file in every if file.suffix.lower() in kind] for kind in ((".parquet",), SUFFIXES))
    if images:  # a table beside them may hold their captions
        shards = [file for file in shards if _has_images(file)]
    found = shards or images
    if not found:
        raise InputError(f"the folder {str(path)!r} holds no images; looked for {' '.join(SUFFIXES)} and .parquet")
    files, trained = _of_split(found, root, split), _of_split(found, root, "train")
    if not trained:
        raise InputError(f"the folder {str(path)!r} holds held-out images only; it must hold training images")
    if not files:
        return None
    left_out = sorted({*found, *(images if shards else every)} - {*trained, *_of_split(found, root, "heldout")})
    if shards:
        _check_shards(files, root)

    def start(resolution):
        if left_out:
            print(f"left out {len(left_out)} files of {str(root)!r}, such as {left_out[0].name}", file=sys.stderr)
        if shards:
            return _open_shards(files, resolution)
        images = ((f"the image {str(file)!r}", file.read_bytes()) for file in files)
        return len(files), decode_all(images, resolution)

    labels = _shard_labels if shards else partial(_folder_labels, trained=trained, root=root)
    return Source(root.name, _identity(root, files), start, lambda: labels(files))


def _files(root):
    """All files below `root`, sorted, each folder once, also through links; hidden ones do not count."""

    def fail(error):
        raise InputError(f"the folder {error.filename!r} cannot be read: {error.strerror}")

    found, seen = [], set()
    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(folder, name) for name in names if name[0] != "."]
    return sorted(found)


def _identity(root, files):
    """Changes whenever a file does: sha256 over names, sizes and times, the inode's too, which no tool sets back."""
    digest = hashlib.sha256()
    for file in files:
        with _reading(file):
            stat = file.stat()
        digest.update(os.fsencode(file) + b"\0")
        digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    return {"path": str(root), "files": len(files), "state": digest.hexdigest()}


def _of_split(files, root, split):
    groups = collections.defaultdict(list)
    for file in files:
        groups[_split_of(file.relative_to(root))].append(file)
    if split == "train":
        return groups.get("train") or groups.get(None, [])
    return next((groups[name] for name in HELD_OUT if name in groups), [])


def _split_of(path):
    """By its folders; of a shard, such as data/train-00000-of-00003.parquet, by its name and then its folders."""
    names = path.parts[:-1]
    if path.suffix.lower() == ".parquet":
        names = re.split(r"[^a-z]+", path.stem.lower()) + [*reversed(path.parent.parts)]
    return next((_SPLIT_NAMES[name.lower()] for name in names if name.lower() in _SPLIT_NAMES), None)


def _folder_labels(files, trained, root):
    """int64 (N,): each image's folder below train/ and the like as a number, in the order of their names; or None."""

    def classes(files):
        paths = [file.relative_to(root).parts[:-1] for file in files]
        starts = [next((i for i, name in enumerate(path, 1) if name.lower() in _SPLIT_NAMES), 0) for path in paths]
        return [path[start] if start < len(path) else None for path, start in zip(paths, starts, strict=True)]

    names, known = classes(files), set(classes(trained))
    if None in names or None in known:
        return None
    if unknown := sorted(set(names) - known):
        raise InputError(f"the images of the folder {unknown[0]!r} are of a class that no training image is of")
    numbers = {name: number for number, name in enumerate(sorted(known))}
    return np.array([numbers[name] for name in names], np.int64)


def image_column(schema, where):
    """The column of an Arrow schema that holds images as the hub does, in structs of bytes and path.

    Of several, one called image or img, else the first. Raises InputError if there is none.
    """
    from pyarrow.types import is_struct

    columns = [field.name for field in schema if is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    if not columns:
        raise InputError(f"{where} has no column of images; its columns: {', '.join(schema.names)}")
    return next((name for name in ("image", "img") if name in columns), columns[0])


def label_column(schema):
    """The column of class labels, or None: whole numbers called label, labels or fine_label."""
    from pyarrow.types import is_integer

    whole = [field.name for field in schema if is_integer(field.type)]
    return next((name for name in ("label", "labels", "fine_label") if name in whole), None)


def whole_labels(column, where):
    """An Arrow column of whole numbers as int64 (N,). Raises InputError if one of them is missing."""
    if column.null_count:
        raise InputError(f"{where} lacks the label of {column.null_count} images")
    return column.to_numpy().astype(np.int64)


def _check_shards(files, root):
    """Raises InputError for half a data set, or for two of them in one folder."""
    folders = sorted({str(file.parent.relative_to(root)) for file in files})
    if len(folders) > 1:
        raise InputError(f"{str(root)!r} holds several data sets ({', '.join(folders)}); give the path of one")
    names = {file.name for file in files}
    for match in filter(None, (re.fullmatch(r"(.+-)\d{5}(-of-(\d{5}).*)", name) for name in sorted(names))):
        wanted = [f"{match[1]}{index:05d}{match[2]}" for index in range(int(match[3]))]
        if lacking := [name for name in wanted if name not in names]:
            raise InputError(f"{str(files[0].parent)!r} lacks the shard {lacking[0]}; get the whole data set")


def _open_shards(files, resolution):
    """(N, iterator of uint8 (3, R, R)). Every file is opened before any is decoded, to find a wrong one at once."""
    columns, count = [], 0
    for file in files:  # and closed again: a process may hold about a thousand
        with _open_shard(file) as shard:
            columns.append(image_column(shard.schema_arrow, repr(str(file))))
            count += shard.metadata.num_rows

    def items():
        for file, column in zip(files, columns, strict=True):
            with _open_shard(file) as shard:
                for row, image in enumerate(_rows(file, shard, column)):
                    where = f"row {row} (from 0) of {str(file)!r}"
                    if not image or not image["bytes"]:
                        raise InputError(f"{where} holds no image in its column {column!r}")
                    yield where, image["bytes"]

    return count, decode_all(items(), resolution)


def _has_images(file):
    with contextlib.suppress(InputError), _open_shard(file) as shard:
        return bool(image_column(shard.schema_arrow, ""))
    return False


def _shard_labels(files):
    """The labels of parquet files, one file after the other, int64 (N,), or None if one of them has none."""
    parts = []
    for file in files:
        shard = _open_shard(file)
        column = label_column(shard.schema_arrow)
        if column is None:
            return None
        with _reading(file):
            labels = shard.read([column], use_threads=False).column(0)
        parts.append(whole_labels(labels, repr(str(file))))
    return np.concatenate(parts)


def _open_shard(file):
    from pyarrow.parquet import ParquetFile

    with _reading(file):
        # Buffered and not ahead, and row group by row group below: pyarrow holds the whole file otherwise.
        return ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


def _rows(file, shard, column):
    with _reading(file):
        for group in range(shard.num_row_groups):
            for batch in shard.iter_batches(64, row_groups=[group], columns=[column], use_threads=False):
                yield from batch.column(0).to_pylist()


@contextlib.contextmanager
def _reading(file):
    try:
        yield
    except Exception as error:  # the system's, or one of pyarrow's
        raise InputError(f"{str(file)!r} is damaged, or cannot be read: {error}") from None
