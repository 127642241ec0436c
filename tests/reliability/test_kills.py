"""Killed at any moment of a training, the same call goes on, and ends with the same bits."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from debiaslib.training.run import find_run
from tests.training import tiny

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    """Give the process of killing.py an order; its answer."""
    settings = tiny.settings(tiny.faces(tmp_path_factory.mktemp("data") / "faces"))
    command = [sys.executable, "-W", "ignore", Path(__file__).parent / "killing.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:

        def ask(results, **how):
            process.stdin.write(json.dumps({"results": str(results), "settings": settings, **how}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def run_in(results):
    return find_run("test", "debiased", 0, results)


@pytest.fixture(scope="module")
def whole(order, tmp_path_factory):
    """(what a training that was never stopped leaves, how often it changed what lies on the disk)."""
    order(tmp_path_factory.mktemp("first"))  # it also decodes the images, which those that are killed find decoded
    results = tmp_path_factory.mktemp("whole")
    code, calls = order(results)
    assert code == 0 and calls > 100
    return run_in(results), calls


def trial(order, results, whole, kills):
    """Kill a training as each of `kills` says, one after the other; how many came before it was done. Then compare."""
    codes = [order(results, **kill)[0] for kill in kills]
    assert set(codes) <= {-signal.SIGKILL, -signal.SIGPROF, 0}
    assert order(results)[0] == 0
    run = run_in(results)
    tiny.assert_same(run, whole[0])
    left = [path.name for path in run.folder.rglob(".*") if ".lock" not in path.name]
    assert left == [] and len(list((run.folder / "checkpoints").iterdir())) <= 4
    return len(codes) - codes.count(0)


def test_killed_several_times(order, whole, tmp_path):
    chance = random.Random(0)
    kills = [{"kill": chance.randint(1, whole[1] // 2)} for _ in range(3)] + [{"after": 0.3}]
    assert trial(order, tmp_path, whole, kills) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_killed_at_every_change_of_the_disk(order, whole, tmp_path, part):
    """A third of them in each trial's second life, and at a random moment of its third."""
    chance = random.Random(part)
    for number in range(1 + part, whole[1] + 1, 8):
        kills = [{"kill": number}, {"kill": chance.randint(1, 60)}, {"after": chance.uniform(0.05, 0.5)}]
        assert trial(order, tmp_path / str(number), whole, kills[: chance.randint(1, 3)]) >= 1
