"""Images of tests: arrays, PNG bytes, folders and parquet files of them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from debiaslib.data.images import load_images
from debiaslib.errors import InputError


def picture(seed, size=8):
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **more)


def encoded(array, kind="PNG", **more):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **more)
    return file.getvalue()


png = encoded


def chw(array):
    return array.transpose(2, 0, 1)


def folder_of(folder, count=3, size=8, first=0):
    for i in range(count):
        save(folder / f"{i:02d}.png", picture(first + i, size))
    return folder


def write_parquet(path, images, column="img", labels=None, label="label", kinds=True):
    """kinds: whether with the hub's description of the columns, or changes of it: {column: type}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.array([{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    table = pa.table({label: pa.array(range(len(images)) if labels is None else labels), column: rows})
    if kinds:
        features = {label: {"_type": "Value", "dtype": "int64"}, column: {"_type": "Image"}}
        features |= {} if kinds is True else kinds
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def message(*given, **more):
    """The one line of the InputError that `load_images` raises."""
    with pytest.raises(InputError) as caught:
        load_images(*given, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)
