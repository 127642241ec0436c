"""Data sets from folders, parquet and the hub: the right pixels, decoded once, never stale; mistakes are one line."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from debiaslib.data import gaussian as gaussian_images
from debiaslib.data import hub
from debiaslib.data import images as data
from debiaslib.data.images import load_images
from debiaslib.data.minifaces import render
from debiaslib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEBIASLIB_CACHE", str(folder))
    return folder / "images"


def picture(seed, size=8):
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **more)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def folder_of(folder, count=3, size=8, first=0):
    for i in range(count):
        save(folder / f"{i:02d}.png", picture(first + i, size))
    return folder


def write_parquet(path, images, column="img", hub_metadata=True):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)], kind)
    table = pa.table({"label": list(range(len(images))), column: rows})
    if hub_metadata:
        features = {"label": {"_type": "Value", "dtype": "int64"}, column: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def chw(array):
    return array.transpose(2, 0, 1)


def message(*arguments, **more):
    with pytest.raises(InputError) as caught:
        load_images(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What comes out


def test_minifaces_by_split():
    train, held_out = load_images("minifaces", 16), load_images("minifaces", 16, "heldout")
    assert train.images.shape == (8192, 3, 16, 16) and held_out.images.shape == (2048, 3, 16, 16)
    assert np.array_equal(train.images[5000:5003], render(range(5000, 5003), 16, 0))
    assert np.array_equal(held_out.images[-1:], render([2047], 16, 1))
    assert (train.name, train.split, held_out.split) == ("minifaces", "train", "heldout")


def test_gaussian_images_by_split():
    train, held_out = load_images("gaussian", 8), load_images("gaussian", 8, "heldout")
    assert train.images.shape == (8192, 3, 8, 8) and held_out.images.shape == (2048, 3, 8, 8)
    assert np.array_equal(train.images[5000:5003], gaussian_images.render(range(5000, 5003), 8, 0))
    assert np.array_equal(held_out.images[-1:], gaussian_images.render([2047], 8, 1))
    assert (train.name, train.split, held_out.split) == ("gaussian", "train", "heldout")
    assert "resolution is 64; it must be a whole number >= 4 and <= 32" in message("gaussian", 64)


def test_images_are_mapped_read_only_and_fingerprinted(tmp_path):
    made = load_images(folder_of(tmp_path / "faces"), 8)
    assert isinstance(made.images, np.memmap) and not made.images.flags.writeable and made.images.dtype == np.uint8
    assert made.name == "faces"
    assert all(np.array_equal(made.images[i], chw(picture(i))) for i in range(3))
    assert made.fingerprint == hashlib.sha256(b"uint8 3x3x8x8\n" + made.images.tobytes()).hexdigest()


def test_folder_and_parquet_of_the_same_images_have_one_fingerprint(tmp_path):
    by_folder = load_images(folder_of(tmp_path / "a", 5), 8)
    images = [png(picture(i)) for i in range(5)]
    write_parquet(tmp_path / "b/data/train-00000-of-00002.parquet", images[:3])
    write_parquet(tmp_path / "b/data/train-00001-of-00002.parquet", images[3:], hub_metadata=False)
    one_file = write_parquet(tmp_path / "faces.parquet", images, column="image")
    assert load_images(tmp_path / "b", 8).fingerprint == by_folder.fingerprint
    assert load_images(one_file, 8).fingerprint == by_folder.fingerprint
    assert load_images(one_file, 8).name == "faces" and load_images(one_file, 8, "heldout") is None
    assert load_images(tmp_path / "a", 16).fingerprint != by_folder.fingerprint


def test_modes(tmp_path):
    rgb = picture(0)
    grey = rgb[..., 0]
    alpha = np.dstack([rgb, grey])
    save(tmp_path / "x/0-rgba.png", alpha)
    save(tmp_path / "x/1-grey.png", grey)
    save(tmp_path / "x/2-grey16.png", grey.astype(np.uint16) * 257)
    Image.fromarray(rgb).quantize(16).save(tmp_path / "x/3-palette.png", transparency=3)
    Image.fromarray(rgb).save(tmp_path / "x/4.bmp")
    Image.fromarray(rgb).save(tmp_path / "x/5.WEBP", lossless=True)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "x/6.jpeg")
    images = load_images(tmp_path / "x", 8).images
    assert len(images) == 7
    assert all(np.array_equal(images[i], chw(rgb)) for i in (0, 4, 5))
    assert all(np.array_equal(images[i], np.stack([grey] * 3)) for i in (1, 2))
    assert np.array_equal(images[3], chw(np.asarray(Image.fromarray(rgb).quantize(16).convert("RGB"))))


def test_turned_cropped_resized(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    save(tmp_path / "x/0.png", picture(0), exif=exif)
    save(tmp_path / "x/1.png", picture(1, (8, 13)))
    save(tmp_path / "x/2.png", picture(2, (40, 30)))
    save(tmp_path / "x/3.png", picture(3, (3, 5)))
    images = load_images(tmp_path / "x", 8).images
    assert np.array_equal(images[0], chw(np.rot90(picture(0), -1)))
    assert np.array_equal(images[1], chw(picture(1, (8, 13))[:, 2:10]))
    for i, cut in ((2, picture(2, (40, 30))[5:35]), (3, picture(3, (3, 5))[:, 1:4])):
        assert np.array_equal(images[i], chw(np.asarray(Image.fromarray(cut).resize((8, 8), Image.Resampling.LANCZOS))))


def test_large_images_keep_their_order_over_threads(tmp_path):
    folder_of(tmp_path / "x", 9, 160)  # 77 kB each
    images = load_images(tmp_path / "x", 160).images
    assert all(np.array_equal(images[i], chw(picture(i, 160))) for i in range(9))


def test_folders_by_split(tmp_path):
    root = tmp_path / "spaces and ünïcode 顔"
    folder_of(root / "dog", 2)
    folder_of(root / "cat", 2, first=10)
    save(root / ".hidden/1.png", picture(0))
    (root / "cat/._00.png").write_bytes(b"what a Mac leaves behind")
    assert load_images(root, 8, "heldout") is None
    both = load_images(root, 8)
    assert len(both.images) == 4 and np.array_equal(both.images[0], chw(picture(10))) and both.name == root.name
    folder_of(root / "val/dog", 3, first=20)
    assert len(load_images(root, 8).images) == 4
    assert np.array_equal(load_images(root, 8, "heldout").images[0], chw(picture(20)))
    folder_of(root / "test", 2, first=30)
    folder_of(root / "train/cat", 5, first=40)
    assert len(load_images(root, 8).images) == 5
    assert len(load_images(root, 8, "heldout").images) == 2
    (root / "train/loop").symlink_to(root / "train", target_is_directory=True)
    assert len(load_images(root, 8).images) == 5


@pytest.mark.parametrize("names", [("plain_text/train-00000-of-00001", "plain_text/test-00000-of-00001"),
                                   ("default/train/0000", "default/validation/0000"), ("train", "valid")])  # fmt: skip
def test_parquet_by_split(tmp_path, names):
    for first, name in zip((0, 5), names, strict=True):
        write_parquet(tmp_path / f"x/{name}.parquet", [png(picture(first + i)) for i in range(2)])
    assert np.array_equal(load_images(tmp_path / "x", 8).images[0], chw(picture(0)))
    assert np.array_equal(load_images(tmp_path / "x", 8, "heldout").images[0], chw(picture(5)))


# The cache


def entry(cache):
    (file,) = cache.glob("*.npy")
    return file


def test_second_loading_decodes_nothing(tmp_path, monkeypatch):
    first = load_images(folder_of(tmp_path / "x"), 8)
    monkeypatch.setattr(data, "_decode_to", None)
    assert load_images(tmp_path / "x", 8).fingerprint == first.fingerprint


def test_changed_file_gives_new_images(tmp_path):
    file = folder_of(tmp_path / "x") / "01.bmp"
    save(file, picture(1))
    before, times = load_images(tmp_path / "x", 8), file.stat()
    time.sleep(0.05)  # more than the steps of the file system's clock
    save(file, picture(99))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    after = load_images(tmp_path / "x", 8)
    assert np.array_equal(after.images[1], chw(picture(99))) and after.fingerprint != before.fingerprint
    file.unlink()
    assert len(load_images(tmp_path / "x", 8).images) == 3


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-70] ^= 1
    file.write_bytes(content)


def replace_by_pickle(file):
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [truncate, flip, replace_by_pickle, Path.unlink,
                                    lambda file: file.with_suffix(".json").write_text('{"shape": [3'),
                                    lambda file: file.with_suffix(".json").write_text("[]")])  # fmt: skip
@pytest.mark.parametrize("verified", [1_000_000_000, 0])
def test_damaged_cache_is_made_again(tmp_path, cache, capsys, monkeypatch, damage, verified):
    monkeypatch.setattr(data, "_VERIFIED_BYTES", verified)
    first = load_images(folder_of(tmp_path / "x"), 8).fingerprint
    damage(entry(cache))
    again = load_images(tmp_path / "x", 8)
    assert again.fingerprint == first and np.array_equal(again.images[0], chw(picture(0)))
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("cached images of x are damaged: ")


def test_leftover_of_a_killed_process_is_removed(tmp_path, cache):
    load_images(folder_of(tmp_path / "x"), 8)
    leftover = cache / f".{entry(cache).stem}-abc.npy"
    entry(cache).unlink()
    leftover.write_bytes(b"half")
    load_images(tmp_path / "x", 8)
    assert not leftover.exists() and entry(cache)


def test_two_processes_decode_once(tmp_path):
    code = f"""
