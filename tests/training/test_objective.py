"""The loss of a training: which timesteps are drawn and how often, and one expected gradient for factor and density."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from debiaslib.diffusion.prediction import PREDICTION_TYPES
from debiaslib.diffusion.randomness import stream
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.errors import InputError
from debiaslib.training import objective
from debiaslib.training.loop import train
from debiaslib.training.objective import Objective
from tests.training import tiny

SAMPLINGS = ["uniform", "stratified", "weight"]


def config_of(**changes):
    return tiny.config(**{"dataset": "none", "images": 1000, "batch_size": 8, "lr": 5e-3, **changes})


def made(**changes):
    return Objective(config_of(**changes))


def fixed_draw(monkeypatch, values):
    """Let the next uniform numbers be these."""
    values = torch.as_tensor(values, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda size, **options: values.expand(size).clone())


def drawn(loss, steps):
    """The timesteps of the first steps, (steps, B)."""
    return torch.stack([loss.timesteps(step) for step in range(steps)])


def chi_square(counts, probabilities):
    """How many standard deviations the statistic lies above its mean."""
    wanted = counts.sum() * probabilities
    return ((((counts - wanted) ** 2) / wanted).sum() - (len(counts) - 1)) / math.sqrt(2 * (len(counts) - 1))


# which timesteps


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size, T", [(1, 1), (1, 1000), (8, 7), (7, 50), (64, 1000)])
def test_timesteps_are_those_of_the_schedule(sampling, size, T):
    loss = made(timestep_sampling=sampling, batch_size=size, timesteps=T, weighting="p2")
    t = drawn(loss, 50)
    assert t.shape == (50, size) and t.dtype == torch.int64 and t.device.type == "cpu"
    assert t.min() >= 0 and t.max() < T


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_timesteps_come_from_the_seed_and_the_step_alone(sampling):
    one = made(timestep_sampling=sampling)
    first = [one.timesteps(step) for step in range(20)]
    torch.manual_seed(5)
    again = made(timestep_sampling=sampling)
    assert all(torch.equal(again.timesteps(step), first[step]) for step in reversed(range(20)))
    other_seed = made(timestep_sampling=sampling, seed=1)
    assert not any(torch.equal(other_seed.timesteps(step), first[step]) for step in range(20))
    assert len({tuple(t.tolist()) for t in first}) == 20


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_all_weightings_of_a_seed_see_the_same_timesteps(sampling):
    draws = [drawn(made(timestep_sampling=sampling, weighting=w), 20) for w in ("constant", "debiased", "p2", "edm")]
    assert all(torch.equal(draw, draws[0]) for draw in draws)


def test_uniform_timesteps_are_those_of_earlier_versions():
    # A run made before there was a choice is gone on with.
    for step in (0, 7):
        wanted = torch.randint(1000, (8,), generator=stream(3, "timesteps", step))
        assert torch.equal(made(seed=3).timesteps(step), wanted)


@pytest.mark.parametrize("size, T", [(8, 50), (7, 50), (64, 1000), (100, 10), (1, 20)])
def test_over_all_shifts_each_stratified_timestep_is_drawn_equally_often(monkeypatch, size, T):
    loss, shifts = made(timestep_sampling="stratified", batch_size=size, timesteps=T), math.lcm(size, T)
    counts = torch.zeros(T, dtype=torch.int64)
    for j in range(shifts):
        with monkeypatch.context() as patch:
            fixed_draw(patch, (j + 0.5) / shifts)
            counts += torch.bincount(loss.timesteps(0), minlength=T)
    assert counts.tolist() == [shifts * size // T] * T


@pytest.mark.parametrize("changes", [{"weighting": "debiased"}, {"weighting": "p2"},
                                     {"weighting": "debiased", "prediction_type": "v_prediction"},
                                     {"weighting": "debiased", "max_weight": 2.0},
                                     {"weighting": "inverse_snr", "normalize_weight": True}], ids=str)  # fmt: skip
def test_timesteps_are_drawn_as_often_as_the_weight_says(changes):
    config = config_of(timestep_sampling="weight", batch_size=512, timesteps=100, **changes)
    t = drawn(Objective(config), 200).flatten()
    weight = loss_weight(config.weighting, Schedule.linear(100), config.prediction_type, max_weight=config.max_weight)
    share, counts = weight / weight.sum(), torch.bincount(t, minlength=100).double()
    standard_error = (len(t) * share * (1 - share)).sqrt()
    assert ((counts - len(t) * share).abs() / standard_error).max() < 4.5
    assert abs(chi_square(counts, share)) < 4


EDGES = [0.0, 1e-300, 0.25, 0.5, 1 - 1e-9]


@pytest.mark.parametrize("u", EDGES)
def test_a_timestep_of_zero_weight_is_never_drawn(monkeypatch, u):
    loss = made(timestep_sampling="weight", prediction_type="v_prediction", zero_terminal_snr=True)
    fixed_draw(monkeypatch, u)
    assert loss.timesteps(0).max() < 999


def test_zero_weights_anywhere(monkeypatch):
    table = torch.tensor([0.0, 0, 2, 0, 1, 1, 0, 0], dtype=torch.float64)
    monkeypatch.setattr(objective, "loss_weight", lambda *arguments, **options: table)
    loss = made(timestep_sampling="weight", batch_size=1000, timesteps=8)
    counts = torch.bincount(drawn(loss, 20).flatten(), minlength=8)
    assert counts[table == 0].tolist() == [0] * 5
    assert (counts[table > 0] / 20_000).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.015)
    for u, t in ((0.0, 2), (0.4999, 2), (0.5, 4), (0.7499, 4), (0.75, 5), (1 - 2**-53, 5)):
        with monkeypatch.context() as patch:
            fixed_draw(patch, u)
            assert set(loss.timesteps(0).tolist()) == {t}


# one expected gradient


class Toy(torch.nn.Module):
    """A linear answer with a scale that depends on t."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def forward(self, x, t):
        u = (t / 20).to(x).view(-1, 1, 1, 1)
        return x * (self.scale[0] + self.scale[1] * u + self.scale[2] * u**2)


