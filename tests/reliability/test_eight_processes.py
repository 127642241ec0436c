"""Eight processes on one folder of results: each piece of work is done once, the others wait or leave, saying for whom;
and the lock of one that was killed is free at once.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from outcomes import NETWORK, differences, faces, outcome

from debiaslib.files import exclusive
from debiaslib.training.run import find_run

EIGHT, IMAGES, STEPS, LONG = 8, 64, 60, 600
REPOSITORY = Path(__file__).parents[2]
WAITING = re.compile(r"waiting for process (\d+) on (\S+), which has (.+)")


@pytest.fixture(scope="module")
def crowd():
    """Give the process of crowd.py an order; its answer."""
    command = [sys.executable, "-W", "ignore", Path(__file__).parent / "crowd.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:

        def ask(folder, commands, **order):
            order |= {"folder": str(folder), "commands": [list(map(str, command)) for command in commands]}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The YAML file of an experiment of eight trainings on a folder of images."""
    folder = tmp_path_factory.mktemp("experiment")
    training = {"resolution": 8, "network": {key: value for key, value in NETWORK.items() if key != "sample_size"},
                "images": 4 * STEPS, "batch_size": 4, "lr": 2e-3, "snapshots": []}  # fmt: skip
    settings = {
        "preset": "minifaces16",
        "weightings": ["constant", "debiased", "min_snr(gamma=5)", "p2(k=1,gamma=1)"],
        "seeds": [0, 1],
        "dataset": faces(folder / "faces", IMAGES),
        "training": training,
        "features": ["pooled"],
        "sampling_batch_size": 25,
        "distance_steps": [2, 3],
        "distance_images": 60,
        "snapshot_steps": [2],
        "reference_images": 60,
    }
    path = folder / "eight.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def longer(experiment, folder):
    """The YAML file of the same experiment with trainings of `LONG` steps."""
    settings = yaml.safe_load(experiment.read_text())
    settings["training"]["images"] = 4 * LONG
    path = folder / "long.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def pieces(answer, kind):
    """How often each piece of a kind of work was done."""
    return Counter(what for _, what, _ in answer["work"] if what.startswith(f"{kind} "))


def workers(answer, kind):
    return {pid for pid, what, _ in answer["work"] if what.startswith(f"{kind} ")}


def told(answer, what=""):
    """{number of the process: [(seconds, number of the named one, its host)]} of the lines that name an owner."""
    lines = {
        child["pid"]: [(at, WAITING.fullmatch(line)) for at, line in child["said"]] for child in answer["children"]
    }
    return {pid: [(at, int(m[1]), m[2]) for at, m in found if m and what in m[3]] for pid, found in lines.items()}


def assert_all_done(answer):
    for child in answer["children"]:
        assert child["code"] == 0, child["said"]


def train(experiment, results, weighting="debiased", seed=0):
    return ["training", "--experiment", experiment, "--results", results, "--weighting", weighting, "--seed", seed]


@pytest.mark.slow
def test_eight_trainings_of_one_run(crowd, experiment, tmp_path, reached):
    """Of so many steps that it is still at them when the last of the others has come, and has waited for a moment."""
    long = longer(experiment, tmp_path)
    answer = crowd(tmp_path / "eight", [train(long, tmp_path / "eight")] * EIGHT)
    assert_all_done(answer)
    steps, images = pieces(answer, "step"), pieces(answer, "image")
    assert sorted(steps.values()) == [1] * LONG and sorted(images.values()) == [1] * IMAGES
    (owner,) = workers(answer, "step")
    seen = told(answer, "the run ")
    waited = {pid: lines[0] for pid, lines in seen.items() if lines}
    assert {named for _, named, _ in waited.values()} == {owner} and len(waited) == EIGHT - 1
    assert {host for _, _, host in waited.values()} == {socket.gethostname()}
    alone = crowd(tmp_path / "one", [train(long, tmp_path / "one")])
    assert_all_done(alone)
    runs = [find_run(long.stem, "debiased", 0, tmp_path / name) for name in ("eight", "one")]
    assert differences(*map(outcome, runs)) == []
    reached(7, "eight processes train one run, from images not yet decoded", f"{LONG} steps, {IMAGES} images decoded",
            f"{steps.total()} steps by one process, {images.total()} images")  # fmt: skip
    first_step = min(at for _, what, at in answer["work"] if what.startswith("step 1 "))
    latest = max(at for at, _, _ in waited.values()) - first_step
    assert latest < 5
    reached(7, "the others say whom they wait for", "7 name process and host within 5 s of its first step",
            f"{len(waited)}, at most {max(0, latest):.1f} s after it")  # fmt: skip