import debiaslib.data.images as data
draw = data._DRAWN["minifaces"]
def noted(indices, *more):
    with open({str(tmp_path / "log")!r}, "a") as file:
        file.write(f"{{len(indices)}}\\n")
    return draw(indices, *more)
data._DRAWN["minifaces"] = noted
print(data.load_images("minifaces", 8).fingerprint)
"""
    start = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **start) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0] for process in both}
    assert len(prints) == 1 and all(process.returncode == 0 for process in both)
    assert (tmp_path / "log").read_text().split().count("256") == 32


def test_unwritable_or_full_cache(tmp_path, monkeypatch):
    folder_of(tmp_path / "x")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    assert "set DEBIASLIB_CACHE to a folder with more room" in message(tmp_path / "x", 8)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "file"))
    assert "cannot be written" in message(tmp_path / "x", 8) and "DEBIASLIB_CACHE" in message(tmp_path / "x", 8)


# What is wrong with the input


def test_unknown_data_sets(tmp_path):
    assert "did you mean 'minifaces'?" in message("minifacse", 8)
    assert "did you mean 'uoft-cs/cifar10'?" in message("cifar10", 8)
    assert "an existing path, or a hub id, which looks like owner/name" in message("", 8)
    assert "neither an existing path nor a hub id" in message(tmp_path / "nothing", 8)


@pytest.mark.parametrize("resolution", [3, 1025, 8.0, True, None])
def test_resolution_out_of_range(resolution):
    assert f"resolution is {resolution!r}" in message("minifaces", resolution)


def test_split_and_size(tmp_path):
    assert "split 'valid' is unknown" in message("minifaces", 8, "valid")
    assert "holds 1 images; it must hold at least 2" in message(folder_of(tmp_path / "x", 1), 8)


def test_folders_without_images(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert repr(str(folder)) in message(folder, 8) and "png, jpg, jpeg, webp, bmp" in message(folder, 8)
    folder_of(folder / "test")
    assert "holds held-out images only" in message(folder, 8)


def test_broken_images_are_named(tmp_path, cache):
    folder = folder_of(tmp_path / "x")
    broken = folder / "sub/b.png"
    for content in (b"", b"no image", png(picture(0, 64))[:-400], png(picture(0))[:40]):
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(content)
        assert repr(str(broken)) in message(folder, 8) and "is broken" in message(folder, 8)
    save(broken, np.zeros((8, 8), np.float32), format="TIFF")
    assert "mode 'F'" in message(folder, 8)
    assert not list(cache.glob("*.npy")) and not list(cache.glob(".*"))


def test_broken_rows_are_named(tmp_path):
    good = png(picture(0))
    shard = write_parquet(tmp_path / "x/train-00000-of-00001.parquet", [good] * 100 + [good[:50]])
    assert f"row 100 (from 0) of {str(shard)!r} is broken" in message(tmp_path / "x", 8)
    write_parquet(shard, [good, None, good])
    assert f"row 1 (from 0) of {str(shard)!r} holds no image" in message(tmp_path / "x", 8)


def test_bad_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    assert "x.parquet' is no parquet file" in message(tmp_path / "x.parquet", 8)
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert "x.zip' is no parquet file" in message(tmp_path / "x.zip", 8)
    pq.write_table(pa.table({"label": [1, 2], "text": ["a", "b"]}), tmp_path / "y.parquet")
    assert "has no column of images; its columns: label, text" in message(tmp_path / "y.parquet", 8)
    write_parquet(tmp_path / "z/train-00000-of-00002.parquet", [png(picture(0))] * 2)
    assert "lacks the shard train-00001-of-00002.parquet" in message(tmp_path / "z", 8)
    for config in "ab":
        write_parquet(tmp_path / f"two/{config}/train.parquet", [png(picture(0))] * 2)
    assert "holds several data sets (a, b)" in message(tmp_path / "two", 8)


# The hub


def answer(monkeypatch, revision):
    """Let the hub name this commit, or raise this error."""

    def dataset_info(self, name, **more):
        if isinstance(revision, Exception):
            raise revision
        return SimpleNamespace(sha=revision)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)


@pytest.fixture
def no_copies(monkeypatch, tmp_path):
    """Empty hub caches, whatever this machine has."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))


