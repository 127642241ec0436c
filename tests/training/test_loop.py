"""Training: what is resumed equals what was never stopped, to the bit; loss, gradients and averages as written out."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from debiaslib.data.images import load_images
from debiaslib.diffusion.randomness import stream
from debiaslib.errors import InputError, shown
from debiaslib.files import read_json
from debiaslib.training import loop as training
from debiaslib.training import objective
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train
from debiaslib.training.network import build_network, load_model
from debiaslib.training.run import find_run

NETWORK = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
    "dropout": 0.1,
}
STEPS, BATCH = 21, 4
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def faces(folder, seed=0, count=12):
    """A folder of 8x8 images."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(faces(tmp_path_factory.mktemp("data") / "faces"))


@pytest.fixture
def settings(dataset):
    """The settings of a training of 21 steps; snapshots after 5, 12 and 21."""
    return {"dataset": dataset, "resolution": 8, "network": NETWORK, "images": STEPS * BATCH, "batch_size": BATCH,
            "lr": 2e-3, "lr_decay": "cosine", "ema_decay": 0.8, "weight_decay": 0.01, "horizontal_flip": True,
            "snapshots": [18, 48]}  # fmt: skip


@pytest.fixture(autouse=True)
def rows_of_four_steps(monkeypatch):
    """The log's rows cover four steps, so that their sums have to survive a stop; the last covers one."""
    monkeypatch.setattr(training, "_LOG_ROWS", 5)


def quietly(settings, results, checkpoint_seconds=1e9, **more):
    config = TrainConfig(**{**settings, **more})
    return train(config, results, "test", progress=False, checkpoint_seconds=checkpoint_seconds)


def tree(folder):
    """{path: sha256} of every file, without locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def equal(one, other):
    """Whether two nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def facts(run):
    """All that a run leaves, without times."""
    step, state = load_checkpoint(run.folder / "checkpoints")
    state.pop("seconds")
    assert state.pop("log") == run.log()
    timed = ("seconds", "images_per_second")
    log = [{key: value for key, value in row.items() if key not in timed} for row in run.log()]
    snapshots = {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    return {"step": step, "state": state, "log": log, "snapshots": snapshots, "recorded": run.record["snapshots"],
            "config": run.config}  # fmt: skip


def assert_same(run, uninterrupted):
    got, wanted = facts(run), facts(uninterrupted)
    for key in wanted:
        assert equal(got[key], wanted[key]), key


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def uninterrupted(settings, results):
    return quietly(settings, results)


class Interrupted(Exception):
    pass


def until(monkeypatch, stop, act):
    """Let `act` happen after step `stop` was taken and before anything of it is written."""
    one_step = training._Training._one_step

    def step_then_stop(self):
        one_step(self)
        if self.step == stop:
            act()

    monkeypatch.setattr(training._Training, "_one_step", step_then_stop)


def die():
    raise Interrupted


# Resuming


def test_what_a_run_leaves(uninterrupted):
    got = facts(uninterrupted)
    assert [row["step"] for row in got["log"]] == [4, 8, 12, 16, 20, 21]
    assert [row["images"] for row in got["log"]] == [16, 32, 48, 64, 80, 84]
    kept = [f"ema-{n:09d}.safetensors" for n in (20, 48, 84)]  # whole batches, rounded up
    assert sorted(got["snapshots"]) == [*kept, "raw-000000084.safetensors"]
    assert [entry["images"] for entry in got["recorded"]] == [20, 48, 84] and got["step"] == STEPS
    assert uninterrupted.record["parameters"] == sum(
        p.numel() for p in build_network(config_of(uninterrupted)).parameters()
    )
    assert uninterrupted.record["images"] == 84 and uninterrupted.record["seconds"] > 0


def test_the_raw_weights_are_those_of_the_last_step(uninterrupted):
    _, state = load_checkpoint(uninterrupted.folder / "checkpoints")
    raw, ema = (load_model(uninterrupted, raw=raw).state_dict() for raw in (True, False))
    assert all(torch.equal(raw[name], value) for name, value in state["network"].items())
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)


