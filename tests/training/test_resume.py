"""A resumed training equals one that was never stopped, to the bit; a signal saves; one process at a time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

from debiaslib.errors import InputError
from debiaslib.files import read_json
from debiaslib.training import loop
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.load import load_model
from debiaslib.training.run import find_run
from tests.training.tiny import STEPS, Interrupted, assert_same, die, facts, quietly, tree, until

pytestmark = pytest.mark.usefixtures("rows_of_four_steps")


def run_in(results):
    return find_run("test", "debiased", 0, results)


def stopped(settings, results, monkeypatch, step, **changes):
    """Train until that step, with a checkpoint at every step before it."""
    with monkeypatch.context() as patch:
        until(patch, step)
        torch.manual_seed(step)  # whatever else was drawn in the process
        with pytest.raises(Interrupted):
            quietly(settings, results, checkpoint_seconds=0, **changes)
    return run_in(results)


def test_what_a_run_leaves(uninterrupted):
    got = facts(uninterrupted)
    assert [row["step"] for row in got["log"]] == [4, 8, 12, 16, 20, 21]
    assert [row["images"] for row in got["log"]] == [16, 32, 48, 64, 80, 84]
    kept = [f"ema-{n:09d}.safetensors" for n in (20, 48, 84)]  # whole batches, rounded up
    assert sorted(got["weights"]) == [*kept, "raw-000000084.safetensors"]
    assert [entry["images"] for entry in got["snapshots"]] == [20, 48, 84] and got["step"] == STEPS
    assert uninterrupted.record["images"] == 84 and uninterrupted.record["seconds"] > 0
    raw, ema = load_file(uninterrupted.raw_weights()), load_file(uninterrupted.snapshot())
    assert uninterrupted.record["parameters"] == sum(tensor.numel() for tensor in raw.values())
    assert all(torch.equal(raw[name], value) for name, value in got["state"]["network"].items())
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)


@pytest.mark.parametrize(("stops", "every"), [([1, 13], 1), ([7], 5), ([3, 4, 19], 5), ([20, 21], 1)])
def test_resumed_equals_uninterrupted_to_the_bit(uninterrupted, settings, tmp_path, monkeypatch, stops, every):
    """With `every` = 5 it is stopped between checkpoints: steps, rows of the log and snapshots are made twice."""
    write = loop.Training._write

    def sometimes(self, is_snapshot, is_checkpoint):
        write(self, is_snapshot, is_checkpoint and self.step % every in (0, STEPS % every))

    monkeypatch.setattr(loop.Training, "_write", sometimes)
    for stop in stops:
        assert stopped(settings, tmp_path, monkeypatch, stop).record is None
    assert_same(quietly(settings, tmp_path, checkpoint_seconds=0), uninterrupted)


@pytest.mark.parametrize(
    "changes",
    [
        {"timestep_sampling": "stratified", "learned_variance": True, "microbatch": 3},
        {"timestep_sampling": "weight", "memory_format": "channels_last"},
    ],
)
def test_so_it_does_with_other_settings(settings, tmp_path, monkeypatch, changes):
    whole = quietly(settings, tmp_path / "whole", **changes)
    stopped(settings, tmp_path / "resumed", monkeypatch, 5, **changes)
    assert_same(quietly(settings, tmp_path / "resumed", **changes), whole)


def test_stopped_after_the_last_checkpoint_and_before_the_record(uninterrupted, settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_record", lambda *facts: die())
        with pytest.raises(Interrupted):
            quietly(settings, tmp_path)
    assert_same(quietly(settings, tmp_path), uninterrupted)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    uninterrupted, settings, tmp_path, monkeypatch, capsys
):
    run = stopped(settings, tmp_path, monkeypatch, 10)
    newest = sorted((run.folder / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with open(run.folder / "log.jsonl", "a") as log:
        log.write('{"step": 12, "ima')  # half a row, as a kill leaves it
    assert_same(quietly(settings, tmp_path), uninterrupted)
    assert f"{newest.name} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_of_an_earlier_version_is_kept_and_gone_on_with(uninterrupted, settings, tmp_path, monkeypatch, complete):
    """Its config.json lacks the settings that have come since."""
    run = quietly(settings, tmp_path) if complete else stopped(settings, tmp_path, monkeypatch, 9)
    made = {**read_json(run.folder / "config.json"), "scale_betas": False}  # a setting that has gone
    for name in ("zero_terminal_snr", "timestep_sampling", "microbatch"):
        del made[name]
    (run.folder / "config.json").write_text(json.dumps(made))
    before = tree(run.folder)
    for field, asked in (("timestep_sampling", "weight"), ("zero_terminal_snr", True), ("microbatch", 2)):
        with pytest.raises(InputError, match=f"was made with {field}="):
            quietly(settings, tmp_path, **{field: asked})
    assert tree(run.folder) == before
    quietly(settings, tmp_path)
    if complete:
        assert tree(run.folder) == before and load_model(run) is not None
    else:
        wanted = {**facts(uninterrupted), "config": None}
        assert {**facts(run), "config": None}["weights"] == wanted["weights"]


# Signals


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_at_the_next_step(uninterrupted, settings, tmp_path, monkeypatch, capsys, number, ends):
    with monkeypatch.context() as patch:
        until(patch, 11, lambda: os.kill(os.getpid(), number))
        with pytest.raises(ends) as caught:
            quietly(settings, tmp_path)
    assert ends is KeyboardInterrupt or caught.value.code == 143
    assert capsys.readouterr().err == "saved debiased-s0 at step 11 of 21; the same call goes on from there\n"
    run = run_in(tmp_path)
    assert load_checkpoint(run.folder / "checkpoints")[0] == 11 and run.record is None
    assert_same(quietly(settings, tmp_path), uninterrupted)


def test_a_signal_after_the_last_step_finds_the_run_complete(settings, tmp_path, monkeypatch):
    record = loop.write_record
    monkeypatch.setattr(loop, "write_record", lambda *facts: os.kill(os.getpid(), signal.SIGTERM) or record(*facts))
    with pytest.raises(SystemExit):
        quietly(settings, tmp_path)
    assert run_in(tmp_path).record is not None


# A process imports once and forks a child for each word: "SIGTERM 5" trains until it gets SIGTERM after step 5.
CHILDREN = """
import json, os, signal, sys
from debiaslib.cli import run_command
from debiaslib.training import log, loop
from debiaslib.training.config import TrainConfig