def hub_rows(count, first=0):
    import datasets

    rows = {"label": [0] * count, "img": [{"bytes": png(picture(first + i)), "path": None} for i in range(count)]}
    features = datasets.Features({"label": datasets.Value("int64"), "img": datasets.Image()})
    return datasets.Dataset.from_dict(rows, features)


def test_hub_by_commit_and_then_without_network(tmp_path, monkeypatch, capsys):
    import datasets

    asked = []

    def load_dataset(name, revision=None):
        asked.append(revision)
        return datasets.DatasetDict(train=hub_rows(3, len(asked)), test=hub_rows(2))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    answer(monkeypatch, "commit1")
    first = load_images("owner/name", 8)
    assert first.name == "owner/name" and np.array_equal(first.images[0], chw(picture(1)))
    assert len(load_images("owner/name", 8, "heldout").images) == 2
    asked.clear()
    assert load_images("owner/name", 8).fingerprint == first.fingerprint and asked == []
    answer(monkeypatch, "commit2")
    asked.append(None)
    second = load_images("owner/name", 8)
    assert asked == [None, "commit2"] and second.fingerprint != first.fingerprint
    capsys.readouterr()
    answer(monkeypatch, OSError("Name or service not known"))
    assert load_images("owner/name", 8).fingerprint == second.fingerprint
    assert capsys.readouterr().err.count("\n") == 1


