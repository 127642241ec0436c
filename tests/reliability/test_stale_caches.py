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
from debiaslib.metrics import distances as metrics
from debiaslib.metrics import feature_cache
from debiaslib.metrics.features import load_extractor
from debiaslib.study import common as tables
from debiaslib.study import measurements, study
from debiaslib.study import samples as sample_measurements
from debiaslib.study.experiment import load_experiment
from debiaslib.study.sample_store import stored_samples
from debiaslib.training.config import run_name

TICK = 0.03  # seconds, more than the steps of a file system's clock


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Nothing here loses its power, and thousands of files are written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


# Features of a reference set


class Network:
    """Stands for a feature network: what it gives depends on all of its settings. Counts its calls."""

    dimension = 2

    def __init__(self, name="pooled", weights="w0", dtype="float32", rule="r0", device="cpu"):
        self.name, self.weights_sha256, self.dtype, self.rule, self.device = name, weights, dtype, rule, device
        self.calls = 0

    def features(self, images, batch_size):
        self.calls += 1
        decides = [self.name, self.weights_sha256, self.dtype, self.rule, self.device, batch_size, LIBRARIES[:]]
        number = int(sha256_json([decides, images.tobytes().hex()])[:8], 16)
        return np.full((len(images), 2), number, np.float64) + np.arange(len(images))[:, None]


LIBRARIES = ["2.10.0", "0.4.0"]  # versions of torch and torch-fidelity


def test_features_of_a_reference_set(tmp_path, monkeypatch, reached):
    """Every combination of two values of everything that decides them, one after the other in one cache."""
    first = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4), dtype=np.uint8)
    one_pixel = first.copy()
    one_pixel[2, 1, 3, 0] ^= 1
    monkeypatch.setattr(feature_cache, "torch_fidelity_module", lambda: SimpleNamespace(__version__=LIBRARIES[1]))
    device = SimpleNamespace(device=lambda name: SimpleNamespace(type=name))
    choices = {
        "images": (first, one_pixel), "n": (3, 2), "weights": ("w0", "w1"), "dtype": ("float32", "float64"),
        "rule": ("bilinear", "area"), "name": ("inception", "dinov2"), "device": ("cpu", "cuda"), "batch": (64, 32),
        "torch": ("2.10.0", "2.11.0"), "library": ("0.4.0", "0.4.1"),
    }  # fmt: skip

    def features(images, n, weights, dtype, rule, name, device_name, batch, torch_version, library):
        LIBRARIES[:] = torch_version, library
        monkeypatch.setattr(feature_cache, "BATCH_SIZE", batch)
        monkeypatch.setattr(feature_cache, "torch", SimpleNamespace(__version__=torch_version, device=device.device))
        network = Network(name, weights, dtype, rule, device_name)
        found = feature_cache.reference_features(
            images, network, feature_cache.fingerprint_of(images), n, tmp_path / "cache"
        )
        return found, network.calls, Network(name, weights, dtype, rule, device_name).features(images[:n], batch)

    combinations = list(itertools.product(*choices.values()))
    for calls in (1, 0):  # made, and then found
        for one in combinations:
            found, counted, wanted = features(*one)
            assert counted == calls and np.array_equal(found, wanted), one[1:]
    changed = " ".join(choices)
    reached(
        4, f"feature cache: all combinations of two {changed}", "never an old number", f"{len(combinations):,}, 0 stale"
    )


def test_a_distance_from_images_of_which_one_pixel_has_changed(tmp_path):
    draw = np.random.default_rng(0)
    generated, reference = (draw.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8) for _ in range(2))
    pooled = load_extractor("pooled")
    values = [row["value"] for row in metrics.evaluate(generated, reference, pooled, cache=tmp_path)]
    reference[59, 2, 7, 7] ^= 128
    after = [row["value"] for row in metrics.evaluate(generated, reference, pooled, cache=tmp_path)]
    assert after[0] != values[0]
    assert after == [row["value"] for row in metrics.evaluate(generated, reference, pooled, cache=False)]


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


def another_picture(root):
    keeping_times(root / "1.bmp", lambda: picture(9).save(root / "1.bmp"))


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


