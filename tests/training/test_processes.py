"""Several processes: the steps of one up to rounding, their own to the bit, and an end together whatever happens."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from debiaslib.data.images import load_images
from debiaslib.errors import InputError
from debiaslib.study.distances import distances
from debiaslib.study.study import open_study
from debiaslib.training import loop as training
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train
from debiaslib.training.processes import World, current_world, processes, shared_batches
from debiaslib.training.run import check_processes, find_run

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
STEPS, BATCH = 12, 4

# Imports once and then, for each line of orders, forks that many processes as torchrun would start them. It answers
# with their exit codes and what they said on stderr.
SERVER = """
import json, os, signal, socket, sys, traceback, warnings
import numpy as np, torch, torch._dynamo  # which DistributedDataParallel would import in each child
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from debiaslib.study import distances
from debiaslib.training import loop as training
from debiaslib.training import processes as distributed
from debiaslib.cli import run_command
from debiaslib.training.config import TrainConfig
from debiaslib.data.images import load_images
from debiaslib.training.run import find_run
from debiaslib.study.study import open_study

training._LOG_ROWS = 3

def stopping(kill):
    one_step = training._Training._one_step
    def step(self):
        one_step(self)
        if self.step == kill["step"] and self.world.rank in kill["ranks"]:
            os.kill(os.getpid(), getattr(signal, kill["signal"]))
    training._Training._one_step = step

def main(order):
    with distributed.processes(minutes=1) as world:
        if "experiment" in order:
            study = open_study(order["experiment"], results=order["results"])
            distances.draw_together(study, "debiased", 0)
            return
        with world.together():
            config = TrainConfig(**order["config"])
        if "gradients" in order:
            return gradients(order, config, world)
        if "kill" in order:
            stopping(order["kill"])
        training.train(config, order["results"], "test", progress=False, checkpoint_seconds=order.get("every", 1e9),
                       any_processes=order.get("any", False))

def gradients(order, config, world):
    images = load_images(config.dataset, config.resolution)
    made = training._Training(find_run("test", "debiased", 0, order["results"]), config, images)
    made.model, batch = world.replicate(made.network), made._batch()
    loss, mse = made.objective.loss(made.model, *batch)
    loss.backward()
    means = world.mean(torch.stack([loss.detach(), mse])).numpy()
    named = {f"gradient {name}": p.grad.numpy() for name, p in made.network.named_parameters()}
    named |= {f"batch {i}": part.numpy() for i, part in enumerate(batch[:3])}
    np.savez(f"{order['gradients']}-{world.rank}.npz", means=means, **named)

