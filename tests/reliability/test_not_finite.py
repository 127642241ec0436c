"""NaN and infinity, in data, weights, loss or updates: stopped where they come in, and nothing broken is kept."""

import math
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from debiaslib.diffusion.one_step import mse_by_timestep, one_step_estimate
from debiaslib.diffusion.optimum import OptimalDenoiser
from debiaslib.diffusion.sampling import sample, to_uint8
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.solvers import SOLVERS
from debiaslib.errors import InputError
from debiaslib.metrics.statistics import mean_interval
from debiaslib.training import loop as training
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.run import find_run
from tests.training.tiny import BATCH, NETWORK, STEPS, assert_same, faces, quietly

BAD = [math.nan, math.inf, -math.inf]
SCHEDULE = Schedule.linear(T=20)


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """No machine loses its power here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The settings of a training of 21 steps."""
    return {"dataset": str(faces(tmp_path_factory.mktemp("data") / "faces")), "resolution": 8, "network": NETWORK,
            "images": STEPS * BATCH, "batch_size": BATCH, "lr": 2e-3, "ema_decay": 0.8,
            "snapshots": [18, 48]}  # fmt: skip


def run_in(results):
    return find_run("test", "debiased", 0, results)


def stopped(call, *arguments, **named):
    """The one line with which it is refused."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    line = str(caught.value)
    assert "\n" not in line and len(line) <= 200, line
    return line


def assert_all_kept_is_finite(run):
    """Whatever weights lie in the run's folder are finite numbers."""
    for path in run.folder.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path
    for path in (run.folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        moments = [value for moment in state["optimizer"]["state"].values() for value in moment.values()]
        tensors = [*state["network"].values(), *state["ema"]["shadow_params"], *moments]
        assert all(tensor.isfinite().all() for tensor in tensors), path


def broken_update(monkeypatch, at, value):
    """After step `at` one weight of the network is `value`, as an overflow or faulty hardware would leave it."""
    one_step = training.Training.one_step

    def step(self):
        one_step(self)
        if self.step == at:
            with torch.no_grad():
                next(iter(self.network.parameters())).view(-1)[0] = value

    monkeypatch.setattr(training.Training, "one_step", step)


def broken_loss(monkeypatch, at, value):
    """The loss of step `at` is multiplied by `value`, as by a weight that is not finite."""
    timesteps, step = training.Objective.timesteps, []

    def noted(self, number):
        step[:] = [number + 1]
        return timesteps(self, number)

    loss = training.Objective.loss

    def bad(self, *given):
        weighted, mse = loss(self, *given)
        return (weighted * value if step[0] == at else weighted), mse

    monkeypatch.setattr(training.Objective, "timesteps", noted)
    monkeypatch.setattr(training.Objective, "loss", bad)


@pytest.mark.parametrize(
    "break_it, at, value", [(broken_update, 5, math.nan), (broken_update, 21, math.inf), (broken_loss, 7, -math.inf)]
)
def test_a_network_that_breaks_is_stopped_before_it_is_kept(settings, tmp_path, monkeypatch, break_it, at, value):
    """At a snapshot's step, at the last one, and by an ordinary step's loss; checkpoints after each step."""
    whole, results = quietly(settings, tmp_path / "whole"), tmp_path / "broken"
    with monkeypatch.context() as patch:
        break_it(patch, at, value)
        line = stopped(quietly, settings, results, 0)
    run = run_in(results)
    step, state = load_checkpoint(run.folder / "checkpoints")
    where = f"after step {at};" if break_it is broken_update else f"at step {at} "
    assert line.startswith("the loss of debiased-s0 is not finite") and where in line, line
    assert step == at - 1 and line.endswith("the last checkpoint is kept")
    assert run.record is None and state is not None
    assert_all_kept_is_finite(run)
    assert_same(quietly(settings, results, 0), whole)


# Numbers given to public functions


def images(count=6, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count)) * 2 - 1


def spoilt(tensor, value):
    """The tensor with one of its values replaced."""
    tensor = tensor.clone() if isinstance(tensor, torch.Tensor) else np.array(tensor, dtype=np.float64)
    tensor.reshape(-1)[len(tensor) // 2] = value
    return tensor


def network(x, t):
    return 0.1 * x


def calls():
    """Pairs (function of spoilt numbers, the numbers): each refuses them, and takes them as they are."""
    x0, noise = images(), torch.randn(6, 3, 8, 8)
    given, optimal = images(4), OptimalDenoiser(images(4), SCHEDULE)
    return [
        (lambda x: one_step_estimate(network, x, 5, noise, SCHEDULE), x0),
        (lambda y: one_step_estimate(lambda x, t: y, x0, 5, noise, SCHEDULE, "sample"), x0),
        (lambda y: mse_by_timestep({"a": lambda x, t: y}, x0, [5], SCHEDULE), x0),
        (lambda y: mse_by_timestep({"a": network}, x0, [5], SCHEDULE, optimal=lambda x, t: y), x0),
        (lambda x: optimal(x, 5), x0),
        (lambda x: OptimalDenoiser(x, SCHEDULE)(x0, 5), given),
        (to_uint8, x0),
        (Schedule, SCHEDULE.alpha_bar),
        (mean_interval, np.arange(5.0)),
    ]


def test_public_functions_refuse_what_is_not_finite():
    for call, numbers in calls():
        call(numbers)  # as they are, they are right
        for value in BAD:
            stopped(call, spoilt(numbers, value))


@pytest.mark.parametrize("clip", [True, False])
def test_samples_of_a_network_that_breaks(clip):
    """Clipping would make an infinity white, and rounding a NaN black."""
    schedule = Schedule.linear(T=20)
    for sampler in SOLVERS:
        for value in BAD:

            def breaks(x, t, value=value):
                y = 0.1 * x
                if int(t[0]) < 10:
                    y[1, 0, 0, 0] = value
                return y

            given = {"sampler": sampler, "steps": 5, "clip_x0": clip, "shape": (3, 4, 4), "batch_size": 4}
            line = stopped(sample, breaks, schedule, range(6), **given)
            assert "answers are not finite at t = 5 for some of the seeds 0 to 3" in line, line  # of 19, 14, 10, 5, 0
            padding = lambda x, t, value=value: torch.where(x.flatten(1).any(dim=1).view(-1, 1, 1, 1), 0.1 * x, value)  # noqa: E731
            assert sample(padding, schedule, range(6), **given).shape == (6, 3, 4, 4)  # rows that nobody asked for