def measure(experiment, results, *names):
    return ["measurements", *names, "--experiment", experiment, "--results", results, "--weighting", "debiased"]


def test_eight_measurements_of_one_table(crowd, experiment, tmp_path, reached):
    """From nothing: the images, the training, the samples and the table."""
    answer = crowd(tmp_path / "eight", [measure(experiment, tmp_path / "eight", "distances")] * EIGHT)
    assert_all_done(answer)
    tables, samples = pieces(answer, "table"), pieces(answer, "images")
    assert tables == {"table distances-debiased-s0.csv": 1}
    # Three batches for each of two numbers of sampling steps; the snapshot at the end is the first of them.
    assert sorted(samples.values()) == [1] * 6 and sorted(pieces(answer, "image").values()) == [1] * IMAGES
    assert sorted(pieces(answer, "step").values()) == [1] * STEPS
    table = tmp_path / "eight" / "eight" / "tables" / "distances-debiased-s0.csv"
    alone = crowd(tmp_path / "one", [measure(experiment, tmp_path / "one", "distances")])
    assert_all_done(alone)
    assert table.read_bytes() == (tmp_path / "one" / table.relative_to(tmp_path / "eight")).read_bytes()
    reached(7, "eight processes measure one table, from nothing", "1 table, 6 batches of samples, 60 steps, 64 images",
            f"{tables.total()} table, {samples.total()} batches, {pieces(answer, 'step').total()} steps, "
            f"{pieces(answer, 'image').total()} images")  # fmt: skip


def test_eight_executions_of_one_notebook(crowd, tmp_path, reached):
    """From nothing: the copy of the first is that of all; asked again, when none is at it, it is executed again."""
    name, results = "02_one_step_estimation", tmp_path / "eight"
    command = ["execution", name, "--experiment", Path(__file__).with_name("tiny.yaml"), "--results", results]
    answer = crowd(tmp_path / "first", [command] * EIGHT)
    assert_all_done(answer)
    executed = pieces(answer, "notebook")
    assert executed == {f"notebook {name}": 1}
    (owner,) = workers(answer, "notebook")
    waited = {pid: lines[0][1] for pid, lines in told(answer, "the notebook ").items() if lines}
    assert len(waited) == EIGHT - 1 and set(waited.values()) == {owner}
    target = results / "tiny" / "notebooks" / f"{name}.ipynb"
    last = [child["said"][-1][1] for child in answer["children"] if child["pid"] != owner]
    assert last == [f"another process has meanwhile executed the notebook {target}"] * (EIGHT - 1)
    assert all(cell.execution_count for cell in nbformat.read(target, 4).cells if cell.cell_type == "code")
    again = crowd(tmp_path / "again", [command])
    assert_all_done(again)
    assert pieces(again, "notebook") == executed
    reached(7, "eight processes execute one notebook, from nothing", "executed once, all exit with 0",
            f"executed {executed.total()} time, {len(answer['children'])} exit with 0")  # fmt: skip


@pytest.mark.slow
def test_eight_different_runs_of_one_folder(crowd, experiment, tmp_path, reached):
    runs = [(weighting, seed) for weighting in yaml.safe_load(experiment.read_text())["weightings"] for seed in (0, 1)]
    answer = crowd(tmp_path / "eight", [train(experiment, tmp_path / "eight", *run) for run in runs])
    assert_all_done(answer)
    steps, images = pieces(answer, "step"), pieces(answer, "image")
    assert sorted(steps.values()) == [1] * STEPS * EIGHT and len(workers(answer, "step")) == EIGHT
    assert sorted(images.values()) == [1] * IMAGES
    assert not any(told(answer, "the run ").values())  # none stands in another's way
    for run in runs[:2]:
        alone = crowd(tmp_path / f"one {run}", [train(experiment, tmp_path / f"one {run}", *run)])
        assert_all_done(alone)
        found = [find_run("eight", *run, tmp_path / name) for name in ("eight", f"one {run}")]
        assert differences(*map(outcome, found)) == []
    reached(7, "eight processes train eight runs of one folder", f"{EIGHT * STEPS} steps, {IMAGES} images decoded",
            f"{steps.total()} steps by {len(workers(answer, 'step'))} processes, {images.total()} images")  # fmt: skip


# Killed holders


