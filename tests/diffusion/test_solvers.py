"""Solvers: their order on a Gaussian's exact flow, their weights against quadrature, Karras' form and diffusers."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from debiaslib.diffusion.optimum import GaussianDenoiser
from debiaslib.diffusion.sampling import respaced_timesteps
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.solvers import SOLVERS, evaluations, solver
from debiaslib.errors import InputError
from debiaslib.study.experiment import SAMPLERS

MULTISTEP = ("dpm-solver++2", "dpm-solver++3", "unipc")
DETERMINISTIC = ("ddim", *MULTISTEP, "heun")

MEAN = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0, 0, 0], [0.2, 0.3, 0, 0], [-0.1, 0.1, 0.2, 0], [0, 0.3, 0.1, 0.1]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
START = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FINE = Schedule.linear(T=4097, beta_start=0.1 / 4097, beta_end=20 / 4097)  # DDPM's in continuous time, on a fine grid


def chain(schedule, steps):
    """(timesteps, alpha_bar of the chain with its end)."""
    timesteps = respaced_timesteps(steps, schedule.T)
    return timesteps, [*schedule.alpha_bar[timesteps].tolist(), 1.0]


def exact(schedule, t, start=START):
    """Where the flow takes x_T by t: (x_t - a mean) keeps its place in units of sqrt(a^2 C + s^2 I)."""
    values, axes = torch.linalg.eigh(COVARIANCE)

    def widths(ab):
        return (ab * values + 1 - ab).sqrt()

    first, ab = schedule.alpha_bar[-1], schedule.alpha_bar[t]
    return ab.sqrt() * MEAN + ((start - first.sqrt() * MEAN) @ axes / widths(first) * widths(ab)) @ axes.T


def walk(sampler, schedule, steps, until=None):
    """x in float64 at the timestep `until`, or at the end; each call's (t, x) goes to the Gaussian's denoiser."""
    denoiser, (timesteps, alpha_bar) = GaussianDenoiser(MEAN, COVARIANCE, schedule), chain(schedule, steps)
    taken, x = solver(sampler, alpha_bar), START
    taken.start()
    for call, node in enumerate(taken.nodes):
        t = timesteps[node]
        if t == until and taken.nodes[call + 1] != node:  # the last call there: heun's first one is at the DDIM step
            return x
        x0 = denoiser(x, t)
        a, s = schedule.scales(t, x)
        x = taken.step(call, x, x0, (x - a * x0) / s, None, None)
    return x


def error(x, y):
    return (x - y).square().mean().sqrt().item()


def test_one_list_of_samplers():
    assert tuple(SOLVERS) == SAMPLERS


# Order


@pytest.mark.parametrize(
    ("sampler", "order"), [("ddim", 1), ("dpm-solver++2", 2), ("heun", 2), ("dpm-solver++3", 3), ("unipc", 4)]
)
def test_order_over_the_steps_before_the_last(sampler, order):
    """From T-1 to a quarter of it, with 48, 96 and 192 steps; UniPC of order 3 with its corrector is of order 4.

    The multistep solvers' first steps are of lower order. Where the noise hides the images that costs next to nothing.
    """
    arrival = exact(FINE, 1024)
    errors = [error(walk(sampler, FINE, steps, until=1024), arrival) for steps in (65, 129, 257)]
    orders = [np.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(found - order) < 0.35 for found in orders), (errors, orders)
    assert errors[-1] < 4e-3 * 0.05 ** (order - 1)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_the_whole_way_ends_at_the_exact_map(sampler):
    """The last step gives x0_hat at t = 0, which differs from the flow's end by what noise is left there."""
    schedule = Schedule.linear(T=2049, beta_start=0.1 / 2049, beta_end=20 / 2049)
    values, axes = torch.linalg.eigh(COVARIANCE)
    first = schedule.alpha_bar[-1]
    place = (START - first.sqrt() * MEAN) @ axes / (first * values + 1 - first).sqrt()
    end = MEAN + (place * values.sqrt()) @ axes.T
    errors = [error(walk(sampler, schedule, steps), end) for steps in (33, 129, 257)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 6e-3, errors


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++2", "dpm-solver++3"])
def test_the_way_from_zero_terminal_snr(sampler):
    """There x_T is noise alone and lambda is -inf: the first step is DDIM's, and the node tells nothing of slopes."""
    schedule = FINE.rescale_zero_terminal_snr()
    arrival = exact(schedule, 1024)
    errors = [error(walk(sampler, schedule, steps, until=1024), arrival) for steps in (65, 129, 257)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-3, errors


@pytest.mark.parametrize("sampler", ["unipc", "heun"])
def test_refused_from_zero_terminal_snr_but_for_one_step(sampler):
    schedule = FINE.rescale_zero_terminal_snr()
    with pytest.raises(InputError, match=f"sampler '{sampler}' is not defined from SNR = 0; use"):
        solver(sampler, chain(schedule, 2)[1])
    assert solver(sampler, chain(schedule, 1)[1]).nodes == [0]


# Weights


def integral(a, lam, i, x0_hat):
    """What x0_hat(lambda) adds from node i to the next: a' times the integral of e^(lambda - lambda') x0_hat."""
    return a[i + 1] * quad(lambda u: np.exp(u - lam[i + 1]) * x0_hat(u), lam[i], lam[i + 1], epsabs=1e-13)[0]


CHAINS = st.lists(st.floats(0.2, 1.5), min_size=7, max_size=7).map(lambda gaps: np.cumsum(gaps) - 4)


def from_lambda(lam):
    """alpha_bar of a chain with these half log SNR."""
    return [*(1 / (1 + np.exp(-2 * np.asarray(lam)))), 1.0]


@given(CHAINS, st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_a_polynomial_is_integrated_exactly(lam, coefficients):
    """Of degree k - 1 by k nodes: dpm-solver++3 and UniPC's predictor a quadratic, UniPC's corrector a cubic."""
    a = np.sqrt(from_lambda(lam))
    i = 3  # three nodes behind, and not near the end
    quadratic, cubic = np.poly1d(coefficients[1:]), np.poly1d(coefficients)
    behind = [lam[i - j] for j in range(3)]
    keep, weights = solver("dpm-solver++3", from_lambda(lam)).tables[i]
    assert weights @ quadratic(behind) == pytest.approx(integral(a, lam, i, quadratic), abs=1e-7)
    assert keep == pytest.approx(a[i + 1] * np.exp(-lam[i + 1]) / (a[i] * np.exp(-lam[i])))
    keep, predict, correct = solver("unipc", from_lambda(lam)).tables[i]
    assert predict @ quadratic(behind) == pytest.approx(integral(a, lam, i, quadratic), abs=1e-7)
    assert correct @ cubic([lam[i + 1], *behind]) == pytest.approx(integral(a, lam, i, cubic), abs=1e-7)


@given(CHAINS, st.floats(-2, 2))
def test_a_constant_is_integrated_exactly_in_every_step(lam, level):
    a = np.sqrt(from_lambda(lam))
    for sampler in MULTISTEP:
        for i, (_, *tables) in enumerate(solver(sampler, from_lambda(lam)).tables):
            expected = integral(a, lam, i, lambda u: level)
            assert all(weights.sum() * level == pytest.approx(expected, abs=1e-9) for weights in tables)


@given(CHAINS)
def test_order_two_is_algorithm_two(lam):
    """Lu et al. 2022b: D = (1 + 1/(2r)) m_(i-1) - 1/(2r) m_(i-2) with r = h_(i-1) / h_i, weighted a' (1 - e^-h)."""
    a = np.sqrt(from_lambda(lam))
    for i, (_, weights) in enumerate(solver("dpm-solver++2", from_lambda(lam)).tables):
        h = lam[i + 1] - lam[i]
        expected = np.array([1.0])
        if i > 0:
            r = (lam[i] - lam[i - 1]) / h
            expected = np.array([1 + 1 / (2 * r), -1 / (2 * r)])
        assert weights == pytest.approx(a[i + 1] * (1 - np.exp(-h)) * expected, rel=1e-9)


def test_the_orders_of_the_steps():
    """1, 2, 3, ... at the start, and 2 before the last step, which has no table because it gives x0_hat itself."""
    for sampler, most in (("dpm-solver++2", 2), ("dpm-solver++3", 3), ("unipc", 3)):
        tables = solver(sampler, chain(FINE, 8)[1]).tables
        assert [len(table[1]) for table in tables] == [1, 2, most, most, most, most, 2]
    tables = solver("dpm-solver++3", chain(FINE.rescale_zero_terminal_snr(), 8)[1]).tables
    assert [len(table[1]) for table in tables] == [1, 1, 2, 3, 3, 3, 2]


# Against others


def stand_in(x, t):
    """Some estimate of x0, not linear in x."""
    return torch.tanh(1.3 * x + 0.2) * (1 - 0.3 * t / 1000) + 0.1 * x.flip(-1)


def run(sampler, schedule, steps, x):
    timesteps, alpha_bar = chain(schedule, steps)
    taken = solver(sampler, alpha_bar)
    taken.start()
    for call, node in enumerate(taken.nodes):
        x0 = stand_in(x, timesteps[node])
        a, s = schedule.scales(timesteps[node], x)
        x = taken.step(call, x, x0, (x - a * x0) / s, None, None)
    return x


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
def test_heun_is_the_published_one(steps):
    """Karras et al. 2022, algorithm 1 with S_churn = 0, in x/a and sigma = s/a, which is 0 at the end."""
    schedule = Schedule.linear()
    timesteps, alpha_bar = chain(schedule, steps)
    sigma = np.append(np.sqrt(1 / np.array(alpha_bar[:-1]) - 1), 0.0)

    def slope(y, i):
        return (y - stand_in(y / (1 + sigma[i] ** 2) ** 0.5, timesteps[i])) / sigma[i]

    y = START * (1 + sigma[0] ** 2) ** 0.5
    for i in range(steps):
        d = slope(y, i)
        ahead = y + (sigma[i + 1] - sigma[i]) * d
        if sigma[i + 1] > 0:
            ahead = y + (sigma[i + 1] - sigma[i]) / 2 * (d + slope(ahead, i + 1))
        y = ahead
    found = run("heun", schedule, steps, START)
    assert (found - y).abs().max() < 1e-8 * max(1, y.abs().max())


def library(scheduler, schedule, steps, x):
    """The same walk by a scheduler of diffusers, given our timesteps: it has no setting for the paper's spacing."""
    timesteps, alpha_bar = chain(schedule, steps)
    scheduler.set_timesteps(steps)
    scheduler.timesteps = torch.tensor(timesteps)
    scheduler.sigmas = (1 / torch.tensor(alpha_bar, dtype=torch.float64) - 1).sqrt()
    for t in timesteps:
        x = scheduler.step(stand_in(x, t), t, x).prev_sample
    return x.double()


@pytest.mark.parametrize("steps", [2, 3, 5, 14])
@pytest.mark.parametrize(
    ("sampler", "kind", "order"),
    [("dpm-solver++2", DPMSolverMultistepScheduler, 2), ("unipc", UniPCMultistepScheduler, 3)],
)
def test_diffusers_agrees_once_it_is_given_the_timesteps(sampler, kind, order, steps):
    scheduler = kind(solver_order=order, prediction_type="sample", final_sigmas_type="zero")
    theirs = library(scheduler, Schedule.linear(), steps, START)
    assert (run(sampler, Schedule.linear(), steps, START) - theirs).abs().max() < 1e-4


def test_order_three_of_diffusers_is_of_order_two():
    """Its last term has half its weight, so a quadratic is not integrated exactly; ours is a step of its own."""
    ours = run("dpm-solver++3", Schedule.linear(), 12, START)
    scheduler = DPMSolverMultistepScheduler(solver_order=3, prediction_type="sample", final_sigmas_type="zero")
    assert (library(scheduler, Schedule.linear(), 12, START) - ours).abs().max() > 1e-3
    denoiser, arrival, errors = GaussianDenoiser(MEAN, COVARIANCE, FINE), exact(FINE, 1024), []
    for steps in (65, 129, 257):
        timesteps, alpha_bar = chain(FINE, steps)
        scheduler.set_timesteps(steps)
        scheduler.timesteps, x = torch.tensor(timesteps), START
        scheduler.sigmas = (1 / torch.tensor(alpha_bar, dtype=torch.float64) - 1).sqrt()
        for t in timesteps[: timesteps.index(1024)]:
            x = scheduler.step(denoiser(x, t), t, x).prev_sample.double()
        errors.append(error(x, arrival))
    orders = [np.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(1.6 < order < 2.4 for order in orders), (errors, orders)


# The interface


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_nodes_evaluations_and_the_last_step(sampler, steps):
    taken = solver(sampler, chain(FINE, steps)[1])
    assert len(taken.nodes) == evaluations(sampler, steps) == (2 * steps - 1 if sampler == "heun" else steps)
    assert sorted(set(taken.nodes)) == list(range(steps)) and taken.nodes == sorted(taken.nodes)
    last = len(taken.nodes) - 1
    assert [taken.draws(call) for call in range(last + 1)] == [sampler.startswith("ddpm")] * last + [False]
    taken.start()
    answers = [torch.full((1, 2), float(call)) for call in range(last + 1)]
    x = torch.ones(1, 2)
    for call, x0 in enumerate(answers):
        x = taken.step(call, x, x0, x0, None, None)
    assert torch.equal(x, answers[-1])


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_nothing_is_left_of_the_batch_before(sampler):
    taken, results = solver(sampler, chain(FINE, 6)[1]), []
    for x in (START, START + 1, START):
        taken.start()
        for call, node in enumerate(taken.nodes):
            x0 = stand_in(x, node)
            x = taken.step(call, x, x0, x0, None, None)
        results.append(x)
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_given_is_left_as_it_is(sampler):
    taken = solver(sampler, chain(FINE, 4)[1])
    taken.start()
    x, kept = START, []
    for call, node in enumerate(taken.nodes):
        tensors = [x, stand_in(x, node), stand_in(x, node) / 2, torch.ones_like(x)]
        kept += [(tensor, tensor.clone()) for tensor in tensors]
        x = taken.step(call, *tensors[:3], tensors[3] if taken.draws(call) else None, None)
    assert all(torch.equal(*pair) for pair in kept)


def test_fixed_variances_and_a_learned_one_between_them():
    """values -1 is the posterior's variance, 1 is beta; "ddpm-large" does not ask the network."""
    _, alpha_bar = chain(FINE, 6)
    zero, one = torch.zeros(1), torch.ones(1)
    for call in range(5):
        ab, after = alpha_bar[call : call + 2]
        beta = 1 - ab / after
        small, large = (solver(name, alpha_bar) for name in ("ddpm", "ddpm-large"))
        posterior = beta * (1 - after) / (1 - ab)
        assert small.step(call, zero, zero, zero, one, None).item() == pytest.approx(posterior**0.5, rel=1e-6)
        assert large.step(call, zero, zero, zero, one, None).item() == pytest.approx(beta**0.5, rel=1e-6)
        for values, variance in ((-one, posterior), (one, beta), (0 * one, (posterior * beta) ** 0.5)):
            assert small.step(call, zero, zero, zero, one, values).item() == pytest.approx(variance**0.5, rel=1e-6)
            assert large.step(call, zero, zero, zero, one, values).item() == pytest.approx(beta**0.5, rel=1e-6)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "ddim"])
def test_eta_is_ddims_alone(sampler):
    with pytest.raises(InputError, match="eta is 0.5; it is the noise of 'ddim', and") as caught:
        solver(sampler, [0.5, 1.0], eta=0.5)
    assert str(caught.value).endswith(f"the sampler is {sampler!r}")


def test_unknown():
    for ask in (lambda: solver("dpm-solver++", [0.5, 1.0]), lambda: evaluations("dpm-solver++", 5)):
        with pytest.raises(InputError, match="sampler 'dpm-solver\\+\\+' is unknown; did you mean 'dpm-solver\\+\\+"):
            ask()
    with pytest.raises(InputError, match="steps is 0"):
        evaluations("heun", 0)
