"""Data sets from folders and parquet: the right images, decoded once, never stale; mistakes are one line."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import chw, folder_of, picture, png, save, write_parquet

from debiaslib.data import gaussian, minifaces
from debiaslib.data import images as caching
from debiaslib.data.folders import local_source
from debiaslib.data.images import load_images
from debiaslib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


# What comes out


@pytest.mark.parametrize("name, render", [("minifaces", minifaces.render), ("gaussian", gaussian.render)])
def test_drawn_images_by_split(name, render):
    train, held_out = load_images(name, 8), load_images(name, 8, "heldout")
    assert train.images.shape == (8192, 3, 8, 8) and held_out.images.shape == (2048, 3, 8, 8)
    assert np.array_equal(train.images[5000:5003], render(range(5000, 5003), 8, 0))
    assert np.array_equal(held_out.images[-1:], render([2047], 8, 1))
    assert train.name == held_out.name == name


def test_fingerprints_are_those_that_run_folders_hold(tmp_path):
    assert (
        load_images("minifaces", 16).fingerprint == "d16cb55fa3dec29091af4a0ab4e42f58d7c8555ec27b0c35fbb06d251c532ec9"
    )
    assert load_images("gaussian", 16).fingerprint == "0fa513d850da95d3c6b920a21b4aebf9efff63d784522335a5343da27cb5e2c5"
    made = load_images(folder_of(tmp_path / "faces"), 8)
    assert made.fingerprint == hashlib.sha256(b"uint8 3x3x8x8\n" + made.images.tobytes()).hexdigest()


def test_images_are_mapped_read_only(tmp_path):
    made = load_images(folder_of(tmp_path / "faces"), 8)
    assert isinstance(made.images, np.memmap) and not made.images.flags.writeable and made.images.dtype == np.uint8
    assert made.name == "faces" and all(np.array_equal(made.images[i], chw(picture(i))) for i in range(3))


def test_folder_and_parquet_of_the_same_images_have_one_fingerprint(tmp_path):
    by_folder = load_images(folder_of(tmp_path / "a", 5), 8)
    images = [png(picture(i)) for i in range(5)]
    write_parquet(tmp_path / "b/data/train-00000-of-00002.parquet", images[:3])
    write_parquet(tmp_path / "b/data/train-00001-of-00002.parquet", images[3:], kinds=False)
    one_file = write_parquet(tmp_path / "faces.parquet", images, "image", kinds={"image": {"_type": "NoSuchType"}})
    assert load_images(tmp_path / "b", 8).fingerprint == by_folder.fingerprint
    assert load_images(one_file, 8).fingerprint == by_folder.fingerprint
    assert load_images(one_file, 8).name == "faces" and load_images(one_file, 8, "heldout") is None
    assert load_images(tmp_path / "a", 16).fingerprint != by_folder.fingerprint


def test_folders_by_split(tmp_path):
    root = tmp_path / "spaces and ünïcode 顔"
    folder_of(root / "dog", 2)
    folder_of(root / "cat", 2, first=10)
    save(root / "cat/test_1.png", picture(12))  # a name is no split
    save(root / ".hidden/1.png", picture(0))
    (root / "cat/._00.png").write_bytes(b"what a Mac leaves behind")
    assert load_images(root, 8, "heldout") is None
    both = load_images(root, 8)
    assert len(both.images) == 5 and np.array_equal(both.images[0], chw(picture(10))) and both.name == root.name
    folder_of(root / "val/dog", 3, first=20)
    assert len(load_images(root, 8).images) == 5
    assert np.array_equal(load_images(root, 8, "heldout").images[0], chw(picture(20)))
    folder_of(root / "test", 2, first=30)
    folder_of(root / "train/cat", 6, first=40)
    assert len(load_images(root, 8).images) == 6 and len(load_images(root, 8, "heldout").images) == 2


@pytest.mark.parametrize("names", [("plain_text/train-00000-of-00001", "plain_text/test-00000-of-00001"),
                                   ("default/train/0000", "default/validation/0000"), ("train", "valid"),
                                   ("faces-train", "faces-test"), ("training", "testing")])  # fmt: skip
def test_parquet_by_split(tmp_path, names):
    for first, name in zip((0, 5), names, strict=True):
        write_parquet(tmp_path / f"x/{name}.parquet", [png(picture(first + i)) for i in range(2)])
    assert np.array_equal(load_images(tmp_path / "x", 8).images[0], chw(picture(0)))
    assert np.array_equal(load_images(tmp_path / "x", 8, "heldout").images[0], chw(picture(5)))


def test_what_is_left_out_is_counted_once(tmp_path, capsys):
    root = folder_of(tmp_path / "x")
    for name in ("readme.txt", "a.svg", "b.SVG"):
        (root / name).write_text("no image")
    for _ in range(2):
        assert len(load_images(root, 8).images) == 3
    assert capsys.readouterr().err == f"left out 3 files of {str(root)!r}, such as a.svg\n"


def test_images_beside_the_folder_of_training_images_are_left_out(tmp_path, capsys):
    """A class may be called train, and then the other classes are not seen."""
    for name, count in (("car", 2), ("train", 3)):
        folder_of(tmp_path / "x" / name, count)
    assert len(load_images(tmp_path / "x", 8).images) == 3
    assert capsys.readouterr().err.startswith("left out 2 files")


# The cache


def test_a_table_beside_images_may_hold_their_captions(tmp_path, capsys):
    """The layout of an image folder with metadata.parquet; a table that holds images itself is the data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = folder_of(tmp_path / "faces", 3)
    pq.write_table(pa.table({"file_name": ["00.png"], "caption": ["a face"]}), root / "metadata.parquet")
    assert len(load_images(root, 8).images) == 3
    assert capsys.readouterr().err == f"left out 1 files of {str(root)!r}, such as metadata.parquet\n"
    write_parquet(root / "train-00000-of-00001.parquet", [png(picture(i)) for i in range(5)])
    (root / "metadata.parquet").unlink()
    assert len(load_images(root, 8).images) == 5
    assert capsys.readouterr().err == f"left out 3 files of {str(root)!r}, such as 00.png\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists its open files under another name")