def child(rank, order, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order["processes"]),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    said = os.open(f"{order['results']}/said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    try:
        run_command(lambda: main(order))
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 1
        traceback.print_exc()
    os._exit(code)  # not by way of the interpreter's clearing up, which takes a forked one seconds

for line in sys.stdin:
    order = json.loads(line)
    os.makedirs(order["results"], exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(order["processes"]):
        pid = os.fork()
        if pid == 0:
            child(rank, order, port)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    said = [open(f"{order['results']}/said-{rank}").read() for rank in range(len(codes))]
    print(json.dumps([codes, said]), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    """A function that gives an order to the processes: (exit codes, what each said)."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(processes, results, config=None, **order):
            order |= {"processes": processes, "results": str(results), "config": config}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The settings of a training of 12 steps, with all that is random in one."""
    folder = tmp_path_factory.mktemp("data") / "faces"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(64):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return {"dataset": str(folder), "resolution": 8, "network": NETWORK, "images": STEPS * BATCH, "batch_size": BATCH,
            "lr": 2e-3, "lr_decay": "cosine", "ema_decay": 0.8, "weight_decay": 0.01, "horizontal_flip": True,
            "snapshots": [20]}  # fmt: skip


def run_in(results):
    return find_run("test", "debiased", 0, results)


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
    """All that a complete run leaves, without times."""
    step, state = load_checkpoint(run.folder / "checkpoints")
    state.pop("seconds")
    assert state.pop("log") == run.log()
    log = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.log()]
    weights = {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    keys = ("processes", "backend", "process_history", "snapshots", "raw", "config")
    return {"step": step, "state": state, "log": log, "weights": weights, **{key: run.record[key] for key in keys}}


def assert_same(run, other):
    got, wanted = facts(run), facts(other)
    for key in wanted:
        assert equal(got[key], wanted[key]), key


@pytest.fixture(scope="module")
def by_two(server, settings, tmp_path_factory):
    """A training by two processes from start to end."""
    results = tmp_path_factory.mktemp("two")
    assert server(2, results, settings) == ([0, 0], ["", ""])
    return run_in(results)


# The same steps


@given(st.integers(1, 8), st.integers(1, 9))
def test_the_parts_are_the_batch(size, share):
    count = size * share
    parts = [list(range(count))[World(rank, size).part(count)] for rank in range(size)]
    assert sum(parts, []) == list(range(count)) and {len(part) for part in parts} == {share}


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("more", [{}, {"learned_variance": True}, {"timestep_sampling": "stratified"}])
def test_losses_and_gradients_are_those_of_one_process(server, settings, tmp_path, number, more):
    """At equal weights, to a relative 1e-5; each process holds the same gradients, to the bit, and its part of the
    batch.
    """
    config = {**settings, "network": {**NETWORK, "dropout": 0.0}, **more}
    assert server(number, tmp_path, config, gradients=str(tmp_path / "of"))[0] == [0] * number
    several = [dict(np.load(tmp_path / f"of-{rank}.npz")) for rank in range(number)]
    made = training._Training(run_in(tmp_path), TrainConfig(**config), load_images(config["dataset"], 8))
    batch = made._batch()
    loss, mse = made.objective.loss(made.network, *batch)
    loss.backward()
    assert batch[3] is None  # no labels
    for i, whole in enumerate(batch[:3]):
        assert np.array_equal(np.concatenate([one[f"batch {i}"] for one in several]), whole.numpy())
    for one in several:
        assert one["means"] == pytest.approx([loss.item(), mse.item()], rel=1e-5)
    own = {f"gradient {name}": p.grad.numpy() for name, p in made.network.named_parameters()}
    assert len(own) > 20
    for name, gradient in own.items():
        assert all(np.array_equal(one[name], several[0][name]) for one in several)
        difference = np.linalg.norm(several[0][name].astype(float) - gradient)
        assert difference <= 1e-5 * np.linalg.norm(gradient) + 1e-12, name


def test_a_training_is_that_of_one_process_up_to_rounding(server, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_LOG_ROWS", 3)
    still = {**settings, "network": {**NETWORK, "dropout": 0.0}}
    assert server(2, tmp_path / "two", still)[0] == [0, 0]
    alone = train(TrainConfig(**still), tmp_path / "one", "test", progress=False)
    for ours, theirs in zip(run_in(tmp_path / "two").log(), alone.log(), strict=True):
        assert ours["step"] == theirs["step"]
        for key in ("loss", "mse", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4)


def test_each_process_has_dropout_of_its_own(settings):
    names = {World(rank, 3).purpose("dropout") for rank in range(3)}
    assert len(names) == 3 and "dropout" not in names and World().purpose("dropout") == "dropout"


# To the bit


def test_it_repeats(server, settings, by_two, tmp_path):
    assert server(2, tmp_path, settings)[0] == [0, 0]
    assert_same(run_in(tmp_path), by_two)
    record = by_two.record
    assert (record["processes"], record["backend"]) == (2, "gloo") and record["config"]["processes"] == 2
    assert record["process_history"] == [{"steps": [0, STEPS], "processes": 2, "backend": "gloo"}]


@pytest.mark.parametrize("ranks", [[0], [1]])
def test_a_signal_to_one_stops_all_and_the_same_call_goes_on(server, settings, by_two, tmp_path, ranks):
    codes, said = server(2, tmp_path, settings, kill={"ranks": ranks, "step": 5, "signal": "SIGTERM"})
    assert codes == [143, 143]
    assert said == ["saved debiased-s0 at step 5 of 12; the same call goes on from there\n", ""]
    assert load_checkpoint(run_in(tmp_path).folder / "checkpoints")[0] == 5 and run_in(tmp_path).record is None
    assert server(2, tmp_path, settings)[0] == [0, 0]
    assert_same(run_in(tmp_path), by_two)


@pytest.mark.parametrize("ranks", [[0], [1]])
def test_one_that_dies_ends_the_others_and_the_same_call_goes_on(server, settings, by_two, tmp_path, ranks):
    codes, _ = server(2, tmp_path, settings, every=0, kill={"ranks": ranks, "step": 7, "signal": "SIGKILL"})
    assert codes[ranks[0]] == -9 and codes[1 - ranks[0]] not in (0, -9)
    assert 5 <= load_checkpoint(run_in(tmp_path).folder / "checkpoints")[0] <= 7
    assert server(2, tmp_path, settings)[0] == [0, 0]
    assert_same(run_in(tmp_path), by_two)


def test_four_that_are_stopped_twice_end_as_four_that_are_not(server, settings, tmp_path):
    """With more than two the order of a sum matters: the gradients must lie alike before and after a stop."""
    for step, signal in ((3, "SIGINT"), (8, "SIGTERM")):
        kill = {"ranks": [2], "step": step, "signal": signal}
        assert server(4, tmp_path / "stopped", settings, kill=kill)[0] == [130 if signal == "SIGINT" else 143] * 4
    for name in ("stopped", "whole"):
        assert server(4, tmp_path / name, settings)[0] == [0] * 4
    assert_same(run_in(tmp_path / "stopped"), run_in(tmp_path / "whole"))


# Another number


def test_another_number_goes_on_only_when_told_to(server, settings, tmp_path):
    for number, step in ((2, 4), (1, 9)):
        kill = {"ranks": [0], "step": step, "signal": "SIGTERM"}
        assert server(number, tmp_path, settings, kill=kill, any=number == 1)[0] == [143] * number
        if number == 2:
            codes, said = server(1, tmp_path, settings)
            assert codes == [2] and said[0].count("\n") == 1
            assert "was made with processes=2, not 1" in said[0] and "--any-processes" in said[0]
    assert server(4, tmp_path, settings)[0] == [2, 0, 0, 0]
    assert server(4, tmp_path, settings, any=True)[0] == [0] * 4
    record = run_in(tmp_path).record
    assert record["processes"] == 4 and record["process_history"] == [
        {"steps": [0, 4], "processes": 2, "backend": "gloo"},
        {"steps": [4, 9], "processes": 1, "backend": None},
        {"steps": [9, 12], "processes": 4, "backend": "gloo"},
    ]
    assert server(2, tmp_path, settings) == ([0, 0], ["", ""])  # a complete run is anybody's


def test_an_unfinished_run_of_an_earlier_version_is_one_process_s(settings, tmp_path):
    run = run_in(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text("{}")
    check_processes(run, 1)
    with pytest.raises(InputError, match="was made with processes=1, not 2"):
        check_processes(run, 2)
    check_processes(run, 2, allowed=True)
    (run.folder / "record.json").write_text("{}")
    check_processes(run, 2)


def test_a_run_of_one_process_says_so(settings, tmp_path):
    run = train(TrainConfig(**settings), tmp_path, "test", progress=False)
    assert "processes" not in run.config
    assert (run.record["processes"], run.record["backend"]) == (1, None)
    assert run.record["process_history"] == [{"steps": [0, STEPS], "processes": 1, "backend": None}]


# One line for all


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"batch_size": 5}, "batch_size is 5; 2 processes need a multiple of 2"),
        ({"device": "cpu:0"}, "device is 'cpu:0'; several processes need 'cuda', each its own GPU, or 'cpu'"),
        ({"lr": 1e30}, "the loss of debiased-s0 is not finite at step 2 "),
        ({"lr": -1}, "lr is -1"),
    ],
)
def test_a_mistake_is_one_line_of_one_process(server, settings, tmp_path, more, line):
    codes, said = server(2, tmp_path, {**settings, **more})
    assert codes == [2, 0]
    assert said[0].startswith(f"error: {line}") and said[0].count("\n") == 1 and said[1] == ""
    assert run_in(tmp_path).record is None


def test_processes_without_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    said = "WORLD_SIZE is 3 but RANK, LOCAL_RANK, .* start the processes with torchrun"
    with pytest.raises(InputError, match=said), processes():
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with processes() as world:
        assert world == World() == current_world()


@pytest.mark.parametrize("number", [1, 2])
def test_more_processes_than_gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    World(0, 2, 0).check("cuda", 8)
    with pytest.raises(InputError, match="1 GPUs are on this machine"):
        World(1, 2, 1).check("cuda", 8)
    with pytest.raises(InputError, match="need 'cuda'"):
        World(0, 2, 0).check("cuda:0", 8)
    World().check("cuda:0", 7)


# Samples


@pytest.fixture(scope="module")
def experiment(settings, tmp_path_factory):
    """A YAML file: seven batches of samples, the last of them short."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    chosen = {key: settings[key] for key in ("resolution", "network", "images", "batch_size", "lr", "ema_decay")}
    path.write_text(
        yaml.safe_dump(
            {
                "preset": "minifaces16",
                "weightings": ["debiased"],
                "dataset": settings["dataset"],
                "training": chosen,
                "sampling_batch_size": 8,
                "distance_images": 50,
                "distance_steps": [2],
                "snapshot_steps": [2],
                "reference_images": 64,
                "optimum_images": 12,
                "notebooks": ["06_fid_evaluation"],
            }  # fmt: skip
        )
    )
    return str(path)


def stored(results):
    return {path.name: path.read_bytes() for path in (results / "tiny" / "samples").glob("*.npy")}


@pytest.fixture(scope="module")
def drawn_alone(experiment, tmp_path_factory):
    results = tmp_path_factory.mktemp("alone")
    study = open_study(experiment, results=results)
    distances(study, "debiased", 0)
    return results


@pytest.mark.parametrize("number", [2, 3])
def test_shared_samples_are_those_of_one_process(server, experiment, drawn_alone, tmp_path, number):
    """To the bit on the CPU: batches hold the same seeds. The runs are copied, for the network to be the same."""
    shutil.copytree(drawn_alone / "tiny" / "runs", tmp_path / "tiny" / "runs")
    before = stored(drawn_alone)
    assert len(before) == 1
    assert server(number, tmp_path, experiment=experiment)[0] == [0] * number
    assert stored(tmp_path) == before
    assert server(number, tmp_path, experiment=experiment)[0] == [0] * number  # nothing is to do
    table = distances(open_study(experiment, results=tmp_path), "debiased", 0)
    assert table.equals(distances(open_study(experiment, results=drawn_alone), "debiased", 0))


def test_nothing_is_drawn_where_the_distances_are(server, experiment, drawn_alone):
    for path in (drawn_alone / "tiny" / "samples").glob("*.npy"):
        path.rename(path.with_suffix(".kept"))
    assert server(2, drawn_alone, experiment=experiment)[0] == [0, 0]
    assert stored(drawn_alone) == {}
    for path in (drawn_alone / "tiny" / "samples").glob("*.kept"):
        path.rename(path.with_suffix(".npy"))


def test_a_missing_run_is_trained_together_first(server, experiment, tmp_path):
    assert server(2, tmp_path, experiment=experiment)[0] == [0, 0]
    (record,) = (tmp_path / "tiny" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["processes"] == 2 and len(stored(tmp_path)) == 1


def test_one_process_draws_as_ever():
    asked = []

    def draw(seeds):
        asked.append(seeds)
        for start in range(0, len(seeds), 3):
            yield np.array(seeds[start : start + 3], np.uint8).reshape(-1, 1, 1, 1)

    batches = list(shared_batches(World(), list(range(8)), 3, (1, 1, 1), draw))
    assert [batch.ravel().tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7]] and asked == [list(range(8))]
    assert list(shared_batches(World(), [], 3, (1, 1, 1), draw)) == [] and len(asked) == 1


# torchrun itself


@pytest.mark.slow
def test_torchrun(experiment, tmp_path):
    """The commands of the documentation: train, sample, measure; a mistake is one line of ours."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    which = ["--experiment", experiment, "--results", str(tmp_path), "--weighting", "debiased", "--seed", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def torchrun(*command):
        return subprocess.run([*start, *command], env=environment, capture_output=True, text=True, timeout=300)

    done = torchrun("debiaslib.training", *which)
    assert done.returncode == 0, done.stderr
    done = torchrun("debiaslib.study.measurements", "distances", *which)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "tiny" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["processes"] == 2
    assert (tmp_path / "tiny" / "tables" / "distances-debiased-s0.csv").exists()
    done = torchrun("debiaslib.training", *which[:-4], "--weighting", "debaised")
    assert done.returncode != 0 and done.stderr.count("error: ") == 1 and "did you mean 'debiased'" in done.stderr
