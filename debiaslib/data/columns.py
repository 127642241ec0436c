"""Which column of a table holds the images, and which their class labels. Imports no torch."""

import json

from ..errors import InputError

__all__ = ["image_column", "label_column"]

_NAMES = ("label", "labels", "fine_label")


def label_column(schema):
    """The column of an Arrow schema that holds class labels, or None.

    One of whole numbers that is called label, labels or fine_label, the first of these; else the first one of the hub's
    type ClassLabel.
    """
    import pyarrow.types as kinds

    for name in _NAMES:
        if name in schema.names and kinds.is_integer(schema.field(name).type):
            return name
    return next(iter(_of_type(schema, "ClassLabel")), None)


def image_column(schema, where):
    """The column of an Arrow schema that holds images: by the hub's feature type, else by its Arrow type and name.

    Of several, one called image or img, else the first. Raises InputError if there is none.
    """
    import pyarrow.types as kinds

    def holds_images(field):
        if kinds.is_struct(field.type):
            return any(entry.name == "bytes" for entry in field.type)
        return field.name in ("image", "img") and (kinds.is_binary(field.type) or kinds.is_large_binary(field.type))

    columns = _of_type(schema, "Image") or [field.name for field in schema if holds_images(field)]
    if not columns:
        raise InputError(f"{where} has no column of images; its columns: {', '.join(schema.names)}")
    return next((name for name in ("image", "img") if name in columns), columns[0])


def _of_type(schema, kind):
    """The columns that the hub's own description, where there is one, says are of a kind."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name in schema.names if features.get(name, {}).get("_type") == kind]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
