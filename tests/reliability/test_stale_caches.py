"""Caches never answer for something else: whatever decides a number is part of what it is kept under, or is looked at.

Every test compares with what is made where there is no cache.
"""

import dataclasses
import functools
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import picture, save

from debiaslib.data import images as data
from debiaslib.data.gaussian import render
from debiaslib.data.images import load_images
from debiaslib.files import sha256_json
from debiaslib.study import distances, measurements, study
from debiaslib.study.experiment import load_experiment
from debiaslib.training.config import run_name

TICK = 0.03  # seconds, more than the steps of a file system's clock


# Decoded images


def folder_of(root, seeds=(0, 1, 2)):
    for seed in seeds:
        save(root / f"{seed}.bmp", picture(seed))  # of one size, whatever is on them
    return root


def another_file_moved_there(root):
    save(root / "new/1.bmp", picture(9))
    os.utime(root / "new/1.bmp", ns=(0, 0))
    os.replace(root / "new/1.bmp", root / "1.bmp")


def two_exchanged(root):
    for old, new in (("0.bmp", "x"), ("1.bmp", "0.bmp"), ("x", "1.bmp")):
        time.sleep(TICK)
        (root / old).rename(root / new)


def folder_exchanged(root):
    root.rename(root.parent / f"old {root.name}")
    folder_of(root, (2, 1, 0))
    two_exchanged(root)


def link_that_leads_elsewhere(root):
    (root / "2.bmp").unlink()
    (root / "2.bmp").symlink_to(root / "1.bmp")


def renamed(root):
    (root / "0.bmp").rename(root / "3.bmp")  # the last now


CHANGES = [another_file_moved_there, two_exchanged, folder_exchanged, link_that_leads_elsewhere, renamed]


@pytest.mark.parametrize("change", CHANGES)
def test_decoded_images(tmp_path, monkeypatch, change):
    """Files that are other ones under the same names, of the same sizes and times."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "cache"))
    root = folder_of(tmp_path / "x")
    before = np.array(load_images(root, 8).images)
    time.sleep(TICK)
    change(root)
    for file in root.rglob("*.*"):
        os.utime(file, ns=(0, 0))
    after = load_images(root, 8)
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "none"))
    fresh = load_images(root, 8)
    assert np.array_equal(after.images, fresh.images) and after.fingerprint == fresh.fingerprint
    assert not np.array_equal(before, after.images)


def test_code_that_draws_other_images(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(data._DRAWN_SPLITS, "train", (5, 0))
    before = load_images("gaussian", 4)
    monkeypatch.setitem(data.DRAWN, "gaussian", lambda *asked: render(*asked)[:, ::-1].copy())
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
    "real": measurements.real_distances,
    "samples": functools.partial(measurements.samples, arm="debiased", seed=0),
    "training": functools.partial(measurements.training_samples, arm="debiased", seed=0),
    "distances": functools.partial(measurements.distances, arm="debiased", seed=0),
    "gate": measurements.gate,
    "arm_errors": measurements.arm_errors,
    "swap": measurements.oracle_swap,
    "swap_samples": measurements.oracle_swap_samples,
}
ALL = set(TABLES)
JUDGED = {"distances", "real", "swap"}
SWAPPED = {"swap", "swap_samples"}
SAMPLED = {"samples", "training", "distances"}
# what changes: (new value, the tables that must be made again)
OF_FACTS = {"images": ALL, "heldout": {"mse", "real"}, "weights": ALL - {"real"},
            "features": JUDGED, "dtype": JUDGED, "rule": JUDGED}  # fmt: skip
OF_EXPERIMENT = {
    "curve_images": (17, {"mse", "bias", "gate", "arm_errors"}),
    "curve_timesteps": ((0, 9), {"mse", "bias"}),
    "shown_images": (5, {"one_step"}),
    "shown_timesteps": ((3,), {"one_step", "arm_errors"}),
    "optimum_images": (300, {"mse", "bias", "one_step", "gate", "arm_errors"} | SWAPPED),
    "grid_images": (5, {"samples", "training"}),
    "grid_steps": ((3,), {"samples"}),
    "snapshot_steps": ((3,), {"training", "distances"}),
    "distance_images": (101, {"distances", "real"}),
    "distance_steps": ((3,), {"distances"}),
    "reference_images": (201, JUDGED),
    "sampling_batch_size": (49, SAMPLED),
    "further_samplers": ((), {"distances"}),
    "clip_x0": (False, SAMPLED | SWAPPED),
    "raw_weights": (False, {"distances", "arm_errors"}),
    "swap_images": (71, {"swap"}),
    "swap_steps": ((2, 4), SWAPPED),
    "swap_timesteps": ((400,), SWAPPED),
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
        return data.ImageSet(np.zeros((512, 3, 4, 4), np.uint8), "faces", fingerprint)

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


@pytest.mark.parametrize("name", ["OF_OPTIMUM", "OF_INPUT", "_RECOGNISED", "_TOO_MANY"])
def test_a_gate_by_other_limits_is_made_again(monkeypatch, name):
    before = keys(monkeypatch)
    monkeypatch.setattr(f"debiaslib.study.gate.{name}", 0.5)
    after = keys(monkeypatch)
    assert {table for table in before if after[table] != before[table]} == {"gate"}


def test_tables(monkeypatch):
    """What is changed makes those tables again that depend on it, and no others."""
    before = keys(monkeypatch)
    cases = [({"facts": Facts(**{name: "another"})}, name, wanted) for name, wanted in OF_FACTS.items()]
    cases += [({name: value}, name, wanted) for name, (value, wanted) in OF_EXPERIMENT.items()]
    cases += [({"sampler": "ddpm", "further_samplers": ()}, "sampler", SAMPLED | SWAPPED)]
    for changed, name, wanted in cases:
        after = keys(monkeypatch, **changed)
        made_again = {table for table in before if after[table] != before[table]}
        assert made_again == wanted, name
    assert keys(monkeypatch) == before