def test_unreachable_hub_says_what_to_do(monkeypatch, no_copies):
    answer(monkeypatch, OSError("Name or service not known"))
    said = message("owner/name", 8)
    assert "'owner/name'" in said and "DATASET=path" in said and "HF_HOME" in said


def test_hub_that_never_answers(monkeypatch, no_copies):
    monkeypatch.setattr(hub, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name, **more: time.sleep(20))
    started = time.monotonic()
    assert "the hub cannot be reached" in message("owner/name", 8)
    assert time.monotonic() - started < 10


def test_hub_without_such_a_data_set_or_split(monkeypatch):
    import datasets
    from huggingface_hub.errors import RepositoryNotFoundError

    answer(monkeypatch, RepositoryNotFoundError.__new__(RepositoryNotFoundError))
    assert "not on the hub" in message("owner/name", 8)
    answer(monkeypatch, "commit1")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: datasets.DatasetDict(all=hub_rows(2)))
    assert "has no split 'train'; it has all" in message("owner/name", 8)
    assert load_images("owner/name", 8, "heldout") is None


def test_offline_from_the_files_in_the_hub_cache(tmp_path):
    repository, commit = tmp_path / "hf/hub/datasets--owner--name", "c" * 40
    shard = repository / f"snapshots/{commit}/data/train-00000-of-00001.parquet"
    write_parquet(shard, [png(picture(i)) for i in range(2)])
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    code = """
import sys
from debiaslib.data.images import load_images
print(load_images("owner/name", 8).fingerprint, load_images("owner/name", 8, "heldout"), "torch" in sys.modules)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.split() == [load_images(folder_of(tmp_path / "x", 2), 8).fingerprint, "None", "False"], run.stderr
