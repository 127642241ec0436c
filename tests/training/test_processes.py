"""Several processes: the steps of one up to rounding, their own to the bit, and an end together whatever happens."""

import json
import os
import signal
import subprocess
import sys
import traceback
import warnings

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.cli import run_command
from debiaslib.data.images import load_images
from debiaslib.errors import InputError
from debiaslib.training import log
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import Training, train
from debiaslib.training.processes import World, current_world, processes
from debiaslib.training.run import find_run
from tests.training import tiny
from tests.training.tiny import STILL, assert_same

STEPS, BATCH = 12, 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The settings of a training of 12 steps, with all that is random in one."""
    dataset = tiny.faces(tmp_path_factory.mktemp("data") / "faces", count=64)
    return {**tiny.settings(dataset), "images": STEPS * BATCH, "snapshots": [20]}


def run_in(results):
    return find_run("test", "debiased", 0, results)


def training(settings, results, every=1e9, kill=None):
    """What each of the processes does: a training, in which the ranks of `kill` get a signal after a step."""

    def act(world):
        if kill is not None:
            rank, step, number = kill
            if world.rank == rank:
                tiny.until(pytest.MonkeyPatch(), step, lambda: os.kill(os.getpid(), number))
        config = TrainConfig(**settings)
        train(config, results, "test", progress=False, checkpoint_seconds=every)

    return act


def together(number, results, act):
    """Fork `number` processes as torchrun starts them; (exit codes, what each said on stderr)."""
    import torch._dynamo  # noqa: F401 - DistributedDataParallel would import it in each child

    os.makedirs(results, exist_ok=True)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = [os.fork() or _child(rank, number, store.port, results, act) for rank in range(number)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return codes, [(results / f"said-{rank}").read_text() for rank in range(number)]


def _child(rank, number, port, results, act):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # fmt: skip
    os.dup2(os.open(results / f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - until the process ends
    warnings.simplefilter("ignore")
    log.ROWS = 3

    def main():
        with processes() as world:
            act(world)

    code = 1
    try:
        run_command(main)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # without pytest's and the interpreter's clearing up


# The same steps


@given(st.integers(1, 8), st.integers(1, 9))
def test_the_parts_are_the_batch(size, share):
    count = size * share
    parts = [list(range(count))[World(rank, size).part(count)] for rank in range(size)]
    assert sum(parts, []) == list(range(count)) and {len(part) for part in parts} == {share}


def test_each_process_has_dropout_of_its_own():
    names = {World(rank, 3).purpose("dropout") for rank in range(3)}
    assert len(names) == 3 and "dropout" not in names and World().purpose("dropout") == "dropout"


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (2, {"learned_variance": True, "microbatch": 1}),
        pytest.param(2, {}, marks=pytest.mark.slow),
        pytest.param(4, {"timestep_sampling": "stratified"}, marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(settings, tmp_path, number, more):
    """At equal weights, to a relative 1e-5; each process holds the same gradients, to the bit, and its part of the
    batch.
    """
    config = TrainConfig(**{**settings, "network": STILL, **more})
    images = load_images(config.dataset, config.resolution)

    def gradients(world):
        made = Training(run_in(tmp_path), config, images)
        made.model, batch = world.replicate(made.network), made.batches(0)
        means = world.mean(made.backward(batch)).numpy()
        named = {f"gradient {name}": p.grad.numpy() for name, p in made.network.named_parameters()}
        named |= {f"batch {i}": part.numpy() for i, part in enumerate(batch[:3])}
        np.savez(tmp_path / f"of-{world.rank}.npz", means=means, **named)

    codes, said = together(number, tmp_path, gradients)
    assert codes == [0] * number, said
    several = [dict(np.load(tmp_path / f"of-{rank}.npz")) for rank in range(number)]
    made = Training(run_in(tmp_path), config, images)
    batch = made.batches(0)
    means = made.backward(batch).tolist()
    for i, whole in enumerate(batch[:3]):
        assert np.array_equal(np.concatenate([one[f"batch {i}"] for one in several]), whole.numpy())
    for one in several:
        assert one["means"] == pytest.approx(means, rel=1e-5)
    own = {f"gradient {name}": p.grad.numpy() for name, p in made.network.named_parameters()}
    assert len(own) > 20
    for name, gradient in own.items():
        assert all(np.array_equal(one[name], several[0][name]) for one in several)
        difference = np.linalg.norm(several[0][name].astype(float) - gradient)
        assert difference <= 1e-5 * np.linalg.norm(gradient) + 1e-12, name


# To the bit


@pytest.fixture(scope="module")
def by_two(settings, tmp_path_factory):
    """A training by two processes from start to end."""
    results = tmp_path_factory.mktemp("two")
    assert together(2, results, training(settings, results)) == ([0, 0], ["", ""])
    return run_in(results)


def test_a_signal_to_one_stops_all_and_the_same_call_goes_on(settings, by_two, tmp_path):
    codes, said = together(2, tmp_path, training(settings, tmp_path, kill=(1, 5, signal.SIGTERM)))
    assert codes == [143, 143]
    assert said == ["saved debiased-s0 at step 5 of 12; the same call goes on from there\n", ""]
    assert load_checkpoint(run_in(tmp_path).folder / "checkpoints")[0] == 5 and run_in(tmp_path).record is None
    assert together(2, tmp_path, training(settings, tmp_path))[0] == [0, 0]
    assert_same(run_in(tmp_path), by_two)
    record = by_two.record
    assert (record["processes"], record["backend"]) == (2, "gloo") and record["config"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_dies_ends_the_others_and_the_same_call_goes_on(settings, by_two, tmp_path, rank):
    codes, _ = together(2, tmp_path, training(settings, tmp_path, every=0, kill=(rank, 7, signal.SIGKILL)))
    assert codes[rank] == -9 and codes[1 - rank] not in (0, -9)
    assert 5 <= load_checkpoint(run_in(tmp_path).folder / "checkpoints")[0] <= 7
    assert together(2, tmp_path, training(settings, tmp_path))[0] == [0, 0]
    assert_same(run_in(tmp_path), by_two)


@pytest.mark.slow
def test_four_that_are_stopped_twice_end_as_four_that_are_not(settings, tmp_path):
    """With more than two the order of a sum matters: the gradients must lie alike before and after a stop."""
    for step, number, code in ((3, signal.SIGINT, 130), (8, signal.SIGTERM, 143)):
        kill = (2, step, number)
        assert together(4, tmp_path / "stopped", training(settings, tmp_path / "stopped", kill=kill))[0] == [code] * 4
    for name in ("stopped", "whole"):
        assert together(4, tmp_path / name, training(settings, tmp_path / name))[0] == [0] * 4
    assert_same(run_in(tmp_path / "stopped"), run_in(tmp_path / "whole"))


# Another number


@pytest.mark.slow
def test_an_unfinished_run_goes_on_with_as_many_processes_as_began_it(settings, tmp_path):
    assert together(2, tmp_path, training(settings, tmp_path, kill=(0, 4, signal.SIGTERM)))[0] == [143, 143]
    codes, said = together(1, tmp_path, training(settings, tmp_path))
    assert codes == [2] and said[0].count("\n") == 1 and "was made with processes=2, not 1" in said[0]
    assert together(2, tmp_path, training(settings, tmp_path))[0] == [0, 0]
    assert together(1, tmp_path, training(settings, tmp_path)) == ([0], [""])  # a complete run is anybody's


def test_a_run_of_one_process_says_so(settings, tmp_path):
    run = train(TrainConfig(**settings), tmp_path, "test", progress=False)
    assert "processes" not in run.config
    assert (run.record["processes"], run.record["backend"]) == (1, None)


# A mistake


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"batch_size": 5}, "batch_size is 5; 2 processes need a multiple of 2"),
        pytest.param({"lr": 1e30}, "the loss of debiased-s0 is not finite at step 2 ", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_line_of_each_process(settings, tmp_path, more, line):
    codes, said = together(2, tmp_path, training({**settings, **more}, tmp_path))
    assert codes == [2, 2]
    assert all(one.startswith(f"error: {line}") and one.count("\n") == 1 for one in said)
    assert run_in(tmp_path).record is None


def test_one_process_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with processes() as world:
        assert world == World() == current_world()


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    World(0, 2, 0).check("cuda", 8)
    with pytest.raises(InputError, match="this machine has 1 GPUs"):
        World(1, 2, 1).check("cuda", 8)
    for device in ("cuda:0", "cpu:0"):
        with pytest.raises(InputError, match="several processes need 'cuda'"):
            World(0, 2, 0).check(device, 8)
    World().check("cuda:0", 7)


# torchrun itself


@pytest.mark.slow
def test_torchrun(settings, tmp_path):
    """The command of the documentation; a mistake is one line of each process that gets to say it."""
    chosen = {key: settings[key] for key in ("resolution", "network", "images", "batch_size", "lr", "ema_decay")}
    text = {"preset": "minifaces16", "weightings": ["debiased"], "dataset": settings["dataset"], "training": chosen}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(text))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    which = ["--experiment", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path), "--seed", "0", "--weighting"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def torchrun(weighting):
        command = [*start, "-m", "debiaslib.training", *which, weighting]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    done = torchrun("debiased")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "tiny" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["processes"] == 2
    done = torchrun("debaised")
    assert done.returncode != 0 and "did you mean 'debiased'" in done.stderr