def folder_exchanged(root):
    folder_of(root.parent / "other", (7, 8, 9))
    for old, new in ((7, 0), (8, 1), (9, 2)):
        times = (root / f"{new}.bmp").stat()
        (root.parent / "other" / f"{old}.bmp").rename(root.parent / "other" / f"{new}.bmp")
        os.utime(root.parent / "other" / f"{new}.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    root.rename(root.parent / f"old {root.name}")
    (root.parent / "other").rename(root)


def link_that_leads_elsewhere(root):
    (root / "3.bmp").symlink_to(root / "0.bmp")
    load_images(root, 8)
    (root / "3.bmp").unlink()
    (root / "3.bmp").symlink_to(root / "1.bmp")


def one_more(root):
    picture(5).save(root / "5.bmp")


def one_less(root):
    (root / "1.bmp").unlink()


def renamed(root):
    (root / "0.bmp").rename(root / "3.bmp")  # the last now


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


CHANGES = [one_pixel, another_picture, another_file_moved_there, two_exchanged, folder_exchanged, one_more, one_less,
           link_that_leads_elsewhere, renamed, parquet]  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_decoded_images(tmp_path, cache, monkeypatch, reached, split):
    """Files that are other ones under the same names, of the same sizes and times; other sizes; both splits."""
    changed = 0
    for change, size in itertools.product(CHANGES, (8, 5)):
        root = tmp_path / change.__name__ / str(size)
        images = folder_of(root / "test") if split == "heldout" else folder_of(root)
        before = np.array(load_images(root, size, split).images)
        time.sleep(TICK)
        change(images)
        after = load_images(root, size, split)
        with monkeypatch.context() as patch:
            patch.setenv("DEBIASLIB_CACHE", str(tmp_path / "none" / change.__name__ / str(size)))
            fresh = load_images(root, size, split)
        assert np.array_equal(after.images, fresh.images) and after.fingerprint == fresh.fingerprint
        assert not np.array_equal(before, after.images), change
        changed += 1
    reached(4, f"decoded images ({split}): other content under the same names and times", "decoded again",
            f"{changed} changes, 0 stale")  # fmt: skip


def test_sizes_splits_and_folders_are_told_apart(tmp_path, cache, monkeypatch, reached):
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
    reached(4, "decoded images: folders of one relative name, sizes and splits", "told apart", f"{len(asked)}, 0 stale")


def test_libraries_that_decode_in_another_way(tmp_path, cache, monkeypatch, capsys, reached):
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
    reached(4, "decoded images: another way to decode or resize", "decoded again", "1 of 1")


def test_code_that_draws_other_images(cache, monkeypatch):
    monkeypatch.setitem(data._DRAWN_SPLITS, "train", (5, 0))
    before = load_images("gaussian", 4)
    monkeypatch.setitem(data._DRAWN, "gaussian", lambda *asked: render(*asked)[:, ::-1].copy())
    after = load_images("gaussian", 4)
    assert np.array_equal(after.images, before.images[:, ::-1]) and after.fingerprint != before.fingerprint


# Samples and tables


def test_stored_samples(tmp_path, reached):
    """Whatever `sample_measurements` says of what decides samples, one thing changed at a time and all together."""
    inputs = {"config": "c", "ema": "e", "network": "ema", "images_seen": 8, "n": 2, "sampler": "ddim", "steps": 5,
              "prediction_type": "epsilon", "clip_x0": True, "batch_size": 2, "device": "cpu", "threads": 1,
              }  # fmt: skip
    variants = [inputs] + [{**inputs, name: "another"} for name in inputs] + [dict.fromkeys(inputs, 0)]
    for drawn in (True, False):
        for number, one in enumerate(variants):
            calls = []

            def draw(seeds, number=number, calls=calls):
                calls.append(seeds)
                return [np.full((len(seeds), 3, 2, 2), number, np.uint8)]

            assert (stored_samples(tmp_path, one, range(2), (3, 2, 2), draw) == number).all()
            assert bool(calls) is drawn
    reached(4, "stored samples: each of what decides them changed", "drawn again", f"{len(variants)}, 0 stale")


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
    "real": sample_measurements.real_distances,
    "samples": functools.partial(sample_measurements.samples, arm="debiased", seed=0),
    "training": functools.partial(sample_measurements.training_samples, arm="debiased", seed=0),
    "distances": functools.partial(sample_measurements.distances, arm="debiased", seed=0),
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
        patch.setattr(sample_measurements, "load_extractor", extractor)
        for module in (tables, measurements, sample_measurements, measurements.bias, measurements.gradient_noise):
            home = module.__globals__ if callable(module) else vars(module)
            patch.setitem(home, "trained", trained)
        for name, measure in TABLES.items():
            with pytest.raises(Captured):
                measure(study.Study(e, None))
            found[name] = found.pop("now")
    return found


SMOKE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "smoke.yaml")


def test_tables(monkeypatch, reached):
    """What is changed makes those tables again that depend on it, and no others."""
    before, trials = keys(monkeypatch), 0
    cases = [({"facts": Facts(**{name: "another"})}, name, wanted) for name, wanted in OF_FACTS.items()]
    cases += [({name: value}, name, wanted) for name, (value, wanted) in OF_EXPERIMENT.items()]
    for changed, name, wanted in cases:
        after = keys(monkeypatch, **changed)
        made_again = {table for table in before if after[table] != before[table]}
        assert made_again == wanted, name
        trials += len(before)
    assert keys(monkeypatch) == before
    reached(4, "tables: 9 tables, each input changed", "those that depend on it made again", f"{trials} pairs, 0 stale")