def gradient(loss, x0, t, noise):
    toy = Toy()
    value = loss.loss(toy, x0, t, noise)[0]
    value.backward()
    return torch.cat([value.detach()[None], toy.scale.grad]).double()


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("weighting", ["debiased", "constant", "p2", "min_snr", "edm"])
def test_factor_and_density_have_one_expected_gradient(monkeypatch, kind, weighting):
    """Summed over all timesteps, each as often as it is drawn: read from the draws of a fine grid of numbers."""
    x0, noise = torch.randn(2, 1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    grid, expected = 200_000, {}
    for sampling in SAMPLINGS:
        drawing = {"timestep_sampling": sampling, "batch_size": grid, "images": grid}
        loss = made(**drawing, weighting=weighting, prediction_type=kind, timesteps=20)
        if sampling == "weight":
            with monkeypatch.context() as patch:
                fixed_draw(patch, (torch.arange(grid) + 0.5) / grid)
                probability = torch.bincount(loss.timesteps(0), minlength=20) / grid
        else:
            probability = torch.full((20,), 1 / 20)
        expected[sampling] = sum(p * gradient(loss, x0, torch.tensor([t]), noise) for t, p in enumerate(probability))
    for sampling in ("stratified", "weight"):
        distance = (expected[sampling] - expected["uniform"]).norm() / expected["uniform"].norm()
        assert distance < (1e-6 if sampling == "stratified" else 2e-4)


@pytest.mark.parametrize("changes", [{}, {"normalize_weight": True}, {"max_weight": 3.0}], ids=str)
def test_the_factor(changes):
    config = config_of(**changes)
    table = loss_weight("debiased", Schedule.linear(), normalize=config.normalize_weight, max_weight=config.max_weight)
    for sampling in SAMPLINGS:
        factor = made(timestep_sampling=sampling, **changes).factor
        assert factor.dtype == torch.float32 and factor.shape == (1000,)
        wanted = table.mean().expand(1000) if sampling == "weight" else table
        assert np.allclose(factor.numpy(), wanted.numpy(), rtol=1e-6, atol=0)


# SNR = 0 at the last step


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    """A folder of images that can be learned in a few steps."""
    folder = tmp_path_factory.mktemp("red")
    for i in range(8):
        Image.new("RGB", (8, 8), (220 + i, 30, 30)).save(folder / f"{i}.png")
    return {"dataset": str(folder), "images": 60 * 8}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_debiased_weight_of_v_trains_at_zero_terminal_snr(red, tmp_path, sampling):
    config = config_of(
        **red, prediction_type="v_prediction", zero_terminal_snr=True, schedule="cosine", timestep_sampling=sampling
    )
    rows = train(config, tmp_path, "test", progress=False).log()
    assert all(math.isfinite(value) for row in rows for value in row.values())
    early, late = (np.mean([row["loss"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert late < 0.8 * early


IMPOSSIBLE = [
    ({"zero_terminal_snr": True}, ("v_prediction", "max_weight")),
    ({"zero_terminal_snr": True, "timestep_sampling": "weight"}, ("v_prediction", "max_weight")),
    ({"zero_terminal_snr": True, "weighting": "p2(k=0,gamma=2)", "prediction_type": "v_prediction"}, ("max_weight",)),
    ({"zero_terminal_snr": True, "prediction_type": "v_prediction", "normalize_weight": True}, ("max_weight",)),
    ({"zero_terminal_snr": True, "timesteps": 1}, ("T is 1",)),
]


@pytest.mark.parametrize("changes, named", IMPOSSIBLE, ids=str)
def test_an_infinite_weight_is_refused_in_one_line(red, tmp_path, changes, named):
    with pytest.raises(InputError) as caught:
        train(config_of(**red, **changes), tmp_path, "test", progress=False)
    line = str(caught.value)
    assert "\n" not in line and all(part in line for part in named)
    if changes.get("prediction_type") == "v_prediction":
        assert "use prediction_type='v_prediction'" not in line
    assert not list(tmp_path.rglob("*.json"))  # before anything is written
