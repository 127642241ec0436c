"""From files to pixels: what lies under a path, and how an encoded image becomes uint8 (3, R, R). Imports no torch.

A `Source` is a split of a data set before it is decoded. Images are handed on as bytes, a few at a time, so that
neither a large parquet shard nor a folder of 70,000 images is ever held in memory.
"""

import functools
import hashlib
import io
import itertools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..paths import user_path
from .columns import image_column
from .labels import folder_labels, shard_labels

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What data sets on the hub hold beside those. Pillow's other readers stay shut: some start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
HELD_OUT = ("test", "validation")
_SPLIT_NAMES = {name: name for name in ("train", *HELD_OUT)} | {"valid": "validation", "val": "validation"}


@dataclass(frozen=True)
class Source:
    """A split before decoding: equal `identity` (JSON-native) means equal images.

    `open(resolution)` gives (N, iterator of N arrays uint8 (3, R, R)), or None if there turns out to be no such split.
    `labels()` gives their class labels, int64 (N,), or None where there are none. `drawn`: by our code, not decoded.
    """

    name: str
    identity: dict
    open: Callable
    labels: Callable = lambda: None
    drawn: bool = False


def decode(data, resolution):
    """One encoded image (bytes) as uint8 (3, resolution, resolution).

    EXIF orientation is applied; any mode becomes RGB as Pillow's convert("RGB") has it (grey repeated, alpha dropped,
    not blended), 16-bit grey is scaled to 8 bits; then the largest central square is cut out and resized by Lanczos,
    unless it has the size already, so that such images stay lossless. Raises InputError, without the image's name.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _to_array(_to_rgb(image), resolution)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError("it is no image that can be read") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise InputError(" ".join(str(error).split()) or type(error).__name__) from None


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith("I;16"):  # convert("RGB") would clip: nearly all white
        return Image.fromarray((np.asarray(image, np.float32) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"its mode {image.mode!r} does not say what is white; allowed: 8 bits a channel, 16-bit grey")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same colours, and a warning
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_array(image, resolution):
    from PIL import Image

    side = min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@functools.cache
def decoder_hash():
    """sha256 over what `decode` makes of four small images: another after an update of the libraries that changes it.

    The images are encoded here, so an update of the encoder alone changes it too, and costs one decoding. They are a
    photograph's smooth colours and a drawing's edges, as JPEG and PNG, and 16-bit grey, made smaller, as they are and
    larger.
    """
    from PIL import Image

    y, x = np.mgrid[0:29, 0:37].astype(np.float32)
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 9)], -1) * 127 + 128
    colours = Image.fromarray(waves.astype(np.uint8))
    edges = Image.fromarray(((x // 3 + y // 4) % 2 * 255).astype(np.uint8)).convert("P")
    grey = Image.fromarray((waves[..., 0] * 257).astype(np.uint16))
    digest = hashlib.sha256()
    for image, kind in ((colours, "JPEG"), (colours, "PNG"), (edges, "PNG"), (grey, "PNG")):
        file = io.BytesIO()
        image.save(file, kind)
        for resolution in (13, 29, 41):
            digest.update(decode(file.getvalue(), resolution))
    return digest.hexdigest()


def decode_all(items, resolution):
    """Decode (where, bytes), keeping their order. Raises InputError that says where the broken image is."""
    items = iter(items)
    first = list(itertools.islice(items, 1))
    # Pillow frees the interpreter while it works; for small images the hand-over costs more than threads gain.
    threads = min(8, os.cpu_count() or 1) if first and len(first[0][1]) > 1 << 16 else 1
    items = itertools.chain(first, items)
    if threads == 1:
        yield from (_decode_named(item, resolution) for item in items)
        return
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(itertools.islice(items, 4 * threads)):
            yield from pool.map(_decode_named, chunk, itertools.repeat(resolution))


def _decode_named(item, resolution):
    where, data = item
    try:
        return decode(data, resolution)
    except InputError as error:
        raise InputError(f"{where} is broken: {error}") from None


def local_source(path, split):
    """The `Source` of the folder or parquet file at `path`, or None where it has no held-out images.

    A folder holds images, in sub-folders or not, or parquet shards in the hub's layout. "train" is what lies in train/
    (for shards: or is called train-*), else everything that is not held out; "heldout" is test, else validation or val.
    Raises InputError if there is nothing to read, or a shard is missing, damaged or without images.
    """
    root = user_path(path).resolve()
    if root.is_file():
        shards, images = ([root] if split == "train" else []), []
    else:
        shards, images = _walk(root)
    if not shards and not images and split == "train":
        looked = ", ".join(extension[1:] for extension in EXTENSIONS)
        raise InputError(f"the folder {str(path)!r} holds no images; looked for {looked}, and for parquet files")
    by_name = _shard_split if shards else _folder_split
    files = _of_split(shards or images, root, split, by_name)
    if not files:
        if split == "train":
            raise InputError(f"the folder {str(path)!r} holds held-out images only; it must hold training images")
        return None
    if shards and not root.is_file():
        _check_shards(files, root)
    identity = {"path": str(root), "files": len(files), "state": _state(files)}
    name = root.stem if root.is_file() else root.name
    if shards:
        return Source(name, identity, _open_shards(files), lambda: shard_labels(files))
    trained = _of_split(images, root, "train", by_name)
    return Source(
        name, identity, _open_images(files), lambda: folder_labels(_classes(files, root), _classes(trained, root))
    )


def _walk(root):
    """Sorted (parquet files, image files) under `root`, through links; hidden ones are left out."""
    found, seen = {True: [], False: []}, set()

    def fail(error):
        raise InputError(f"the folder {error.filename!r} cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            extension = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (extension == ".parquet" or extension in EXTENSIONS):
                found[extension == ".parquet"].append(os.path.join(folder, name))
    return [[Path(name) for name in sorted(found[parquet])] for parquet in (True, False)]


def _of_split(files, root, split, split_of):
    if files == [root]:
        return files
    groups = {}
    for file in files:
        groups.setdefault(split_of(file.relative_to(root).parts), []).append(file)
    if split == "train":
        return groups.get("train") or groups.get(None, [])
    return next((groups[name] for name in HELD_OUT if name in groups), [])


def _folder_split(parts):
    return _SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 1 else None


def _classes(files, root):
    """The first folder below train/ and the like that each image lies in, None where there is none."""
    found = []
    for file in files:
        parts = file.relative_to(root).parts
        folders = parts[1 if _folder_split(parts) else 0 : -1]
        found.append(folders[0] if folders else None)
    return found


def _shard_split(parts):
    """train/0000.parquet, data/train-00000-of-00003.parquet, train.parquet -> "train"."""
    names = [*parts[:-1], re.split(r"[^a-z]", parts[-1].lower())[0]]
    return next((_SPLIT_NAMES[name.lower()] for name in reversed(names) if name.lower() in _SPLIT_NAMES), None)


def _check_shards(files, root):
    """Half a data set, or two of them, must not pass for one."""
    folders = sorted({str(file.parent.relative_to(root)) for file in files})
    if len(folders) > 1:
        raise InputError(f"{str(root)!r} holds several data sets ({', '.join(folders)}); give the path of one")
    names = {file.name for file in files}
    for name in sorted(names):
        match = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(.*\.parquet)", name)
        for index in range(int(match[2]) if match else 0):
            wanted = f"{match[1]}-{index:05d}-of-{match[2]}{match[3]}"
            if wanted not in names:
                raise InputError(f"{str(files[0].parent)!r} lacks the shard {wanted}; get the whole data set")


def _state(files):
    """Changes whenever a file does: sha256 over names, sizes and times, the inode's too, which no tool sets back."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from None
        digest.update(os.fsencode(file) + b"\0")
        digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _open_images(files):
    def items():
        for file in files:
            try:
                yield f"the image {str(file)!r}", file.read_bytes()
            except OSError as error:
                raise InputError(f"the image {str(file)!r} cannot be read: {error.strerror}") from None

    return lambda resolution: (len(files), decode_all(items(), resolution))


def _open_shards(files):
    # Every file is looked at before any work: a wrong one may not show up after an hour.
    shards = [(file, *_open_shard(file)) for file in files]

    def items():
        for file, shard, column in shards:
            for row, image in enumerate(_rows(file, shard, column)):
                where = f"row {row} (from 0) of {str(file)!r}"
                data = image.get("bytes") if isinstance(image, dict) else image
                if not data:
                    raise InputError(f"{where} holds no image in its column {column!r}")
                yield where, data

    count = sum(shard.metadata.num_rows for _, shard, _ in shards)
    return lambda resolution: (count, decode_all(items(), resolution))


def _open_shard(file):
    import pyarrow
    import pyarrow.parquet

    try:
        # Buffered and not ahead, and row group by row group below: pyarrow holds the whole file otherwise.
        shard = pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{str(file)!r} is no parquet file that can be read: {' '.join(str(error).split())}") from None
    return shard, image_column(shard.schema_arrow, repr(str(file)))


def _rows(file, shard, column):
    import pyarrow

    try:
        for group in range(shard.num_row_groups):
            for batch in shard.iter_batches(64, row_groups=[group], columns=[column], use_threads=False):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{str(file)!r} is damaged: {' '.join(str(error).split())}") from None