def test_shards_are_open_one_at_a_time(tmp_path):
    """There may be more of them than a process may hold open."""
    for i in range(8):
        write_parquet(tmp_path / f"many/train-{i:05d}-of-00008.parquet", [png(picture(i))] * 2)
    count, images = local_source(tmp_path / "many", "train").open(8)
    next(iter(images))
    there = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert count == 16 and sum(path.endswith(".parquet") for path in there) <= 1


def test_a_resolution_may_be_numpys(tmp_path):
    assert load_images(folder_of(tmp_path / "faces"), np.int64(8)).images.shape == (3, 3, 8, 8)


def test_links_are_followed_and_may_lead_back(tmp_path):
    root = folder_of(tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y/z").symlink_to(root)
    (tmp_path / "y/.hidden").symlink_to(root)
    (root / "back").symlink_to(tmp_path / "y")
    assert len(load_images(tmp_path / "y", 8).images) == len(load_images(root, 8).images) == 3


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    root, scandir = folder_of(tmp_path / "x"), os.scandir
    (root / "locked").mkdir()

    def refusing(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match="locked' cannot be read: Permission denied"):
        load_images(root, 8)


def test_changed_file_gives_new_images(tmp_path, monkeypatch):
    file = folder_of(tmp_path / "x") / "01.bmp"
    save(file, picture(1))
    before, times = load_images(tmp_path / "x", 8), file.stat()
    with monkeypatch.context() as patch:
        patch.setattr(caching, "_decode_to", None)  # nothing is decoded twice
        assert load_images(tmp_path / "x", 8).fingerprint == before.fingerprint
    time.sleep(0.05)  # more than the steps of the file system's clock
    save(file, picture(99))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    after = load_images(tmp_path / "x", 8)
    assert np.array_equal(after.images[1], chw(picture(99))) and after.fingerprint != before.fingerprint
    file.unlink()
    assert len(load_images(tmp_path / "x", 8).images) == 3


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-100])])
def test_a_large_file_that_is_damaged_is_made_again(tmp_path, cache, monkeypatch, damage):
    monkeypatch.setattr(caching, "_HASHED_BYTES", 0)
    first = load_images(folder_of(tmp_path / "x"), 8).fingerprint
    damage(next(cache.glob("*.npy")))
    again = load_images(tmp_path / "x", 8)
    assert again.fingerprint == first and np.array_equal(again.images[0], chw(picture(0)))


def test_large_files_are_not_hashed_at_each_start(tmp_path, monkeypatch):
    first = load_images(folder_of(tmp_path / "x"), 8).fingerprint
    monkeypatch.setattr("debiaslib.store.sha256_file", None)
    with pytest.raises(TypeError):
        load_images(tmp_path / "x", 8)
    monkeypatch.setattr(caching, "_HASHED_BYTES", 0)
    assert load_images(tmp_path / "x", 8).fingerprint == first


def test_other_codecs_decode_again(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "x")
    before = load_images(root, 5)
    monkeypatch.setattr("PIL.features.version", lambda name: "another")
    monkeypatch.setattr("debiaslib.data.decode._to_array", lambda image, size: np.full((3, size, size), 99, np.uint8))
    after = load_images(root, 5)
    assert after.fingerprint != before.fingerprint and (after.images == 99).all()


def test_a_killed_decoder_and_a_full_disk_leave_nothing(tmp_path, cache, monkeypatch):
    root = folder_of(tmp_path / "x")
    code = f"""
import os, signal
from debiaslib.data import images
images.np.lib.format.write_array_header_1_0 = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
images.load_images({str(root)!r}, 8)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    assert not list(cache.glob("[!.]*")) and list(cache.glob(".*.npy"))

    def full(*given):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(OSError, match="No space left"):
            load_images(root, 8)
        assert not list(cache.glob("[!.]*"))
    assert len(load_images(root, 8).images) == 3
    assert not [path for path in cache.glob(".*") if path.suffix != ".lock"]


def test_two_processes_decode_once(tmp_path):
    code = f"""
import debiaslib.data.images as data
draw = data.DRAWN["minifaces"]
def noted(indices, *more):
    with open({str(tmp_path / "log")!r}, "a") as file:
        file.write(f"{{len(indices)}}\\n")
    return draw(indices, *more)
data.DRAWN["minifaces"] = noted
print(data.load_images("minifaces", 8).fingerprint)
"""
    start = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **start) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0] for process in both}
    assert len(prints) == 1 and all(process.returncode == 0 for process in both)
    assert (tmp_path / "log").read_text().split().count("256") == 32


def test_an_import_and_a_cached_data_set_need_no_heavy_library(tmp_path):
    write_parquet(tmp_path / "x.parquet", [png(picture(0))] * 2)
    load_images(tmp_path / "x.parquet", 8)
    code = f"""
import sys
from debiaslib.data.images import load_images
from debiaslib.errors import InputError
load_images({str(tmp_path / "x.parquet")!r}, 8)
print({{"torch", "datasets", "pyarrow", "pandas"}} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).stdout == b"set()\n"