def assert_named_in_time(answer):
    """Nobody names a process that has been dead for a second."""
    dead = {pid: at for pid, _, at in answer["kills"]}
    lines = [(at, named) for found in told(answer).values() for at, named, _ in found]
    assert lines and all(at < dead.get(named, np.inf) + 1 for at, named in lines)


def killed_holders(crowd, folder, commands, lock, killed=EIGHT - 1):
    answer = crowd(folder, commands, killed=killed, lock=lock)
    assert [child["code"] for child in answer["children"]].count(-9) == killed
    assert [child["code"] for child in answer["children"]].count(0) == EIGHT - killed
    assert_named_in_time(answer)
    seconds = [seconds for _, seconds, _ in answer["kills"]]
    assert len(seconds) == killed and min(seconds) > 0 and max(seconds) < 1
    return answer, seconds


def test_the_lock_of_a_killed_holder_is_free_at_once(crowd, tmp_path, reached):
    commands = [["hold", tmp_path / "some.lock", 1.5]] * EIGHT
    _, seconds = killed_holders(crowd, tmp_path / "eight", commands, "some.lock")
    reached(7, f"the lock of a holder killed by SIGKILL, {len(seconds)} times, seven and fewer waiting",
            "free within 1 s", f"{max(seconds):.2f} s at worst")  # fmt: skip


@pytest.mark.slow
def test_seven_trainings_killed_one_after_the_other(crowd, experiment, tmp_path, reached):
    """Each time another of the eight goes on; the last one completes what all of them did."""
    found = []
    long = longer(experiment, tmp_path)
    for number in range(3):
        results = tmp_path / str(number)
        answer, seconds = killed_holders(crowd, results, [train(long, results)] * EIGHT, "debiased-s0/.lock")
        (finisher,) = (child["pid"] for child in answer["children"] if child["code"] == 0)
        assert find_run(long.stem, "debiased", 0, results).record["steps"] == LONG
        assert finisher in workers(answer, "step")
        found += seconds
    reached(7, f"the lock of a training killed by SIGKILL, {len(found)} times", "another has it within 1 s",
            f"{max(found):.2f} s at worst")  # fmt: skip


def test_those_that_do_not_wait_leave_in_seconds(crowd, tmp_path, reached):
    lock = tmp_path / "some.lock"
    with exclusive(lock, "the lock"):
        started = time.monotonic()
        answer = crowd(tmp_path / "eight", [["hold", lock, 0, 0.1]] * EIGHT)
        seconds = time.monotonic() - started
    assert [child["code"] for child in answer["children"]] == [2] * EIGHT and seconds < 5
    said = {line for child in answer["children"] for _, line in child["said"]}
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    assert said == {f"error: the lock is in use by {owner}; try again when it has ended"}
    reached(7, "eight that do not wait", "leave in 5 s with one line naming process and host",
            f"{len(answer['children'])} in {seconds:.1f} s")  # fmt: skip


@pytest.fixture
def commands(experiment, tmp_path):
    """Eight `python -m debiaslib.training` of one run, and the files of what they say on stderr."""
    command = [sys.executable, "-m", "debiaslib.training", "--experiment", experiment, "--results", tmp_path]
    started, said = [], [tmp_path / f"said-{i}" for i in range(EIGHT)]
    for path in said:
        with path.open("w") as file:
            started.append(subprocess.Popen([*command, "--weighting", "debiased"], cwd=REPOSITORY, stderr=file))
    yield started, said
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_eight_commands(commands, tmp_path, reached):
    """All find the run in use, by this process, which then lets go of it."""
    processes, said = commands
    folder = find_run("eight", "debiased", 0, tmp_path).folder
    with exclusive(folder / ".lock", "the run", wait=0):
        deadline = time.monotonic() + 500  # each imports torch first
        while not all(f"waiting for process {os.getpid()} on" in path.read_text() for path in said):
            assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
            time.sleep(0.1)
    assert [process.wait(300) for process in processes] == [0] * EIGHT
    # A training shows a bar; those that waited were told who trains, unless it took less than half a second.
    trained = [process.pid for process, path in zip(processes, said, strict=True) if "image/s" in path.read_text()]
    waited = [{int(pid) for pid in re.findall(r"process (\d+) on .* the run ", path.read_text())} for path in said]
    assert len(trained) == 1 and all(named <= {os.getpid(), *trained} for named in waited)
    rows = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(1, STEPS + 1))
    reached(7, "`python -m debiaslib.training` of one run, eight times", "one trains, all exit with 0",
            f"{len(trained)} trains, {sum(process.returncode == 0 for process in processes)} exit with 0")  # fmt: skip
