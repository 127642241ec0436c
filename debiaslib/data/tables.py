"""Parquet shards in the hub's layout, and which columns hold images and class labels. Imports no torch.

`datasets` says what the columns are. The rows are read by pyarrow: `datasets` would first copy all of them to Arrow
files (132 MB for CIFAR-10), or, streaming, hold a whole row group in memory.
"""

import contextlib
import re

import numpy as np

from ..errors import InputError
from .decode import decode_all

_LABELS = ("label", "labels", "fine_label")


def image_column(features, where):
    """The column of `datasets.Features` that holds images: of the type Image, else by its Arrow type and name.

    Of several, one called image or img, else the first. Raises InputError if there is none.
    """
    from datasets import Image

    def holds_bytes(name, kind):
        if isinstance(kind, dict):
            return "bytes" in kind
        return name in ("image", "img") and getattr(kind, "dtype", None) in ("binary", "large_binary")

    columns = [name for name, kind in features.items() if isinstance(kind, Image)]
    columns = columns or [name for name, kind in features.items() if holds_bytes(name, kind)]
    if not columns:
        raise InputError(f"{where} has no column of images; its columns: {', '.join(features)}")
    return next((name for name in ("image", "img") if name in columns), columns[0])


def label_column(features):
    """The column of class labels, or None: whole numbers called label, labels or fine_label, else a ClassLabel."""
    from datasets import ClassLabel

    whole = [name for name in _LABELS if re.match("u?int", str(getattr(features.get(name), "dtype", "")))]
    return next(iter(whole + [name for name, kind in features.items() if isinstance(kind, ClassLabel)]), None)


def whole_labels(column, where):
    """An Arrow column of whole numbers as int64 (N,). Raises InputError if one of them is missing."""
    if column.null_count:
        raise InputError(f"{where} lacks the label of {column.null_count} images")
    return column.to_numpy().astype(np.int64)


def check_shards(files, root):
    """Raises InputError for half a data set, or for two of them in one folder."""
    folders = sorted({str(file.parent.relative_to(root)) for file in files})
    if len(folders) > 1:
        raise InputError(f"{str(root)!r} holds several data sets ({', '.join(folders)}); give the path of one")
    names = {file.name for file in files}
    for match in filter(None, (re.fullmatch(r"(.+-)\d{5}(-of-(\d{5}).*)", name) for name in sorted(names))):
        wanted = [f"{match[1]}{index:05d}{match[2]}" for index in range(int(match[3]))]
        if lacking := [name for name in wanted if name not in names]:
            raise InputError(f"{str(files[0].parent)!r} lacks the shard {lacking[0]}; get the whole data set")


def open_shards(files, resolution):
    """(N, iterator of uint8 (3, R, R)). Every file is opened before any is decoded, to find a wrong one at once."""
    shards = [(file, *_open_shard(file)) for file in files]
    columns = [image_column(features, repr(str(file))) for file, _, features in shards]

    def items():
        for (file, shard, _), column in zip(shards, columns, strict=True):
            for row, image in enumerate(_rows(file, shard, column)):
                where = f"row {row} (from 0) of {str(file)!r}"
                data = image.get("bytes") if isinstance(image, dict) else image
                if not data:
                    raise InputError(f"{where} holds no image in its column {column!r}")
                yield where, data

    return sum(shard.metadata.num_rows for _, shard, _ in shards), decode_all(items(), resolution)


def shard_labels(files):
    """The labels of parquet files, one file after the other, int64 (N,), or None if one of them has none."""
    parts = []
    for file in files:
        shard, features = _open_shard(file)
        column = label_column(features)
        if column is None:
            return None
        with _reading(file):
            parts.append(whole_labels(shard.read([column], use_threads=False).column(0), repr(str(file))))
    return np.concatenate(parts)


def _open_shard(file):
    """(parquet file, `datasets.Features`)."""
    from datasets import Features
    from pyarrow.parquet import ParquetFile

    with _reading(file):
        # Buffered and not ahead, and row group by row group below: pyarrow holds the whole file otherwise.
        shard = ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    schema = shard.schema_arrow
    try:
        return shard, Features.from_arrow_schema(schema)
    except Exception:  # the hub's description of the columns is a stranger's: without it by their Arrow types
        return shard, Features.from_arrow_schema(schema.remove_metadata())


def _rows(file, shard, column):
    with _reading(file):
        for group in range(shard.num_row_groups):
            for batch in shard.iter_batches(64, row_groups=[group], columns=[column], use_threads=False):
                yield from batch.column(0).to_pylist()


@contextlib.contextmanager
def _reading(file):
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{str(file)!r} is damaged, or no parquet file that can be read: {said}") from None
