"""The same twice is the same to the bit: figures, trainings, samples, tables; and two threads change rounding alone."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import same_again
import torch
import yaml
from synthetic_results import write_swap, write_synthetic_results

from debiaslib.data.images import load_images
from debiaslib.diffusion.prediction import PREDICTION_TYPES
from debiaslib.diffusion.randomness import stream
from debiaslib.diffusion.sampling import to_float
from debiaslib.diffusion.solvers import SOLVERS
from debiaslib.figures.draw import FIGURES
from debiaslib.study.experiment import load_experiment
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective
from tests.training.tiny import equal

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
# Hashes of texts, the time zone, the language and the day of the second process are others.
SETTINGS = [
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
    {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
]
A_YEAR_LATER = "import time\nnow = time.time\ntime.time = lambda: now() + 4e7\n"
DRAW = "import sys\nfrom debiaslib.figures.draw import draw\nfor name in sys.argv[2:]:\n    draw(name, sys.argv[1])\n"


def python(settings, *arguments):
    """Run a process of its own, with these settings in its environment and one thread."""
    environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-W", "ignore", *map(str, arguments)], cwd=REPOSITORY, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder):
    """{path: bytes} of all files but locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


# Figures


def draw_twice(tmp_path, names):
    """Draw the figures in two processes from the same tables in two places, and compare the files."""
    drawn = []
    for number, settings in enumerate(SETTINGS):
        folder = write_swap(write_synthetic_results(tmp_path / f"place {number}" / "quick", seeds=(0, 1, 2)))
        python(settings, "-c", (A_YEAR_LATER if number else "") + DRAW, folder, *names)
        drawn.append(contents(folder / "figures"))
    assert drawn[0].keys() == drawn[1].keys() == {f"{name}.{kind}" for name in names for kind in ("png", "pdf", "json")}
    assert [file for file in drawn[0] if drawn[0][file] != drawn[1][file]] == []


@pytest.mark.slow
def test_every_figure_drawn_twice(tmp_path):
    draw_twice(tmp_path, list(FIGURES))


# Trainings, samples, tables


EXPERIMENT = {
    "preset": "minifaces16", "weightings": ["constant", "debiased"], "seeds": [0, 1],
    "variants": ["debiased; lr=1e-3", "constant; prediction_type=sample", "debiased; prediction_type=v_prediction"],
    "features": ["minifaces", "pooled"], "raw_weights": True,
    "further_samplers": sorted(set(SOLVERS) - {"ddim"}),
    "training": {
        "resolution": 8, "images": 160, "batch_size": 8, "snapshots": [80], "ema_decay": 0.8,
        "network": {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "add_attention": False,
                    "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
                    "dropout": 0.1},
    },
    "optimum_images": 128, "shown_timesteps": [50, 500], "shown_images": 2, "curve_timesteps": [0, 500, 999],
    "curve_images": 8, "grid_steps": [1, 3], "grid_images": 2, "sampling_batch_size": 30, "distance_steps": [2, 5],
    "distance_images": 80, "snapshot_steps": [2], "reference_images": 80,
}  # fmt: skip


def twice(tmp_path, experiment, *how):
    """Two folders of results of the same experiment, each made as `how` says: by a function of (file, folder)."""
    file, folders = tmp_path / "tiny.yaml", [tmp_path / f"results {number}" for number in range(2)]
    file.write_text(yaml.safe_dump(experiment))
    for make, folder in zip(how, folders, strict=True):
        make(file, folder)
    return [folder / "tiny" for folder in folders]


def in_this_process(seed):
    """With another global random state, which nothing may depend on."""

    def make(file, folder):
        torch.manual_seed(seed)
        np.random.seed(seed)
        same_again.main(file, folder, "few")

    return make


def by_a_process(settings):
    return lambda file, folder: python(settings, HERE / "same_again.py", file, folder, "all")


def without_times(path, data):
    """What is to be the same of a file: numbers, not the seconds that it took to make them."""
    if path.endswith(".pt") or "/step-" in path:
        return None  # its zip archive bears the random name of a temporary file; what it holds is compared below
    if path.endswith((".json", ".jsonl")):
        rows = [json.loads(line) for line in data.decode().splitlines()] if path.endswith("l") else [json.loads(data)]
        others = {"log"}  # sha256 of what has seconds in it
        return [{key: v for key, v in row.items() if "second" not in key and key not in others} for row in rows]
    return data


def assert_same(folders):
    """The kinds of files, with their numbers."""
    one, other = map(contents, folders)
    assert one.keys() == other.keys()
    differing = [path for path in one if without_times(path, one[path]) != without_times(path, other[path])]
    assert differing == []
    for path in sorted(folders[0].glob("runs/*")):
        states = [load_checkpoint(folder / "runs" / path.name / "checkpoints")[1] for folder in folders]
        assert states[0].keys() == states[1].keys()
        for part in ("network", "optimizer", "ema", "sums"):
            assert equal(states[0][part], states[1][part]), (path, part)
    ends = ("tables/*.csv", "tables/*.npz", "samples/*.npy", "runs/*/*.safetensors", "runs/*/log.jsonl")
    return {end.rpartition("/")[2]: len(list(folders[0].glob(end))) for end in ends}


def test_a_training_and_its_samples_twice(tmp_path):
    few = {"further_samplers": [], "features": ["pooled"], "raw_weights": False}
    counts = assert_same(twice(tmp_path, {**EXPERIMENT, **few}, in_this_process(1), in_this_process(2)))
    assert counts["*.csv"] == 1 and counts["*.npz"] == 1 and counts["*.npy"] >= 2 and counts["*.safetensors"] == 3


@pytest.mark.slow
def test_every_table_twice(tmp_path):
    caches = [{"DEBIASLIB_CACHE": str(tmp_path / f"cache {number}")} for number in range(2)]
    both = [by_a_process({**one, **cache}) for one, cache in zip(SETTINGS, caches, strict=True)]
    folders = twice(tmp_path, EXPERIMENT, *both)
    counts = assert_same(folders)
    names = {path.name.partition("-")[0].partition(".")[0] for path in folders[0].glob("tables/*.*")} - {""}
    assert names == {"weights", "one_step", "mse", "bias", "arm_errors", "distances", "samples",
                     "training", "controls", "learning_rates", "results", "gate", "oracle_swap",
                     "oracle_swap_samples"}  # fmt: skip
    assert counts["log.jsonl"] == 10


# Threads


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_one_thread_against_two(kind):
    """The network and weight of `quick` at equal weights, on a batch of 8."""
    config = load_experiment("quick").train_config("debiased", 0)
    config = dataclasses.replace(config, prediction_type=kind, precision="float32", variant="")
    network, objective = build_network(config).train(), Objective(config)
    images = load_images(config.dataset, config.resolution, progress=False).images[:8]
    x0, t = to_float(images), objective.timesteps(0)[:8]
    noise = torch.randn(x0.shape, generator=stream(0, "noise"))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            loss, mse = objective.loss(network, x0, t, noise)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
        finally:
            torch.set_num_threads(1)
        flat = torch.cat([gradient.double().flatten() for gradient in gradients])
        found.append([loss.detach().double(), mse.detach().double(), flat])
    gaps = [float((two - one).norm() / one.norm()) for one, two in zip(*found, strict=True)]
    assert found[0][2].norm() > 0 and max(gaps) <= 1e-5, gaps