def config_of(run):
    made = dict(run.config)
    made.pop("data_fingerprint")
    return TrainConfig(**made)


@pytest.mark.parametrize("stops", [[7], [1, 13], [3, 4, 19], [20, 21]])
@pytest.mark.parametrize("every", [1, 5])
def test_resumed_equals_uninterrupted_to_the_bit(uninterrupted, settings, tmp_path, monkeypatch, stops, every):
    """Stopped between checkpoints, so that steps, rows of the log and snapshots are made twice."""
    save = training._Training._save
    monkeypatch.setattr(
        training._Training, "_save", lambda self: self.step % every in (0, STEPS % every) and save(self)
    )
    for stop in stops:
        with monkeypatch.context() as patch:
            until(patch, stop, die)
            torch.manual_seed(stop)  # whatever else was drawn in the process
            with pytest.raises(Interrupted):
                quietly(settings, tmp_path, checkpoint_seconds=0)
        assert find_run("test", "debiased", 0, tmp_path).record is None
    run = quietly(settings, tmp_path, checkpoint_seconds=0)
    assert_same(run, uninterrupted)


@pytest.mark.parametrize("sampling", ["stratified", "weight"])
def test_resumed_equals_uninterrupted_however_the_timesteps_are_drawn(settings, tmp_path, monkeypatch, sampling):
    whole = quietly(settings, tmp_path / "whole", timestep_sampling=sampling)
    for stop in (5, 13):
        with monkeypatch.context() as patch:
            until(patch, stop, die)
            torch.manual_seed(stop)
            with pytest.raises(Interrupted):
                quietly(settings, tmp_path / "resumed", timestep_sampling=sampling, checkpoint_seconds=0)
    assert_same(quietly(settings, tmp_path / "resumed", timestep_sampling=sampling), whole)


