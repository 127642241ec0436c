"""The benchmarks' arithmetic, the loops that are timed, and a rehearsal of the GPU's on tiny networks."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_rows, loops, side_by_side, timing
from benchmarks.gpu_table import tables
from benchmarks.setups import Setup, setups

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments, timeout=300):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def setup():
    with setups({"minifaces16": 4}, images=6, tiny=True) as (made,):
        yield made


# Timing


def test_loops_take_turns_and_the_seconds_are_those_of_a_step(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setitem(timing.CLOCKS, "wall", lambda: now[0])

    def loop(name, cost):
        def run(steps):
            order.append((name, steps))
            now[0] += cost * steps

        return run

    seconds = timing.take_turns({"a": loop("a", 1.0), "b": loop("b", 0.25)}, rounds=20, steps=4)
    rounds = [order[i : i + 2] for i in range(2, len(order), 2)]
    assert order[:2] == [("a", 1), ("b", 1)] and len(rounds) == 20
    assert {tuple(turns) for turns in rounds} == {(("a", 4), ("b", 4)), (("b", 4), ("a", 4))}  # in both orders
    assert seconds == {"a": [1.0] * 20, "b": [0.25] * 20}
    assert timing.ratios(seconds["a"], seconds["b"]) == (4, 4, 4)


# Loops


def test_our_loop_is_the_training_itself(setup):
    loop = loops.OurLoop(setup)
    before = [p.detach().clone() for p in loop.training.network.parameters()]
    loop(3)
    assert loop.training.step == 3 and loop.training.log.total[0] > 0
    moved = [not torch.equal(a, b) for a, b in zip(before, loop.training.network.parameters(), strict=True)]
    assert all(moved)
    loops.BareLoop(loop)(2)
    assert loop.training.step == 3 and all(p.grad is None for p in loop.training.network.parameters())


# The GPU's


def test_operations_of_a_convolution_by_hand(monkeypatch):
    """Two for a multiply-add; the gradient of the weight and of the input cost as much as the output."""
    monkeypatch.setattr(gpu_rows, "_without_memory", lambda setup: One().to("meta"))
    one = Setup("one", {}, 8, 1, Path("."), Path("."))
    assert gpu_rows.flops_per_image(one) == 2 * (8 * 8 * 5 * 3 * 9) * 2  # the image itself needs no gradient


class One(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x, t=None):
        return self.convolution(x)


def test_the_tables_numbers():
    row = {"what": "training", "network": "n", "batch": 2, "flops_per_image": 1e12, "dtype": "bfloat16"}
    slow = {"variant": "diffusers' parts, as shipped", "dtype": "float32", "step": 0.02, "images_per_second": 100.0}
    fast = {"variant": "ours", "step": 0.005, "bare_step": 0.004, "images_per_second": 400.0, "peak_bytes": 2e9}
    sampled = {"dtype": "float32", "calls": 20, "bare": 0.9, "seconds": 1.0, "images_per_second": 2.0}
    rows = {
        "m": {"what": "matrix rate", "tflops": 800.0, "machine": "One machine."},
        "a": {**row, **slow},
        "b": {**row, **fast},
        "c": {"what": "training", "failed": "OutOfMemoryError: too much"},
        "s": {"what": "sampling", "network": "n", "batch": 2, **sampled},
        "p": {"what": "profile", "network": "n", "batch": 2, "variant": "ours", "step": 0.005, "idle": 0.25,
              "shares": {"elementwise": 0.75}, "largest": [["kernel", 0.5]]},
    }  # fmt: skip
    text = tables(rows)
    assert "Measured bf16 matrix rate: 800 TFLOP/s" in text
    assert "| n | 2 | ours | bfloat16 | 5.00 | 400.0 | 4.00 |  | 400 | 0.500 | 0.800 | 2.0 |" in text
    assert "| ddim | float32 | 20 | 2.0 | 0.900 |" in text
    assert "| elementwise | 0.750 |" in text and "| idle | 0.250 |" in text
    assert "- not measured: c: OutOfMemoryError: too much" in text


def test_a_row_that_ended_its_process_twice_is_left(tmp_path):
    row = {"key": "k", "failed": gpu.INTERRUPTED, "attempts": 1}
    gpu.append(tmp_path, row)
    assert not gpu.is_done(gpu.read_rows(tmp_path)["k"])
    gpu.append(tmp_path, {**row, "attempts": 2})
    assert gpu.is_done(gpu.read_rows(tmp_path)["k"]) and gpu.is_done({"key": "k", "attempts": 1})
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"key": "k", "half')
    assert gpu.read_rows(tmp_path)["k"]["attempts"] == 2


@pytest.mark.slow
def test_a_rehearsal_goes_on_where_it_stopped(tmp_path):
    wanted = [row[0] for row in gpu.plan("cpu", True)]
    python("benchmarks.gpu", "--out", tmp_path, "--device", "cpu", "--tiny", "--minutes", "0.001")
    for key in wanted[2:]:  # as if all but two had been measured
        gpu.append(tmp_path, {"key": key, "what": "training", "failed": "left out of this test", "attempts": 1})
    (tmp_path / "before").write_bytes((tmp_path / "rows.jsonl").read_bytes())
    done = python("benchmarks.gpu", "--out", tmp_path, "--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stderr
    rows = gpu.read_rows(tmp_path)
    assert set(rows) == set(wanted) and rows["matrix rate"]["tflops"] > 0 and "still missing" not in done.stdout
    added = (tmp_path / "rows.jsonl").read_bytes().removeprefix((tmp_path / "before").read_bytes()).splitlines()
    assert {json.loads(line)["key"] for line in added} == set(wanted[:2])
    row = rows[wanted[1]]
    assert row["images_per_second"] == pytest.approx(row["batch"] / row["step"]) and row["flops_per_image"] > 0
    assert (tmp_path / "gpu.md").read_text() == tables(rows)


@pytest.mark.slow
def test_two_trainings_run_side_by_side_with_and_without_the_allocators_settings():
    done = python("benchmarks.side_by_side", "--tiny", "--rounds", "1", "--steps", "5")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| as ")]
    assert [row[0].strip() for row in rows] == list(side_by_side.KINDS)
    assert all(float(row[1]) > 0 and float(row[3]) > 100 for row in rows)


def test_the_allocators_settings_reach_one_kind_of_pair_alone(monkeypatch):
    """Also where the settings stand in the environment of the benchmark itself."""
    found = []

    class Child:
        stdin, stdout = io.StringIO(), io.StringIO("ready\n")
        communicate = staticmethod(lambda: ("28.5 0 866\n", None))

        def __init__(self, command, env, **pipes):
            found.append({name: env[name] for name in side_by_side.ALLOCATOR if name in env})

    monkeypatch.setattr(side_by_side.subprocess, "Popen", Child)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    for settings in side_by_side.KINDS.values():
        assert side_by_side.pair(5, True, settings) == [(28.5, 0.0, 866.0)] * 2
    assert found == [{}, {}, side_by_side.ALLOCATOR, side_by_side.ALLOCATOR]
