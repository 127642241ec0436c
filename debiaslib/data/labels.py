"""Class labels of a data set: where they are found, their range, and their cache beside the images. Imports no torch.

Labels are int64 (N,), one an image in the images' order. They are read when a network asks for classes and kept in a
file of their own, so that neither the images' cache nor their fingerprint knows of them.
"""

import hashlib

import numpy as np

from ..errors import InputError, shown
from ..files import atomic_path, read_json, write_json, write_npy
from .columns import label_column

__all__ = ["checked_labels", "folder_labels", "shard_labels", "stored_labels", "whole_labels"]


def whole_labels(column, where):
    """An Arrow column of whole numbers as int64 (N,). Raises InputError if one of them is missing."""
    if column.null_count:
        raise InputError(f"{where} lacks the label of {column.null_count} images")
    return column.to_numpy().astype(np.int64)


def shard_labels(files):
    """The labels of parquet files, one file after the other, or None if one of them has no such column."""
    import pyarrow
    import pyarrow.parquet

    parts = []
    for file in files:
        try:
            column = label_column(pyarrow.parquet.read_schema(file))
            if column is None:
                return None
            table = pyarrow.parquet.read_table(file, columns=[column], use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}") from None
        parts.append(whole_labels(table.column(0), repr(str(file))))
    return np.concatenate(parts)


def folder_labels(classes, trained):
    """Labels by sub-folder: the place of a class among the sorted names of the training images' classes, or None.

    classes: of each image, the name of the folder that it lies in, None where it lies beside the folders; trained: of
    each training image. Raises InputError for a class that no training image is of.
    """
    if None in classes or None in trained:
        return None
    numbers = {name: number for number, name in enumerate(sorted(set(trained)))}
    unknown = sorted(set(classes) - set(numbers))
    if unknown:
        raise InputError(f"the images of the folder {unknown[0]!r} are of a class that no training image is of")
    return np.array([numbers[name] for name in classes], np.int64)


def stored_labels(path, count, read):
    """(labels or None, their sha256 or None) of the `count` images cached at `path`: from beside them, or by `read()`.

    The sha256 is verified at each call; damaged labels are read again. Raises InputError if `read` gives another
    number of them.
    """
    file, note = path.with_suffix(".labels.npy"), path.with_suffix(".labels.json")
    labels = _kept(file, note)
    if labels is None:
        labels = read()
        if labels is None:
            return None, None
        if len(labels) != count:
            raise InputError(f"the data set has {count} images and {len(labels)} labels; get it again")
        with atomic_path(file) as temporary:
            write_npy(temporary, labels)
        write_json(note, {"labels": count, "fingerprint": _fingerprint(labels)})
    return labels, _fingerprint(labels)


def _kept(file, note):
    try:
        record = read_json(note)
        labels = np.load(file, allow_pickle=False) if record is not None else None
        return labels if labels is not None and _fingerprint(labels) == record["fingerprint"] else None
    except Exception:  # numpy's reader of headers raises nearly anything
        return None  # they are read again, which costs little


def _fingerprint(labels):
    return hashlib.sha256(f"{labels.dtype} {len(labels)}\n".encode() + labels.tobytes()).hexdigest()


def checked_labels(labels, classes, name):
    """Return `labels`. Raises InputError if there are none, or one of them is not in 0 .. classes - 1."""
    if labels is None:
        raise InputError(
            f"data set {name} has no class labels for the network's num_class_embeds {shown(classes)}; they are a "
            "column of whole numbers called label, or a sub-folder for each class"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InputError(
            f"data set {name} has the label {outside[0]}; it must be 0 .. {classes - 1} for the network's "
            f"num_class_embeds {classes}"
        )
    return labels