def test_stopped_after_the_last_checkpoint_and_before_the_record(uninterrupted, settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_record", lambda *arguments: die())
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path)
    assert_same(quietly(settings, tmp_path), uninterrupted)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    uninterrupted, settings, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        until(patch, 10, die)
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path, checkpoint_seconds=0)
    newest = sorted((find_run("test", "debiased", 0, tmp_path).folder / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same(quietly(settings, tmp_path), uninterrupted)
    assert f"{newest.name} is missing or damaged" in capsys.readouterr().err


def test_half_a_row_of_the_log_is_dropped(uninterrupted, settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        until(patch, 10, die)
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path, checkpoint_seconds=0)
    with open(find_run("test", "debiased", 0, tmp_path).folder / "log.jsonl", "a") as log:
        log.write('{"step": 12, "ima')
    assert_same(quietly(settings, tmp_path), uninterrupted)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_at_the_next_step(uninterrupted, settings, tmp_path, monkeypatch, capsys, number, ends):
    with monkeypatch.context() as patch:
        until(patch, 11, lambda: os.kill(os.getpid(), number))
        with pytest.raises(ends) as caught:
            quietly(settings, tmp_path)
    assert ends is KeyboardInterrupt or caught.value.code == 143
    assert capsys.readouterr().err == "saved debiased-s0 at step 11 of 21; the same call goes on from there\n"
    run = find_run("test", "debiased", 0, tmp_path)
    assert load_checkpoint(run.folder / "checkpoints")[0] == 11 and run.record is None
    assert_same(quietly(settings, tmp_path), uninterrupted)


# A process imports once and forks a child for each word: "TERM 5" trains until it gets SIGTERM after step 5.
CHILDREN = """
import json, os, signal, sys, time
from debiaslib import objective, training
from debiaslib.cli import run_command
from debiaslib.training.config import TrainConfig

config, results, orders = TrainConfig(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3:]
training._LOG_ROWS = 5
one_step = training._Training._one_step
codes = []
for name, stop, pause in zip(orders[::3], orders[1::3], orders[2::3]):
    def step(self):
        one_step(self)
        time.sleep(float(pause))
        if self.step == int(stop):
            os.kill(os.getpid(), getattr(signal, name))
    training._Training._one_step = step
    child = os.fork()
    if child == 0:
        run_command(lambda: training.train(config, results, "test", progress=False, checkpoint_seconds=0) and None)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


def children(settings, results, orders):
    command = [sys.executable, "-W", "ignore", "-c", CHILDREN, json.dumps(settings), str(results), *orders.split()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_three_signals_in_processes_of_their_own(uninterrupted, settings, tmp_path):
    with children(settings, tmp_path, "SIGTERM 5 0 SIGINT 11 0 SIGKILL 17 0 SIGTERM 0 0") as process:
        out, err = process.communicate(timeout=120)
    assert json.loads(out) == [143, 130, -9, 0], err
    assert "at step 5 of 21" in err and "at step 11 of 21" in err and "Traceback" not in err
    run = find_run("test", "debiased", 0, tmp_path)
    assert_same(run, uninterrupted)
    assert not [path for path in run.folder.rglob(".*") if ".lock" not in path.name]


@pytest.mark.slow
def test_killed_at_every_third_step(uninterrupted, settings, tmp_path):
    orders = " ".join(f"SIGKILL {step} 0" for step in range(1, STEPS, 3))
    with children(settings, tmp_path, f"{orders} SIGKILL 0 0") as process:
        out, err = process.communicate(timeout=300)
    assert json.loads(out) == [-9] * 7 + [0], err
    assert_same(find_run("test", "debiased", 0, tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("first_is_killed", [True, False])
def test_two_trainings_of_one_run(uninterrupted, settings, tmp_path, capsys, first_is_killed):
    run = find_run("test", "debiased", 0, tmp_path)
    with children(settings, tmp_path, f"SIGKILL {9 if first_is_killed else 0} 0.15") as process:
        deadline = time.monotonic() + 60
        while not list((run.folder / "checkpoints").glob("*.json")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        quietly(settings, tmp_path)
        process.communicate(timeout=60)
    assert capsys.readouterr().err.startswith("waiting for another process, which has the run ")
    assert_same(run, uninterrupted)


# Stands for a training in another process: it holds the run until it is killed or has put a complete run there.
HOLDER = """
import shutil, sys, time
from pathlib import Path
from debiaslib.files import exclusive

folder, complete = Path(sys.argv[1]), sys.argv[2]
with exclusive(folder / ".lock", "the run"):
    print("holds", flush=True)
    time.sleep(2 if complete else 60)
    if complete:
        shutil.copytree(complete, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock*"))
"""


@pytest.mark.parametrize("first_is_killed", [True, False])
def test_a_second_process_waits_for_the_first(uninterrupted, settings, tmp_path, monkeypatch, capsys, first_is_killed):
    """If the first completes, the second trains nothing; if it is killed, the second goes on from its checkpoint."""
    started, resume = [], training._Training._resume
    run = find_run("test", "debiased", 0, tmp_path)
    with monkeypatch.context() as patch:
        until(patch, 9, die)
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path, checkpoint_seconds=0)
    monkeypatch.setattr(training._Training, "_resume", lambda self: started.append(resume(self)) or started[-1])
    complete = "" if first_is_killed else str(uninterrupted.folder)
    command = [sys.executable, "-c", HOLDER, str(run.folder), complete]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holds\n"
        if first_is_killed:
            threading.Timer(1.5, holder.kill).start()
        quietly(settings, tmp_path)
    assert capsys.readouterr().err.startswith("waiting for another process, which has the run ")
    assert started == ([8] if first_is_killed else [])
    assert_same(run, uninterrupted)


# A complete run, and one made with other settings


def never(*arguments):
    raise AssertionError("it trains")


@pytest.fixture
def nothing_trains(uninterrupted, monkeypatch):
    """And nothing is written."""
    before = tree(uninterrupted.folder)
    times = {path: path.stat().st_mtime_ns for path in uninterrupted.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(training._Training, "__init__", never)
    yield
    assert tree(uninterrupted.folder) == before
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.folder.rglob("*") if path.is_file()} == times


def test_a_second_call_returns_at_once(uninterrupted, settings, results, nothing_trains):
    started = time.monotonic()
    run = quietly(settings, results)
    assert run.folder == uninterrupted.folder and time.monotonic() - started < 2


def test_a_complete_run_may_differ_in_what_decides_bits_only(settings, results, tmp_path, nothing_trains, monkeypatch):
    copied = faces(tmp_path / "the same faces elsewhere")
    quietly(settings, results, dataset=str(copied))
    quietly(settings, results, threads=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    quietly(settings, results, device="cuda")


OTHER = {"lr": 1e-3, "images": 88, "batch_size": 7, "prediction_type": "sample", "schedule": "cosine", "timesteps": 999,
         "ema_decay": 0.9, "precision": "bfloat16", "horizontal_flip": False, "max_grad_norm": 1.0, "max_weight": 5.0,
         "zero_terminal_snr": True, "timestep_sampling": "weight", "normalize_weight": True,
         "lr_decay": "none", "weight_decay": 0.0, "snapshots": [18],
         "network": {**NETWORK, "dropout": 0.0}}  # fmt: skip


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_of_an_earlier_version_is_kept_and_gone_on_with(uninterrupted, settings, tmp_path, monkeypatch, complete):
    """Its config.json lacks the settings that have come since."""
    run = find_run("test", "debiased", 0, tmp_path)
    with monkeypatch.context() as patch:
        if not complete:
            until(patch, 9, die)
        with contextlib.nullcontext() if complete else pytest.raises(Interrupted):
            quietly(settings, tmp_path, checkpoint_seconds=0)
    made = read_json(run.folder / "config.json")  # without the seal, which has come since too
    del made["zero_terminal_snr"], made["timestep_sampling"]
    (run.folder / "config.json").write_text(json.dumps(made))
    before = tree(run.folder)
    for field, asked in (("timestep_sampling", "weight"), ("zero_terminal_snr", True)):
        with pytest.raises(InputError, match=f"was made with {field}="):
            quietly(settings, tmp_path, **{field: asked})
    assert tree(run.folder) == before
    quietly(settings, tmp_path)
    if complete:
        assert tree(run.folder) == before
        assert load_model(run)(torch.zeros(1, 3, 8, 8), 5).sample.isfinite().all()
    else:
        assert_same(run, uninterrupted)


@pytest.mark.parametrize("field", OTHER)
def test_other_settings_are_refused_naming_the_field(settings, results, nothing_trains, field):
    with pytest.raises(InputError) as caught:
        quietly(settings, results, **{field: OTHER[field]})
    made, asked, named = TrainConfig(**settings).to_dict()[field], OTHER[field], field
    if field == "network":
        made, asked, named = made["dropout"], asked["dropout"], "network.dropout"
    assert f"was made with {named}={shown(made, 24)}, not {shown(asked, 24)};" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_images_are_refused(settings, results, tmp_path, nothing_trains):
    other = faces(tmp_path / "others", seed=1)
    with pytest.raises(InputError, match="was made with (dataset|data_fingerprint)="):
        quietly(settings, results, dataset=str(other))


def test_other_images_in_the_same_folder_are_refused_by_their_fingerprint(settings, tmp_path, monkeypatch):
    settings["dataset"] = str(faces(tmp_path / "mine"))
    quietly(settings, tmp_path / "results", images=BATCH, snapshots=[])
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "mine" / "00.png")
    monkeypatch.setattr(training._Training, "__init__", never)
    with pytest.raises(InputError, match="was made with data_fingerprint="):
        quietly(settings, tmp_path / "results", images=BATCH, snapshots=[])


@pytest.mark.parametrize("change", [{"threads": 2}, {"lr": 1e-3}])
def test_an_unfinished_run_is_bound_to_its_threads_too(settings, tmp_path, monkeypatch, change):
    with monkeypatch.context() as patch:
        until(patch, 3, die)
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path, checkpoint_seconds=0)
    before = tree(tmp_path)
    field = next(iter(change))
    with pytest.raises(InputError, match=f"was made with {field}="):
        quietly(settings, tmp_path, **change)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there(settings, tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"device is '{device}', which PyTorch does not find on this machine"):
        quietly(settings, tmp_path, device=device)
    assert list(tmp_path.iterdir()) == []


# The loss


def first_batch(config, images):
    """The images, timesteps and noise of the first step, drawn as the contract says: from (seed, purpose, step)."""
    index = torch.randint(len(images), (config.batch_size,), generator=stream(config.seed, "images", 0))
    t = torch.randint(1000, (config.batch_size,), generator=stream(config.seed, "timesteps", 0))
    x0 = torch.from_numpy(np.array(images)[index.numpy()]).double() / 127.5 - 1
    noise = torch.randn(x0.shape, generator=stream(config.seed, "noise", 0)).double()
    return x0, t, noise


def network64(config):
    network = build_network(config).double()
    del network.conv_out.forward  # the one that insists on float32
    return network


WEIGHTS = {  # of the epsilon error
    "constant": lambda S: np.ones_like(S),
    "debiased": lambda S: 1 / np.sqrt(S),
    "p2(k=1,gamma=1)": lambda S: 1 / (1 + S),
    "min_snr(gamma=5)": lambda S: np.minimum(S, 5) / S,
    "edm(sigma_data=0.5)": lambda S: 1 + 4 / S,
}


def by_hand(config, x0, t, noise):
    """(loss, mse, network) in float64, the loss with its graph."""
    network = network64(config)
    ab = torch.from_numpy(ALPHA_BAR[t.numpy()]).view(-1, 1, 1, 1)
    S = ALPHA_BAR[t.numpy()] / (1 - ALPHA_BAR[t.numpy()])
    target = {
        "epsilon": noise,
        "sample": x0,
        "v_prediction": ab.sqrt() * noise - (1 - ab).sqrt() * x0,
    }[config.prediction_type]
    unit = {"epsilon": 1, "sample": S, "v_prediction": S / (1 + S)}[config.prediction_type]
    output = network(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t).sample
    loss = 0
    for i, weight in enumerate(WEIGHTS[config.weighting](S) * unit):
        loss = loss + weight * ((output[i] - target[i]) ** 2).mean() / len(t)
    return loss, ((output - target) ** 2).mean().item(), network


@pytest.fixture
def one_step(settings):
    """Settings of a training of one step, without what is random besides the batch."""
    network = {**NETWORK, "dropout": 0.0}
    return {
        **settings,
        "network": network,
        "images": BATCH,
        "snapshots": [],
        "horizontal_flip": False,
        "weight_decay": 0.0,
    }


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_the_first_step_by_hand(one_step, tmp_path, weighting, kind):
    """The loss, its unweighted error, all gradients (read from AdamW's first moment) and the step that AdamW takes."""
    run = quietly(one_step, tmp_path, weighting=weighting, prediction_type=kind, lr_decay="none")
    config = TrainConfig(**{**one_step, "weighting": weighting, "prediction_type": kind})
    images = load_images(config.dataset, 8).images
    loss, mse, network = by_hand(config, *first_batch(config, images))
    loss.backward()
    (row,) = run.log()
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5) and row["mse"] == pytest.approx(mse, rel=1e-5)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    state = load_checkpoint(run.folder / "checkpoints")[1]
    for i, (name, parameter) in enumerate(network.named_parameters()):
        moment = state["optimizer"]["state"][i]["exp_avg"].double()
        assert (moment / 0.1 - parameter.grad).abs().max() < 1e-4 * norm, name
        large = parameter.grad.abs() > 1e-3 * norm  # Adam's first step is lr in the direction of the sign
        moved = parameter.detach() - config.lr * parameter.grad.sign()
        assert torch.allclose(state["network"][name].double()[large], moved[large], rtol=0, atol=1e-5), name


def test_the_gradient_by_its_formula(one_step, tmp_path):
    """d loss / d output = 2 w(t) (output - target) / (batch pixels), carried back by the network."""
    config = TrainConfig(**{**one_step, "weighting": "debiased"})
    images = load_images(config.dataset, 8)
    made = training._Training(find_run("test", "debiased", 0, tmp_path), config, images)
    made.objective.loss(made.network, *made._batch())[0].backward()
    x0, t, noise = first_batch(config, images.images)
    network = network64(config)
    ab = torch.from_numpy(ALPHA_BAR[t.numpy()]).view(-1, 1, 1, 1)
    output = network(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t).sample
    output.backward(2 * ((1 - ab) / ab).sqrt() * (output.detach() - noise) / output.numel())
    largest = max(p.grad.abs().max().item() for p in network.parameters())
    for ours, theirs in zip(made.network.parameters(), network.parameters(), strict=True):
        assert (ours.grad.double() - theirs.grad).abs().max() < 1e-4 * largest


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_each_parametrisation_learns(settings, tmp_path, kind):
    (tmp_path / "red").mkdir()
    for i in range(8):  # something that can be learned in a few steps
        Image.new("RGB", (8, 8), (220 + i, 30, 30)).save(tmp_path / "red" / f"{i}.png")
    red = {"dataset": str(tmp_path / "red"), "prediction_type": kind, "lr": 5e-3, "lr_decay": "none", "snapshots": []}
    run = quietly(settings, tmp_path, images=60 * BATCH, **red)
    rows = run.log()
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["mse"] < 0.8 * rows[0]["mse"]
    assert load_model(run)(torch.zeros(1, 3, 8, 8), 5).sample.isfinite().all()


def test_the_weight_is_normalised_and_bounded_as_asked(one_step, tmp_path):
    """The debiased weight of epsilon: its mean over the 1000 steps is 17.82; bounded at 2 before that."""
    config = TrainConfig(**one_step)
    x0, t, noise = first_batch(config, load_images(config.dataset, 8).images)
    table = ((1 - ALPHA_BAR) / ALPHA_BAR) ** 0.5
    plain = quietly(one_step, tmp_path / "plain").log()[0]
    normalised = quietly(one_step, tmp_path / "normalised", normalize_weight=True).log()[0]
    assert plain["loss"] / normalised["loss"] == pytest.approx(table.mean(), rel=1e-5)
    bounded = quietly(one_step, tmp_path / "bounded", max_weight=2.0).log()[0]
    made = training._Training(
        find_run("test", "debiased", 0, tmp_path / "none"), config, load_images(config.dataset, 8)
    )
    with torch.no_grad():
        ab = torch.from_numpy(ALPHA_BAR[t.numpy()]).view(-1, 1, 1, 1)
        output = made.network((ab.sqrt() * x0 + (1 - ab).sqrt() * noise).float(), t).sample.double()
    error = (output - noise).square().flatten(1).mean(dim=1).numpy()
    assert table[t.numpy()].max() > 2
    assert bounded["loss"] == pytest.approx((np.minimum(table[t.numpy()], 2) * error).mean(), rel=1e-4)


# All weightings of a seed see the same


def seen(settings, results, monkeypatch, **more):
    """What the network is shown in each step; a look at the coming one, before a checkpoint, has no gradients."""
    calls = []

    def spy(network, x_t, t, labels=None):
        if torch.is_grad_enabled():
            calls.append((x_t.clone(), t.clone()))
        return call(network, x_t, t, labels)

    call = objective.network_output
    with monkeypatch.context() as patch:
        patch.setattr(objective, "network_output", spy)
        run = quietly(settings, results, images=5 * BATCH, snapshots=[], **more)
    return calls, run


def test_weightings_of_one_seed_see_the_same_and_other_seeds_see_other(settings, tmp_path, monkeypatch):
    shown = {w: seen(settings, tmp_path, monkeypatch, weighting=w) for w in WEIGHTS}
    reference = shown["constant"][0]
    assert len(reference) == 5
    for calls, _ in shown.values():
        assert equal(calls, reference)
    firsts = {w: run.log()[0] for w, (_, run) in shown.items()}
    assert firsts["debiased"]["loss"] != firsts["constant"]["loss"] != firsts["p2(k=1,gamma=1)"]["loss"]
    other, _ = seen(settings, tmp_path, monkeypatch, weighting="constant", seed=1)
    for (x, t), (x_other, t_other) in zip(reference, other, strict=True):
        assert not torch.equal(t, t_other) and (x - x_other).abs().max() > 0.5
    for (x, _), (x_next, _) in zip(reference, reference[1:], strict=False):
        assert (x - x_next).abs().max() > 0.5


def test_weightings_of_one_seed_start_from_the_same_weights(settings):
    networks = [build_network(TrainConfig(**settings, weighting=w)).state_dict() for w in WEIGHTS]
    torch.manual_seed(5)
    assert all(equal(state, networks[0]) for state in networks[1:])
    other = build_network(TrainConfig(**settings, seed=1)).state_dict()
    assert not torch.equal(other["conv_in.weight"], networks[0]["conv_in.weight"])


def test_building_a_network_does_not_touch_the_global_generator(settings):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_network(TrainConfig(**settings))
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_flipped_half_of_the_time_if_asked(settings, tmp_path):
    images = load_images(settings["dataset"], 8)
    whole = torch.from_numpy(np.array(images.images)).float() / 127.5 - 1
    batches = {}
    for flip in (True, False):
        config = TrainConfig(**{**settings, "horizontal_flip": flip, "batch_size": 80, "images": 80, "snapshots": []})
        batches[flip] = training._Training(find_run("test", "debiased", 0, tmp_path), config, images)._batch()
    (flipped, t, noise, labels), (plain, t_plain, noise_plain, _) = batches[True], batches[False]
    assert labels is None and torch.equal(t, t_plain) and torch.equal(noise, noise_plain)
    assert all(any(torch.equal(one, image) for image in whole) for one in plain)
    turned = [torch.equal(one, other.flip(-1)) for one, other in zip(flipped, plain, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(flipped, plain, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True)) and 20 < sum(turned) < 60
    assert set(t.tolist()) != set(range(80)) and t.min() >= 0 and t.max() < 1000


# The optimiser


@pytest.mark.parametrize(("bound", "clipped"), [(None, False), (1.0, True), (1e6, False)])
def test_gradients_are_clipped_only_if_asked(one_step, tmp_path, bound, clipped):
    run = quietly(one_step, tmp_path, weighting="inverse_snr", max_grad_norm=bound)
    moments = load_checkpoint(run.folder / "checkpoints")[1]["optimizer"]["state"].values()
    used = math.sqrt(sum((moment["exp_avg"].double() / 0.1).square().sum().item() for moment in moments))
    (row,) = run.log()
    assert row["grad_norm"] > 2  # the norm before clipping is what is logged
    assert used == pytest.approx(1.0 if clipped else row["grad_norm"], rel=1e-4)


def taken(settings, results, monkeypatch, **more):
    """(learning rate, parameters after the step) of each step, and the run."""
    steps, one = [], training._Training._one_step

    def spy(self):
        one(self)
        rates = {group["lr"] for group in self.optimizer.param_groups}
        steps.append((rates, [p.detach().double().clone() for p in self.network.parameters()]))

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_one_step", spy)
        run = quietly(settings, results, **more)
    return steps, run


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_the_learning_rate(settings, tmp_path, monkeypatch, decay):
    steps, _ = taken(settings, tmp_path, monkeypatch, lr_decay=decay)
    for i, (rates, _) in enumerate(steps):
        factor = 1 if decay == "none" else (1 + math.cos(math.pi * i / STEPS)) / 2
        assert list(rates) == [pytest.approx(2e-3 * factor)]


def test_the_log_has_the_learning_rate_of_its_step(settings, tmp_path, monkeypatch):
    steps, run = taken(settings, tmp_path, monkeypatch)
    for row in run.log():
        assert {row["lr"]} == steps[row["step"] - 1][0]


@pytest.mark.parametrize("limit", [0.8, 0.3])
def test_the_average_of_the_weights_with_its_warm_up(settings, tmp_path, monkeypatch, limit):
    """The first update copies; the n-th keeps min(limit, n / (9 + n)): diffusers counts the updates before it."""
    steps, run = taken(settings, tmp_path, monkeypatch, ema_decay=limit, lr_decay="none")
    average, kept, decays = None, {}, []
    for n, (_, weights) in enumerate(steps, start=1):
        decays.append(0.0 if n == 1 else min(limit, n / (9 + n)))
        if average is None:
            average = copy.deepcopy(weights)
        else:
            average = [decays[-1] * a + (1 - decays[-1]) * w for a, w in zip(average, weights, strict=True)]
        kept[n * BATCH] = average
    assert max(decays) == (limit if limit == 0.3 else 21 / 30)
    names = [name for name, _ in build_network(TrainConfig(**settings)).named_parameters()]
    for images in (20, 48, 84):
        saved = load_file(run.snapshot(images))
        for name, expected in zip(names, kept[images], strict=True):
            assert (saved[name].double() - expected).abs().max() < 1e-6
    assert any((a - w).abs().max() > 1e-4 for a, w in zip(average, steps[-1][1], strict=True))
    for row in run.log():
        assert row["ema_decay"] == pytest.approx(decays[row["step"] - 1])


def test_a_loss_that_is_not_finite_stops_there(settings, tmp_path):
    with pytest.raises(InputError) as caught:
        quietly(settings, tmp_path, checkpoint_seconds=0, lr=1e30)
    said = str(caught.value)
    step = int(said.split("is not finite at step ")[1].split()[0])
    assert said.startswith("the loss of debiased-s0 is not finite at step ") and "lower lr=1e+30" in said
    assert "\n" not in said and 2 <= step <= 3
    run = find_run("test", "debiased", 0, tmp_path)
    last, state = load_checkpoint(run.folder / "checkpoints")  # none of the network whose loss that is
    assert last == step - 2 and said.endswith(f"step {last} is kept" if last else "no checkpoint was made")
    assert state is None or all(tensor.isfinite().all() for tensor in state["network"].values())
    assert run.record is None and json.loads((run.folder / "config.json").read_text())["lr"] == 1e30
    with pytest.raises(InputError, match=f"not finite at step {step} "):  # again, from the checkpoint
        quietly(settings, tmp_path, checkpoint_seconds=0, lr=1e30)


def test_bfloat16_leaves_the_weights_and_the_last_convolution_in_float32(settings, tmp_path, monkeypatch):
    dtypes = {}

    def watched(config):
        network = build_network(config)
        for name in ("conv_in", "conv_out"):
            getattr(network, name).register_forward_hook(functools.partial(note, name))
        return network

    def note(name, module, given, answer):
        dtypes[name] = answer.dtype

    results = {}
    for precision in ("float32", "bfloat16"):
        dtypes.clear()
        monkeypatch.setattr(training, "build_network", watched)
        results[precision] = quietly(settings, tmp_path / precision, precision=precision)
        lowered = torch.bfloat16 if precision == "bfloat16" else torch.float32
        assert dtypes == {"conv_in": lowered, "conv_out": torch.float32}
    state = load_checkpoint(results["bfloat16"].folder / "checkpoints")[1]
    assert {tensor.dtype for tensor in state["network"].values()} == {torch.float32}
    assert {moment["exp_avg"].dtype for moment in state["optimizer"]["state"].values()} == {torch.float32}
    low, full = (results[p].log()[0]["mse"] for p in ("bfloat16", "float32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


def test_the_output_convolution_answers_more_finely_than_bfloat16(settings):
    network = build_network(TrainConfig(**settings)).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 500).sample
    assert output.dtype == torch.float32 and not torch.equal(output, output.bfloat16().float())


def test_a_configuration_is_not_changed_by_training(settings, tmp_path):
    config = TrainConfig(**{**settings, "images": BATCH, "snapshots": []})
    before = copy.deepcopy(dataclasses.asdict(config))
    train(config, tmp_path, "test", progress=False)
    assert dataclasses.asdict(config) == before
