"""Solvers: the authors' timesteps, the order on a Gaussian's exact flow, the variances."""

import numpy as np
import pytest
import torch

from debiaslib.diffusion.optimum import GaussianDenoiser
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.solvers import SOLVERS, respaced_timesteps, solver
from debiaslib.study.experiment import SAMPLERS

MEAN = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0, 0, 0], [0.2, 0.3, 0, 0], [-0.1, 0.1, 0.2, 0], [0, 0.3, 0.1, 0.1]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
START = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FINE = Schedule.linear(T=4097, beta_start=0.1 / 4097, beta_end=20 / 4097)  # DDPM's in continuous time, on a fine grid


def exact(schedule, ab):
    """Where the flow takes x_T by alpha_bar = ab: (x_t - a mean) keeps its place in units of sqrt(a^2 C + s^2 I)."""
    values, axes = torch.linalg.eigh(COVARIANCE)
    first, ab = schedule.alpha_bar[-1], torch.as_tensor(ab, dtype=torch.float64)
    place = (START - first.sqrt() * MEAN) @ axes / (first * values + 1 - first).sqrt()
    return ab.sqrt() * MEAN + (place * (ab * values + 1 - ab).sqrt()) @ axes.T


def walk(schedule, steps, until=None):
    """DDIM's x in float64 at the timestep `until`, or at the end."""
    denoiser, taken, x = GaussianDenoiser(MEAN, COVARIANCE, schedule), solver("ddim", steps, schedule), START
    for i, t in enumerate(taken.timesteps):
        x0, (a, s) = denoiser(x, t), schedule.scales(t, x)
        if t == until:
            return x
        x = taken.step(i, x, x0, (x - a * x0) / s, None, None)
    return x


def errors(schedule, end, steps, until=None):
    return [(walk(schedule, number, until) - end).square().mean().sqrt().item() for number in steps]


def test_one_list_of_samplers():
    assert tuple(SOLVERS) == SAMPLERS


def authors(steps, T):
    """guided-diffusion's space_timesteps as it is written: a running sum of a fractional stride, rounded."""
    stride, position, chosen = (T - 1) / (steps - 1), 0.0, []
    for _ in range(steps):
        chosen.append(round(position))
        position += stride
    return chosen[::-1]


def test_respacing_is_that_of_the_authors_for_every_count():
    for steps in range(2, 1001):
        assert respaced_timesteps(steps, 1000) == authors(steps, 1000)
    assert respaced_timesteps(21, 1000)[10] == 499  # 499.5, less what the running sum lost
    assert respaced_timesteps(1, 1000) == [999] and respaced_timesteps(1, 1) == [0]  # theirs is 0
    assert respaced_timesteps(7, 7) == [6, 5, 4, 3, 2, 1, 0]
    assert solver("ddim", 5, Schedule.linear()).timesteps == [999, 749, 500, 250, 0]


def test_ddim_is_of_order_one_over_the_steps_before_the_last():
    """From T-1 to a quarter of it, with 48, 96 and 192 steps."""
    found = errors(FINE, exact(FINE, FINE.alpha_bar[1024]), (65, 129, 257), until=1024)
    assert all(abs(np.log2(a / b) - 1) < 0.5 for a, b in zip(found, found[1:], strict=False)), found


def test_the_whole_way_ends_at_the_exact_map():
    """The end is x0_hat at t = 0, which differs from the flow's end by what noise is left."""
    schedule = Schedule.linear(T=2049, beta_start=0.1 / 2049, beta_end=20 / 2049)
    found = errors(schedule, exact(schedule, 1.0), (33, 129, 257))
    assert found == sorted(found, reverse=True) and found[-1] < 6e-3, found


def test_from_zero_terminal_snr():
    schedule = FINE.rescale_zero_terminal_snr()
    found = errors(schedule, exact(schedule, schedule.alpha_bar[1024]), (65, 129, 257), until=1024)
    assert found == sorted(found, reverse=True) and found[-1] < 2e-3, found


def test_the_last_step_gives_x0_hat():
    x0 = torch.full((1, 2), 3.0)
    for sampler in SAMPLERS:
        for steps in (1, 2, 8):
            taken = solver(sampler, steps, FINE)
            assert len(taken.timesteps) == len(taken.tables) == steps
            assert torch.equal(taken.step(steps - 1, torch.ones(1, 2), x0, x0, None, None), x0)


def test_fixed_variances_and_a_learned_one_between_them():
    """values -1 is the posterior's variance, 1 is beta."""
    zero, one = torch.zeros(1), torch.ones(1)
    small = solver("ddpm", 6, FINE)
    alpha_bar = FINE.alpha_bar[small.timesteps].tolist()
    for i in range(5):
        ab, after = alpha_bar[i : i + 2]
        beta = 1 - ab / after
        posterior = beta * (1 - after) / (1 - ab)
        assert small.step(i, zero, zero, zero, one, None).item() == pytest.approx(posterior**0.5, rel=1e-6)
        for values, variance in ((-one, posterior), (one, beta), (0 * one, (posterior * beta) ** 0.5)):
            assert small.step(i, zero, zero, zero, one, values).item() == pytest.approx(variance**0.5, rel=1e-6)
