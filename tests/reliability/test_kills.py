"""Killed at any moment of a training or of sampling: the same call goes on, and ends with the same bits."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from killing import IN_THE_LOOP, OF_A_TRAINING, OF_SAMPLING, SAMPLES
from outcomes import SETTINGS, STEPS, differences, faces, left_behind, outcome

from debiaslib.files import read_json
from debiaslib.study.sample_store import sample_path
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.run import find_run

REPOSITORY = Path(__file__).parents[2]
KILLED = -9


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    """Give the process of killing.py an order; its answer."""
    settings = {**SETTINGS, "dataset": faces(tmp_path_factory.mktemp("data") / "faces")}
    command = [sys.executable, "-W", "ignore", Path(__file__).parent / "killing.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:

        def ask(results, task="train", every=1, **how):
            given = {"task": task, "results": str(results), "settings": settings, "every": every, **how}
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def run_in(results):
    return find_run("test", "debiased", 0, results)


@pytest.fixture(scope="module")
def whole(order, tmp_path_factory):
    """(what the training that was never stopped leaves, the seconds of processor time that it took)."""
    results = tmp_path_factory.mktemp("whole")
    answer = order(results)
    assert (answer["code"], answer["said"]) == (0, "")
    return outcome(run_in(results)), answer["seconds"]


def complete(order, results, whole, every=1):
    """Go on to the end with nothing in the way, and compare."""
    answer = order(results, every=every)
    assert answer["code"] == 0, answer["said"]
    run = run_in(results)
    assert differences(outcome(run), whole[0]) == []
    assert left_behind(run.folder) == [] and len(list((run.folder / "checkpoints").iterdir())) <= 4


def trial(order, results, whole, kills, chance):
    """Kill a training up to four times as `kills`, a list, says from its end; those that came. The others it keeps."""
    came = []
    while kills and len(came) < 4:
        kill = kills.pop()
        code = order(results, every=chance.choice([1, 1, 2, 3]), **kill)["code"]
        if code == 0:  # it was done before the moment came
            kills.insert(0, kill)
            break
        assert code == KILLED
        came.append(kill)
    complete(order, results, whole, chance.choice([1, 2, 5]))
    return came


def test_killed_at_some_moments(order, whole, tmp_path):
    """Four of those of the long test: in a checkpoint, between it and its note, in its tidying, before the record."""
    kills = [{"at": at} for at in ("record: before the rename", "tidying: before a removal",
                                   "its note: before the rename", "checkpoint: half-way through it")]  # fmt: skip
    assert len(trial(order, tmp_path, whole, kills, random.Random(0))) == 4


@pytest.mark.slow
def test_killed_at_every_moment_and_at_random_ones(order, whole, tmp_path, reached):
    chance, came, trials = random.Random(8), [], 0
    kills = [{"at": at, "count": 1 + chance.randrange(2) * (at in IN_THE_LOOP)} for at in OF_A_TRAINING]
    kills += [{"after": chance.uniform(0, 0.7 * whole[1])} for _ in range(30)]
    chance.shuffle(kills)
    while kills or trials < 20 or len(came) < 60:
        came += trial(order, tmp_path / str(trials), whole, kills or [{"after": 0.5 * whole[1]}], chance)
        trials += 1
        assert trials < 60
    assert {kill["at"] for kill in came if "at" in kill} == set(OF_A_TRAINING)
    at_random = sum("after" in kill for kill in came)
    assert at_random >= 20
    what = f"SIGKILL in training, at {len(OF_A_TRAINING)} moments of writing and {at_random} random ones"
    got = f"{trials} of {trials} after {len(came)} kills"
    reached(1, what, "20 trials, 60 kills, all bit-identical", got)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [1, 2, 3])
def test_stopped_mid_way_with_other_intervals(order, whole, tmp_path, reached, stops):
    """Once, twice and thrice, after any step, with another number of steps between checkpoints each time."""
    chance, trials = random.Random(stops), 6
    for number in range(trials):
        results, taken = tmp_path / str(number), 0
        for every in chance.sample([1, 2, 3, 5, 8], stops):
            # `count` is of the steps of one process: it begins at the last checkpoint.
            left = STEPS - taken - 1
            steps = chance.randint(1, max(1, left // 2))
            assert order(results, every=every, at="a step: after", count=steps)["code"] == KILLED
            taken = load_checkpoint(run_in(results).folder / "checkpoints")[0]
        complete(order, results, whole, every=4)
    reached(1, f"resumed {stops} times, other checkpoint intervals each time", "all bit-identical",
            f"{trials} of {trials}")  # fmt: skip


def stopped(order, results, whole, number, how, every=1000):
    """Send a training a signal to stop; (steps from it to the saved one, seconds from it to the end).

    One that was done before its random moment came, so that no signal reached it, is trained again, with the moment at
    half the time. A signal that came and was passed over is a failure.
    """
    for _ in range(4):
        answer = order(results, every=every, signal=number, **how)
        if "since" in answer or "after" not in how:
            break
        results, how = results.with_name(f"{results.name} again"), {"after": how["after"] / 2}
    run = run_in(results)
    assert answer["code"] == {"SIGTERM": 143, "SIGINT": 130}[number], answer["said"]
    saved, _ = load_checkpoint(run.folder / "checkpoints")
    if run.record is None:
        assert answer["said"] == f"saved debiased-s0 at step {saved} of {STEPS}; the same call goes on from there\n"
    complete(order, results, whole, every)
    return saved - answer["steps"], answer["since"]


# While a step is taken, and while what it leaves is written: a signal that comes then is not the loop's last word.
@pytest.mark.parametrize(
    ("number", "at"),
    [("SIGTERM", "a step: after it asked for signals"), ("SIGINT", "log: half-way through a row")],
)
def test_a_signal_saves_within_a_step(order, whole, tmp_path, number, at):
    steps, _ = stopped(order, tmp_path, whole, number, {"at": at})
    assert 0 <= steps <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_at_every_moment_saves_within_a_step(order, whole, tmp_path, reached, number, code):
    chance = random.Random(code)
    moments = [{"at": at} for at in IN_THE_LOOP if not at.startswith("tidying: ")]
    moments += [{"after": chance.uniform(0, 0.5 * whole[1])} for _ in range(10)]
    found = []
    for i, how in enumerate(moments):
        every = 3 if "at" in how and how["at"].startswith(("checkpoint", "its note")) else 1000
        found.append(stopped(order, tmp_path / str(i), whole, number, how, every))
    steps, seconds = (max(column) for column in zip(*found, strict=True))
    assert min(found)[0] >= 0 and steps <= 1 and seconds < 2
    what = f"{number} at {len(moments)} moments"
    got = f"at most {steps} step and {seconds:.1f} s later, exit {code}, {len(found)} of {len(moments)}"
    reached(1, what, f"saved within a step and 2 s, exit {code}, all bit-identical", got)


# Sampling


def drawn(folder):
    """The bytes of the images, and their record without its seconds and its seal."""
    path = sample_path(folder, SAMPLES["inputs"])
    record = read_json(path.with_suffix(".json"))
    record.pop("seconds")
    return path.read_bytes(), record


@pytest.fixture(scope="module")
def images(order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    assert order(folder, task="sample")["code"] == 0
    return drawn(folder)


def sampling_trial(order, folder, images, moments):
    """Kill a job at the first of these moments that it meets, and so on; the kills."""
    came = [kill for kill in moments if order(folder, task="sample", at=kill)["code"] == KILLED]
    answer = order(folder, task="sample")
    assert (answer["code"], answer["said"]) == (0, "")
    assert drawn(folder) == images and left_behind(folder) == []
    return came


def test_sampling_killed_at_some_moments(order, images, tmp_path):
    moments = ["a batch: half-way through it", "progress note: before the rename", "images: after the rename"]
    assert sampling_trial(order, tmp_path, images, moments) == moments


@pytest.mark.slow
def test_sampling_killed_at_every_moment(order, images, tmp_path, reached):
    chance, came, trials = random.Random(3), [], 0
    for first in OF_SAMPLING:
        moments = [first, *chance.sample(OF_SAMPLING, 2)]
        came += sampling_trial(order, tmp_path / str(trials), images, moments)
        trials += 1
    assert set(came) == set(OF_SAMPLING)
    reached(1, f"SIGKILL in sampling, at {len(OF_SAMPLING)} moments", "the same images, to the byte",
            f"{trials} of {trials} after {len(came)} kills")  # fmt: skip


def test_every_moment_is_named_once():
    for moments in (OF_A_TRAINING, OF_SAMPLING):
        assert all(one != other for one, other in itertools.combinations(moments, 2))
