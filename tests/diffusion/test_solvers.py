"""Solvers: their order on a Gaussian's exact flow, DDIM as the measure, their weights by quadrature, diffusers."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from debiaslib.diffusion.optimum import GaussianDenoiser
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.solvers import MULTISTEP, SOLVERS, respaced_timesteps, solver
from debiaslib.errors import InputError
from debiaslib.study.experiment import SAMPLERS

MEAN = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0, 0, 0], [0.2, 0.3, 0, 0], [-0.1, 0.1, 0.2, 0], [0, 0.3, 0.1, 0.1]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
START = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LINEAR = Schedule.linear()
FINE = Schedule.linear(T=4097, beta_start=0.1 / 4097, beta_end=20 / 4097)  # DDPM's in continuous time, on a fine grid


def exact(schedule, ab, start=START):
    """Where the flow takes x_T by alpha_bar = ab: (x_t - a mean) keeps its place in units of sqrt(a^2 C + s^2 I)."""
    values, axes = torch.linalg.eigh(COVARIANCE)
    first, ab = schedule.alpha_bar[-1], torch.as_tensor(ab, dtype=torch.float64)
    place = (start - first.sqrt() * MEAN) @ axes / (first * values + 1 - first).sqrt()
    return ab.sqrt() * MEAN + (place * (ab * values + 1 - ab).sqrt()) @ axes.T


def walk(sampler, schedule, steps, denoiser, start=START, until=None):
    """x in float64 at the timestep `until`, or at the end."""
    taken, x = solver(sampler, steps, schedule), start
    taken.start()
    for i, t in enumerate(taken.timesteps):
        x0, (a, s) = denoiser(x, t), schedule.scales(t, x)
        if t == until:
            return x
        x = taken.step(i, x, x0, (x - a * x0) / s, None, None)
    return x


def error(x, y):
    return (x - y).square().mean().sqrt().item()


def test_one_list_of_samplers():
    assert tuple(SOLVERS) == SAMPLERS and set(MULTISTEP) < set(SAMPLERS)


# Timesteps


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


def test_the_timesteps_of_the_calls():
    assert solver("ddim", 5, LINEAR).timesteps == [999, 749, 500, 250, 0]
    assert solver("unipc", 4, LINEAR).timesteps == [999, 749, 500, 250]  # as many calls as steps, and x at t = 0
    assert len(solver("unipc", 999, LINEAR).timesteps) == 999
    with pytest.raises(InputError, match="steps is 1000; it must be a whole number >= 1 and <= 999"):
        solver("unipc", 1000, LINEAR)


# Order


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm-solver-2", 2), ("unipc", 4)])
def test_order_over_the_steps_before_the_last(sampler, order):
    """From T-1 to a quarter of it, with 48, 96 and 192 steps; UniPC of order 3 with its corrector is of order 4.

    The multistep solvers' first steps are of lower order. Where the noise hides the images that costs next to nothing.
    """
    arrival, denoiser = exact(FINE, FINE.alpha_bar[1024]), GaussianDenoiser(MEAN, COVARIANCE, FINE)
    errors = []
    for calls in (64, 128, 256):
        steps = calls if sampler in MULTISTEP else calls + 1
        errors.append(error(walk(sampler, FINE, steps, denoiser, until=1024), arrival))
    orders = [np.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(found - order) < 0.5 for found in orders), (errors, orders)


@pytest.mark.parametrize("sampler", ["ddim", *MULTISTEP])
def test_the_whole_way_ends_at_the_exact_map(sampler):
    """The end is t = 0 or x0_hat there, which differ from the flow's end by what noise is left."""
    schedule = Schedule.linear(T=2049, beta_start=0.1 / 2049, beta_end=20 / 2049)
    denoiser, end = GaussianDenoiser(MEAN, COVARIANCE, schedule), exact(schedule, 1.0)
    errors = [error(walk(sampler, schedule, steps, denoiser), end) for steps in (33, 129, 257)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 6e-3, errors


def test_from_zero_terminal_snr():
    """DDIM starts from noise alone; on the axis of log SNR that start lies infinitely far away."""
    schedule = FINE.rescale_zero_terminal_snr()
    denoiser, arrival = GaussianDenoiser(MEAN, COVARIANCE, schedule), exact(schedule, schedule.alpha_bar[1024])
    errors = [error(walk("ddim", schedule, steps, denoiser, until=1024), arrival) for steps in (65, 129, 257)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-3, errors
    for sampler in MULTISTEP:
        with pytest.raises(InputError, match=f"sampler '{sampler}' is not defined from SNR = 0; use 'ddim' or 'ddpm'"):
            solver(sampler, 2, schedule)


# Weights

CHAINS = st.lists(st.floats(0.2, 1.5), min_size=7, max_size=7).map(lambda gaps: np.cumsum(gaps) - 4)


def integral(a, lam, i, x0_hat):
    """What x0_hat(lambda) adds from node i to the next: a' times the integral of e^(lambda - lambda') x0_hat."""
    return a[i + 1] * quad(lambda u: np.exp(u - lam[i + 1]) * x0_hat(u), lam[i], lam[i + 1], epsabs=1e-13)[0]


def from_lambda(lam):
    """alpha_bar of a chain with these half log SNR."""
    return 1 / (1 + np.exp(-2 * np.asarray(lam)))


@given(CHAINS, st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_unipc_integrates_a_polynomial_exactly(lam, coefficients):
    """Its predictor a quadratic, by the last three nodes; its corrector a cubic, by the node ahead too."""
    a, i = np.sqrt(from_lambda(lam)), 3  # three nodes behind, and not near the end
    quadratic, cubic = np.poly1d(coefficients[1:]), np.poly1d(coefficients)
    behind = [lam[i - j] for j in range(3)]
    keep, predict, correct = SOLVERS["unipc"](from_lambda(lam)).tables[i]
    assert keep == pytest.approx(a[i + 1] * np.exp(-lam[i + 1]) / (a[i] * np.exp(-lam[i])))
    assert predict @ quadratic(behind) == pytest.approx(integral(a, lam, i, quadratic), abs=1e-7)
    assert correct @ cubic([lam[i + 1], *behind]) == pytest.approx(integral(a, lam, i, cubic), abs=1e-7)


def test_the_orders_of_the_steps():
    """1, 2, 3, ... at the start; UniPC falls to 1 at the end, DPM-Solver with fewer than 15 steps alone."""
    orders = {steps: [[len(table[1]) for table in solver(sampler, steps, FINE).tables] for sampler in MULTISTEP]
              for steps in (1, 3, 8, 15)}  # fmt: skip
    assert orders[1] == [[1], [1]] and orders[3] == [[1, 2, 1], [1, 2, 1]]
    assert orders[8] == [[1, 2, 2, 2, 2, 2, 2, 1], [1, 2, 3, 3, 3, 3, 2, 1]]
    assert orders[15] == [[1] + [2] * 14, [1, 2] + [3] * 11 + [2, 1]]


# Against diffusers


def stand_in(x, t):
    """Some estimate of x0, not linear in x."""
    return torch.tanh(1.3 * x + 0.2) * (1 - 0.3 * t / 1000) + 0.1 * x.flip(-1)


@pytest.mark.parametrize("steps", [1, 3, 14, 15, 37])
@pytest.mark.parametrize("sampler", MULTISTEP)
def test_diffusers_set_as_the_authors_run_them(sampler, steps):
    """Its spacing "linspace" with "sigma_min" at the end is the authors' grid, rounded to whole timesteps."""
    common = {"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min", "prediction_type": "sample"}
    if sampler == "unipc":
        scheduler = UniPCMultistepScheduler(solver_order=3, solver_type="bh1", predict_x0=True, **common)
    else:
        scheduler = DPMSolverMultistepScheduler(solver_order=2, algorithm_type="dpmsolver", solver_type="midpoint",
                                                **common)  # fmt: skip
    scheduler.set_timesteps(steps)
    timesteps = solver(sampler, steps, LINEAR).timesteps
    scheduler.timesteps = torch.tensor(timesteps)  # 37 + 1 is one of the counts where the running sum rounds otherwise
    scheduler.sigmas = (1 / LINEAR.alpha_bar[[*timesteps, 0]] - 1).sqrt()
    x = START
    for t in timesteps:
        x = scheduler.step(stand_in(x, t), t, x).prev_sample
    assert (walk(sampler, LINEAR, steps, stand_in) - x).abs().max() < 1e-4


# The interface


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_draws_and_the_last_step(sampler, steps):
    taken = solver(sampler, steps, FINE)
    assert len(taken.timesteps) == len(taken.tables) == steps
    assert [taken.draws(i) for i in range(steps)] == [sampler.startswith("ddpm")] * (steps - 1) + [False]
    if sampler not in MULTISTEP:
        x0 = torch.full((1, 2), 3.0)
        assert torch.equal(taken.step(steps - 1, torch.ones(1, 2), x0, x0, None, None), x0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_left_of_the_batch_before_and_what_is_given_is_kept(sampler):
    taken, results = solver(sampler, 6, FINE), []
    for x in (START, START + 1, START):
        taken.start()
        for i in range(6):
            given = [x, stand_in(x, i), stand_in(x, i) / 2, torch.ones_like(x) if taken.draws(i) else None]
            before = [None if one is None else one.clone() for one in given]
            x = taken.step(i, *given, None)
            assert all(one is None or torch.equal(one, other) for one, other in zip(given, before, strict=True))
        results.append(x)
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


def test_fixed_variances_and_a_learned_one_between_them():
    """values -1 is the posterior's variance, 1 is beta; "ddpm-large" does not ask the network."""
    zero, one = torch.zeros(1), torch.ones(1)
    small, large = (solver(name, 6, FINE) for name in ("ddpm", "ddpm-large"))
    alpha_bar = FINE.alpha_bar[small.timesteps].tolist()
    for i in range(5):
        ab, after = alpha_bar[i : i + 2]
        beta = 1 - ab / after
        posterior = beta * (1 - after) / (1 - ab)
        assert small.step(i, zero, zero, zero, one, None).item() == pytest.approx(posterior**0.5, rel=1e-6)
        for values, variance in ((-one, posterior), (one, beta), (0 * one, (posterior * beta) ** 0.5)):
            assert small.step(i, zero, zero, zero, one, values).item() == pytest.approx(variance**0.5, rel=1e-6)
            assert large.step(i, zero, zero, zero, one, values).item() == pytest.approx(beta**0.5, rel=1e-6)


def test_what_is_refused():
    for sampler in SAMPLERS[1:]:
        with pytest.raises(InputError, match=f"eta is 0.5; it is the noise of 'ddim', and the sampler is '{sampler}'"):
            solver(sampler, 5, LINEAR, eta=0.5)
    with pytest.raises(InputError, match="sampler 'dpm-solver' is unknown; did you mean 'dpm-solver-2'"):
        solver("dpm-solver", 5, LINEAR)