config, results, orders = TrainConfig(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3:]
log.ROWS = 5
one_step = loop.Training.one_step
codes = []
for name, stop in zip(orders[::2], orders[1::2]):
    def step(self):
        one_step(self)
        if self.step == int(stop):
            os.kill(os.getpid(), getattr(signal, name))
    loop.Training.one_step = step
    child = os.fork()
    if child == 0:
        run_command(lambda: loop.train(config, results, "test", progress=False, checkpoint_seconds=0) and None)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


def children(settings, results, orders):
    command = [sys.executable, "-W", "ignore", "-c", CHILDREN, json.dumps(settings), str(results), *orders.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return json.loads(done.stdout), done.stderr


def killed(uninterrupted, settings, results, orders, wanted):
    codes, said = children(settings, results, orders)
    assert codes == wanted and "Traceback" not in said, said
    assert_same(run_in(results), uninterrupted)
    assert not [path for path in run_in(results).folder.rglob(".*") if ".lock" not in path.name]


@pytest.mark.slow
def test_signals_and_kills_in_processes_of_their_own(uninterrupted, settings, tmp_path):
    killed(uninterrupted, settings, tmp_path, "SIGTERM 5 SIGINT 11 SIGKILL 17 SIGTERM 0", [143, 130, -9, 0])


# Stands for a training in another process: it holds the run until it is killed or has put a complete run there.
HOLDER = """
import shutil, sys, time
from pathlib import Path
from debiaslib.files import exclusive

folder, complete = Path(sys.argv[1]), sys.argv[2]
with exclusive(folder / ".lock", "the run"):
    print("holds", flush=True)
    time.sleep(1 if complete else 60)
    if complete:
        shutil.copytree(complete, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock*"))
"""


@pytest.mark.parametrize("first_is_killed", [True, False])
def test_a_second_process_waits_for_the_first(uninterrupted, settings, tmp_path, monkeypatch, capsys, first_is_killed):
    """If the first completes, the second trains nothing; if it is killed, the second goes on from its checkpoint."""
    started, resume = [], loop.resume
    run = stopped(settings, tmp_path, monkeypatch, 9)
    monkeypatch.setattr(loop, "resume", lambda training: resume(training) or started.append(training.step))
    complete = "" if first_is_killed else str(uninterrupted.folder)
    command = [sys.executable, "-c", HOLDER, str(run.folder), complete]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holds\n"
        if first_is_killed:
            threading.Timer(0.7, holder.kill).start()
        quietly(settings, tmp_path)
    assert capsys.readouterr().err.startswith("waiting for another process, which has the run ")
    assert started == ([8] if first_is_killed else [])
    assert_same(run, uninterrupted)


# A complete run


def never(*arguments):
    raise AssertionError("it trains")


@pytest.fixture
def nothing_trains(uninterrupted, monkeypatch):
    """And nothing is written."""
    before, paths = tree(uninterrupted.folder), [p for p in uninterrupted.folder.rglob("*") if p.is_file()]
    times = {path: path.stat().st_mtime_ns for path in paths}
    monkeypatch.setattr(loop.Training, "__init__", never)
    yield
    assert tree(uninterrupted.folder) == before
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.folder.rglob("*") if path.is_file()} == times


def test_a_second_call_returns_at_once(uninterrupted, settings, results, nothing_trains):
    assert quietly(settings, results).folder == uninterrupted.folder


def test_a_complete_run_may_differ_in_what_decides_bits_only(settings, results, tmp_path, nothing_trains, monkeypatch):
    copied = shutil.copytree(settings["dataset"], tmp_path / "the same images elsewhere")
    quietly(settings, results, dataset=str(copied))
    quietly(settings, results, threads=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    quietly(settings, results, device="cuda")


def test_a_changed_image_is_refused_by_the_fingerprint(settings, tmp_path, monkeypatch):
    folder = shutil.copytree(settings["dataset"], tmp_path / "mine")
    few = {"dataset": str(folder), "images": 4, "snapshots": []}
    quietly(settings, tmp_path / "results", **few)
    shutil.copy(folder / "01.png", folder / "00.png")
    monkeypatch.setattr(loop.Training, "__init__", never)
    with pytest.raises(InputError, match="made with data_fingerprint="):
        quietly(settings, tmp_path / "results", **few)
