"""Parquet shards in the hub's layout, and which columns hold images and class labels. Imports no torch.

Read by pyarrow: `datasets` would first copy all rows to Arrow files (132 MB for CIFAR-10), or, streaming, hold a whole
row group in memory.
"""

import re

import numpy as np

from ..errors import InputError
from .decode import decode_all


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
    shards = [(file, _open_shard(file)) for file in files]
    columns = [image_column(shard.schema_arrow, repr(str(file))) for file, shard in shards]

    def items():
        for (file, shard), column in zip(shards, columns, strict=True):
            for row, image in enumerate(_rows(shard, column)):
                where = f"row {row} (from 0) of {str(file)!r}"
                if not image or not image["bytes"]:
                    raise InputError(f"{where} holds no image in its column {column!r}")
                yield where, image["bytes"]

    return sum(shard.metadata.num_rows for _, shard in shards), decode_all(items(), resolution)


def shard_labels(files):
    """The labels of parquet files, one file after the other, int64 (N,), or None if one of them has none."""
    parts = []
    for file in files:
        shard = _open_shard(file)
        column = label_column(shard.schema_arrow)
        if column is None:
            return None
        parts.append(whole_labels(shard.read([column], use_threads=False).column(0), repr(str(file))))
    return np.concatenate(parts)


def _open_shard(file):
    from pyarrow.parquet import ParquetFile

    try:
        # Buffered and not ahead, and row group by row group below: pyarrow holds the whole file otherwise.
        return ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except Exception as error:
        raise InputError(f"{str(file)!r} is damaged, or no parquet file that can be read: {error}") from None


def _rows(shard, column):
    for group in range(shard.num_row_groups):
        for batch in shard.iter_batches(64, row_groups=[group], columns=[column], use_threads=False):
            yield from batch.column(0).to_pylist()
