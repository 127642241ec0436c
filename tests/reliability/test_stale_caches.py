"""Caches never answer for something else: whatever decides a number is part of what it is kept under, or is looked at.

Every test compares with what is made where there is no cache.
"""

import dataclasses
import functools
import io
import itertools
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from debiaslib.data import decoding
from debiaslib.data import images as data
from debiaslib.data.gaussian import render
from debiaslib.data.images import load_images
from debiaslib.files import sha256_json
from debiaslib.study import distances, measurements, study
from debiaslib.study.experiment import load_experiment
from debiaslib.training.config import run_name

TICK = 0.03  # seconds, more than the steps of a file system's clock


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Nothing here loses its power, and thousands of files are written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


# Decoded images


def picture(seed, side=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def folder_of(root, seeds=(0, 1, 2)):
    root.mkdir(parents=True)
    for seed in seeds:
        picture(seed).save(root / f"{seed}.bmp")  # of one size, whatever is on them
    return root


def keeping_times(path, change):
    """Change a file so that its size and its time of change are as before."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


def one_pixel(root):
    content = bytearray((root / "1.bmp").read_bytes())
    content[150] ^= 128
    keeping_times(root / "1.bmp", lambda: (root / "1.bmp").write_bytes(content))


def another_file_moved_there(root):
    before = (root / "1.bmp").stat()
    picture(9).save(root / "new", "BMP")
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(root / "new", root / "1.bmp")


def two_exchanged(root):
    for file in root.iterdir():
        os.utime(file, ns=(0, 0))
    load_images(root, 8)
    for old, new in (("0.bmp", "x"), ("1.bmp", "0.bmp"), ("x", "1.bmp")):
        time.sleep(TICK)
        (root / old).rename(root / new)


def link_that_leads_elsewhere(root):
    (root / "3.bmp").symlink_to(root / "0.bmp")
    load_images(root, 8)
    (root / "3.bmp").unlink()
    (root / "3.bmp").symlink_to(root / "1.bmp")


def one_less(root):
    (root / "1.bmp").unlink()


def parquet(root):
    """One shard in the place of the images, and then another of the same size and time."""
    for file in root.iterdir():
        file.unlink()
    path = root / "0000.parquet"

    def write(seeds):
        rows = [{"bytes": file_bytes(picture(seed))} for seed in seeds]
        pyarrow.parquet.write_table(pyarrow.table({"image": rows}), path, compression="none", use_dictionary=False)

    write((0, 1))
    load_images(root, 8)
    time.sleep(TICK)
    keeping_times(path, lambda: write((4, 5)))


def file_bytes(image):
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


CHANGES = [one_pixel, another_file_moved_there, two_exchanged, one_less, link_that_leads_elsewhere, parquet]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("change", CHANGES)
def test_decoded_images(tmp_path, cache, monkeypatch, change):
    """Files that are other ones under the same names, of the same sizes and times."""
    root = folder_of(tmp_path / "images")
    before = np.array(load_images(root, 8).images)
    time.sleep(TICK)
    change(root)
    after = load_images(root, 8)
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "none"))
    fresh = load_images(root, 8)
    assert np.array_equal(after.images, fresh.images) and after.fingerprint == fresh.fingerprint
    assert not np.array_equal(before, after.images)


def test_sizes_splits_and_folders_are_told_apart(tmp_path, cache, monkeypatch):
    for name in ("a", "b"):
        folder_of(tmp_path / name / "x" / "train", (0, 1) if name == "a" else (2, 3))
        folder_of(tmp_path / name / "x" / "test", (4, 5) if name == "a" else (6, 7))
    asked = list(itertools.product("ab", (8, 5, 4), ("train", "heldout")))
    found = []
    for _ in range(2):  # decoded, and then from the cache
        for name, size, split in asked:
            monkeypatch.chdir(tmp_path / name)  # one relative name for both
            images = load_images("x", size, split).images
            first = {"atrain": 0, "aheldout": 4, "btrain": 2, "bheldout": 6}[name + split]
            assert np.array_equal(images[0], decoding.decode(file_bytes(picture(first)), size))
            found.append(images.tobytes())
    assert len(set(found)) == len(asked)


def test_libraries_that_decode_in_another_way(tmp_path, cache, monkeypatch, capsys):
    root = folder_of(tmp_path / "x")
    before = load_images(root, 5)
    assert load_images(root, 5).fingerprint == before.fingerprint and not capsys.readouterr().err
    decoding.decoder_hash.cache_clear()  # it is found out once a process
    try:
        monkeypatch.setattr(
            decoding, "_to_array", lambda image, size: np.asarray(image.resize((size, size), 0)).T.copy()
        )
        after = load_images(root, 5)
        assert after.fingerprint != before.fingerprint
        assert "libraries that decode in another way; decoding again" in capsys.readouterr().err
        assert load_images(root, 5).fingerprint == after.fingerprint and not capsys.readouterr().err
    finally:
        decoding.decoder_hash.cache_clear()


def test_code_that_draws_other_images(cache, monkeypatch):
    monkeypatch.setitem(data._DRAWN_SPLITS, "train", (5, 0))
    before = load_images("gaussian", 4)
    monkeypatch.setitem(data._DRAWN, "gaussian", lambda *asked: render(*asked)[:, ::-1].copy())
    after = load_images("gaussian", 4)
    assert np.array_equal(after.images, before.images[:, ::-1]) and after.fingerprint != before.fingerprint


# Tables


class Captured(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is not the experiment's: data, weights, networks and rules of features."""

    images: str = "i0"
    heldout: str = "h0"
    weights: str = "w0"
    features: str = "f0"
    dtype: str = "float32"
    rule: str = "r0"


TABLES = {
    "mse": measurements.mse,
    "one_step": measurements.one_step,
    "bias": measurements.bias,
    "gradient_noise": measurements.gradient_noise,
    "real": measurements.real_distances,
    "samples": functools.partial(measurements.samples, arm="debiased", seed=0),
    "training": functools.partial(measurements.training_samples, arm="debiased", seed=0),
    "distances": functools.partial(measurements.distances, arm="debiased", seed=0),
}
ALL = set(TABLES)
JUDGED = {"distances", "real"}
SAMPLED = {"samples", "training", "distances"}
# what changes: (new value, the tables that must be made again)
OF_FACTS = {"images": ALL, "heldout": {"mse", "real"}, "weights": ALL - {"real"},
            "features": JUDGED, "dtype": JUDGED, "rule": JUDGED}  # fmt: skip
OF_EXPERIMENT = {
    "curve_images": (17, {"mse", "bias"}),
    "curve_timesteps": ((0, 9), {"mse", "bias"}),
    "shown_images": (5, {"one_step"}),
    "shown_timesteps": ((3,), {"one_step"}),
    "optimum_images": (300, {"mse", "bias", "one_step"}),
    "grid_images": (5, {"samples", "training"}),
    "grid_steps": ((3,), {"samples"}),
    "snapshot_steps": ((3,), {"training", "distances"}),
    "distance_images": (101, {"distances", "real"}),
    "distance_steps": ((3,), {"distances"}),
    "reference_images": (201, JUDGED),
    "sampling_batch_size": (49, SAMPLED),
    "sampler": ("ddpm", SAMPLED),
    "further_samplers": ((), {"distances"}),
    "clip_x0": (False, SAMPLED),
    "raw_weights": (False, {"distances"}),
}


def keys(monkeypatch, facts=None, **changed):
    """{table: the key that it is kept under} of an experiment with these facts and changed settings."""
    facts, e = facts or Facts(), dataclasses.replace(load_experiment(SMOKE), **changed)
    found = {}

    def table(self, name, inputs, make):
        found["now"] = sha256_json(json.loads(json.dumps(inputs)))
        raise Captured

    def images(self, split="train"):
        fingerprint = facts.heldout if split == "heldout" else facts.images
        return data.ImageSet(np.zeros((512, 3, 4, 4), np.uint8), "faces", fingerprint, split)

    identity = {"config": sha256_json({"data_fingerprint": facts.images}), "ema": facts.weights}

    def trained(study, seeds, weightings=None):
        return {"runs": {run_name(w, s): identity for s in seeds for w in weightings or study.experiment.weightings}}

    def extractor(name, device):
        return SimpleNamespace(
            name=name, weights_sha256=facts.features, dtype=facts.dtype, rule=facts.rule, dimension=4
        )

    with monkeypatch.context() as patch:
        patch.setattr(study.Study, "table", table)
        patch.setattr(study.Study, "images", images)
        patch.setattr(study.Study, "run", lambda *asked: SimpleNamespace(record={"snapshots": [{"images": 8}]}))
        patch.setattr(distances, "load_extractor", extractor)
        for measure in (measurements.samples, *TABLES.values()):
            patch.setitem(getattr(measure, "func", measure).__globals__, "trained", trained)
        for name, measure in TABLES.items():
            with pytest.raises(Captured):
                measure(study.Study(e, None))
            found[name] = found.pop("now")
    return found


SMOKE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "smoke.yaml")


def test_tables(monkeypatch):
    """What is changed makes those tables again that depend on it, and no others."""
    before = keys(monkeypatch)
    cases = [({"facts": Facts(**{name: "another"})}, name, wanted) for name, wanted in OF_FACTS.items()]
    cases += [({name: value}, name, wanted) for name, (value, wanted) in OF_EXPERIMENT.items()]
    for changed, name, wanted in cases:
        after = keys(monkeypatch, **changed)
        made_again = {table for table in before if after[table] != before[table]}
        assert made_again == wanted, name
    assert keys(monkeypatch) == before
