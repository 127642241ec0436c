"""Learned variance against scipy, torch.distributions, mpmath, diffusers and a transcription of the published code."""

import math

import mpmath
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from debiaslib.diffusion.prediction import PREDICTION_TYPES, prediction_target, to_x0_epsilon
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.variance import hybrid_term, log_variance, split_variance, variational_bound
from debiaslib.errors import InputError

LINEAR = Schedule.linear()
COSINE = Schedule.cosine()
ZERO_TERMINAL = LINEAR.rescale_zero_terminal_snr()
EVERY_T = torch.arange(1000)
SOME_T = torch.tensor([0, 1, 2, 10, 250, 500, 998, 999])


def levels(*shape, seed=0, dtype=torch.float64):
    """uint8 images in [-1, 1], many pixels at the two ends."""
    pixels = torch.randint(-40, 296, shape, generator=torch.Generator().manual_seed(seed)).clamp(0, 255)
    return pixels.to(dtype) / 127.5 - 1


def normals(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def case(t, schedule, kind, *, wrong=0.1, seed=0, size=(3, 2, 2)):
    """(prediction, variance values, x0, x_t) of a network whose x0_hat is wrong by about `wrong`; v within [-1, 1]."""
    x0, noise, mistake, v = (f(len(t), *size, seed=seed + i) for i, f in enumerate([levels, normals, normals, normals]))
    x_t = schedule.add_noise(x0, noise, t)
    x0_hat = x0 + wrong * mistake
    a, s = schedule.scales(t, x0)
    return prediction_target(x0_hat, (x_t - a * x0_hat) / s, t, schedule, kind), v.tanh(), x0, x_t


def oracle(betas, t, x0, x_t, x0_hat, v):
    """The bound of one image in float64 numpy, from the betas and the textbook's formulas, term by term."""
    alpha_bar = np.cumprod(1 - betas)
    previous = np.append(1.0, alpha_bar[:-1])
    variances = betas * (1 - previous) / (1 - alpha_bar)
    clipped = np.append(variances[1], variances[1:])
    log_sigma2 = (v + 1) / 2 * np.log(betas[t]) + (1 - v) / 2 * np.log(clipped[t])

    def mean(x):
        factor = np.sqrt(1 - betas[t]) * (1 - previous[t]) / (1 - alpha_bar[t])
        return np.sqrt(previous[t]) * betas[t] / (1 - alpha_bar[t]) * x + factor * x_t

    if t > 0:
        q = torch.distributions.Normal(torch.from_numpy(mean(x0)), math.sqrt(variances[t]))
        p = torch.distributions.Normal(torch.from_numpy(mean(x0_hat)), torch.from_numpy(np.exp(log_sigma2 / 2)))
        return torch.distributions.kl_divergence(q, p).mean().item() / math.log(2)
    centre, scale = mean(x0_hat), np.exp(log_sigma2 / 2)
    upper = np.where(x0 > 0.999, 1.0, norm.cdf(x0 + 1 / 255, centre, scale))
    lower = np.where(x0 < -0.999, 0.0, norm.cdf(x0 - 1 / 255, centre, scale))
    return -np.log2(upper - lower).mean()


def check_against_oracle(betas, schedule, t, kind, wrong, seed, atol):
    prediction, v, x0, x_t = case(t, schedule, kind, wrong=wrong, seed=seed)
    x0_hat = to_x0_epsilon(prediction, x_t, t, schedule, kind)[0]
    bound = variational_bound(prediction, v, x0, x_t, t, schedule, kind)
    assert bound.shape == (len(t),) and bound.dtype == torch.float64
    for i, step in enumerate(t.tolist()):
        wanted = oracle(betas, step, *(tensor[i].numpy() for tensor in (x0, x_t, x0_hat, v)))
        assert bound[i].item() == pytest.approx(wanted, rel=1e-7, abs=atol), step


# the value of the variance


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, ZERO_TERMINAL], ids=lambda s: s.name)
def test_the_variance_is_that_of_diffusers(schedule):
    scheduler = DDPMScheduler(1000, variance_type="learned_range")
    scheduler.alphas_cumprod, scheduler.one = schedule.alpha_bar, torch.tensor(1.0, dtype=torch.float64)
    v = 2 * normals(1000, 3, 2, 2)
    ours = log_variance(v, EVERY_T, schedule)
    for t in range(1, 1000):  # they have log 1e-20 for the posterior at t = 0, the published code that of t = 1
        theirs = scheduler._get_variance(t, predicted_variance=v[t])
        assert torch.allclose(ours[t], theirs, rtol=0, atol=1e-10)


def test_one_timestep_alone():
    schedule = Schedule(torch.tensor([0.75], dtype=torch.float64))
    assert log_variance(torch.tensor([[0.3]]), 0, schedule).item() == pytest.approx(math.log(0.25))
    prediction, v, x0, x_t = case(torch.tensor([0]), schedule, "epsilon")
    assert variational_bound(prediction, v, x0, x_t, 0, schedule).isfinite().all()


# the bound


def test_the_bound_at_every_scale():
    betas = np.linspace(1e-4, 0.02, 1000)
    check_against_oracle(betas, LINEAR, SOME_T, "epsilon", wrong=0.02, seed=3, atol=1e-9)


@settings(max_examples=100)
@given(
    st.lists(st.floats(1e-4, 0.9), min_size=2, max_size=12),
    st.sampled_from(PREDICTION_TYPES),
    st.floats(0, 0.03),
    st.integers(0, 9999),
)
def test_the_bound_on_any_schedule(betas, kind, wrong, seed):
    betas = np.array(betas)
    schedule = Schedule(torch.from_numpy(np.cumprod(1 - betas)))
    # 1e-7: the mass of one level is a difference of two numbers near 1 in the oracle.
    check_against_oracle(betas, schedule, torch.arange(len(betas)), kind, wrong, seed, atol=1e-7)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, ZERO_TERMINAL], ids=lambda s: s.name)
def test_a_perfect_prediction_with_the_variance_of_the_posterior_costs_nothing(schedule):
    t = EVERY_T[1:]
    prediction, v, x0, x_t = case(t, schedule, "v_prediction", wrong=0)
    bound = variational_bound(prediction, torch.full_like(v, -1), x0, x_t, t, schedule, "v_prediction")
    assert bound.abs().max() < 1e-20  # x0_hat is x0 to rounding
    assert (variational_bound(prediction, torch.zeros_like(v), x0, x_t, t, schedule, "v_prediction") > 0).all()


@settings(max_examples=60)
@given(st.floats(-1.2, 1.2), st.floats(-1, 1))
def test_the_masses_of_all_levels_sum_to_one(x0_hat, v):
    x0 = torch.arange(256, dtype=torch.float64).reshape(-1, 1, 1, 1) / 127.5 - 1
    x0_hat, v = torch.full_like(x0, x0_hat), torch.full_like(x0, v)
    bits = variational_bound(x0_hat, v, x0, torch.zeros_like(x0), 0, LINEAR, "sample")
    assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x0_hat", [-3.0, 0.101, 40.0])
@pytest.mark.parametrize("level", [0, 1, 140, 255])
def test_far_tails_and_their_gradient_in_many_digits(x0_hat, level, dtype):
    x0 = torch.full((1, 1, 1, 1), level, dtype=dtype) / 127.5 - 1
    v = torch.full_like(x0, 0.25).requires_grad_()
    bits = variational_bound(torch.full_like(x0, x0_hat), v, x0, torch.zeros_like(x0), 0, LINEAR, "sample")
    bits.sum().backward()
    log_sigma2 = log_variance(v.detach().double(), 0, LINEAR).item()
    spread = (log_variance(1.0, 0, LINEAR, like=x0.double()) - log_variance(-1.0, 0, LINEAR, like=x0.double())).item()

    def exact(value):
        sigma = mpmath.exp((log_sigma2 + (value - 0.25) / 2 * spread) / 2)
        ends = [(mpmath.mpf(x0.item()) - mpmath.mpf(x0_hat) + end / 255.0) / sigma for end in (-1, 1)]
        if level == 0 or level == 255:
            mass = mpmath.ncdf(ends[1] if level == 0 else -ends[0])
        else:
            mass = mpmath.ncdf(-abs(ends[0] + ends[1]) / 2 + (ends[1] - ends[0]) / 2)
            mass -= mpmath.ncdf(-abs(ends[0] + ends[1]) / 2 - (ends[1] - ends[0]) / 2)
        return -mpmath.log(mass, 2)

    with mpmath.workdps(60):
        wanted, slope = float(exact(mpmath.mpf(0.25))), float(mpmath.diff(exact, 0.25))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert bits.item() == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    assert v.grad.item() == pytest.approx(slope, rel=10 * tolerance, abs=tolerance)


def test_the_bound_is_least_at_the_variance_that_the_error_calls_for():
    # d/d sigma^2 of the KL vanishes at sigma^2 = beta~ + (difference of the means)^2.
    t, error = 20, 0.02
    alpha_bar = LINEAR.alpha_bar
    beta, mass = 1 - alpha_bar[t] / alpha_bar[t - 1], 1 - alpha_bar[t]
    best = beta * (1 - alpha_bar[t - 1]) / mass + (alpha_bar[t - 1].sqrt() * beta / mass * error) ** 2
    x0 = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    low, high = (log_variance(end, t, LINEAR, like=x0) for end in (-1, 1))
    v = (2 * (best.log() - low) / (high - low) - 1).requires_grad_()
    assert abs(v.item()) < 1
    variational_bound(x0 + error, v, x0, x0, t, LINEAR, "sample").sum().backward()
    assert abs(v.grad.item()) < 1e-12


@pytest.mark.parametrize(
    "kind, schedule", [("epsilon", COSINE), ("sample", ZERO_TERMINAL), ("v_prediction", ZERO_TERMINAL)]
)
def test_whatever_the_network_says_bound_and_gradient_are_finite(schedule, kind):
    t, x0 = EVERY_T, levels(1000, 3, 2, 2, dtype=torch.float32)
    x_t = schedule.add_noise(x0, normals(*x0.shape, dtype=torch.float32), t)
    output = 2 * normals(len(t), 6, 2, 2, seed=5, dtype=torch.float32)
    output.requires_grad_()
    prediction, v = split_variance(output, 3)
    bound = variational_bound(prediction, v, x0, x_t, t, schedule, kind)
    bound.sum().backward()
    assert bound.dtype == torch.float32 and bound.isfinite().all() and (bound >= 0).all()
    assert output.grad.isfinite().all()
    assert (output.grad[:, :3] == 0).all()
    # Past 900 the two limits of the variance become one, and the slope rounds to zero.
    assert (output.grad[:900, 3:] != 0).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("kind, schedule", [("sample", LINEAR), ("v_prediction", ZERO_TERMINAL)])
def test_float32_has_the_digits(schedule, kind):
    parts = case(EVERY_T, schedule, kind, wrong=0.05)
    double = variational_bound(*parts, EVERY_T, schedule, kind)
    single = variational_bound(*(part.float() for part in parts), EVERY_T, schedule, kind)
    assert torch.allclose(single.double(), double, rtol=2e-4, atol=0)


def test_nothing_flows_into_the_mean_and_the_squared_error_keeps_its_gradient():
    prediction, v, x0, x_t = case(SOME_T, LINEAR, "epsilon")
    output = torch.cat([prediction, v], dim=1).requires_grad_()
    gradients = []
    for with_term in (False, True):
        half, values = split_variance(output, 3)
        loss = (half - x0).square().flatten(1).mean(dim=1)
        if with_term:
            loss = loss + hybrid_term(half, values, x0, x_t, SOME_T, LINEAR)
        gradients.append(torch.autograd.grad(loss.mean(), output)[0])
    assert torch.equal(gradients[0][:, :3], gradients[1][:, :3])
    assert (gradients[0][:, 3:] == 0).all() and (gradients[1][:, 3:] != 0).all()


# the term, the halves, and what is refused


@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_the_term_is_the_bound_times_a_thousandth_of_the_steps(steps):
    schedule = Schedule.cosine(steps)
    t = torch.tensor([0, 1, 50, 99])
    parts = case(t, schedule, "v_prediction")
    wanted = variational_bound(*parts, t, schedule, "v_prediction") * steps / 1000
    assert torch.allclose(hybrid_term(*parts, t, schedule, "v_prediction"), wanted, rtol=1e-14)


def test_the_halves_of_an_output():
    output = normals(2, 6, 4, 4)
    prediction, values = split_variance(output, 3)
    assert torch.equal(prediction, output[:, :3]) and torch.equal(values, output[:, 3:])
    prediction, values = split_variance(output, 6)
    assert torch.equal(prediction, output) and values is None
    for channels in (1, 2, 4, 12):
        with pytest.raises(InputError, match=rf"answers \(2, 6, 4, 4\); it must have {channels} channels, or"):
            split_variance(output, channels)


def test_what_is_refused():
    prediction, v, x0, x_t = case(SOME_T, LINEAR, "epsilon")
    with pytest.raises(InputError, match="no variance channels"):
        variational_bound(prediction, None, x0, x_t, SOME_T, LINEAR)
    with pytest.raises(InputError, match=r"variance_values has shape \(8, 1, 2, 2\)"):
        hybrid_term(prediction, v[:, :1], x0, x_t, SOME_T, LINEAR)
    with pytest.raises(InputError, match=r"x_t has shape \(1, 3, 2, 2\); it must be \(8, 3, 2, 2\)"):
        hybrid_term(prediction[:1], v, x0, x_t[:1], SOME_T, LINEAR)
    with pytest.raises(InputError, match=r"output has shape \(1, 3, 2, 2\)"):
        hybrid_term(prediction[:1], v, x0, x_t, SOME_T, LINEAR)
    for call in (lambda t: log_variance(v, t, LINEAR), lambda t: hybrid_term(prediction, v, x0, x_t, t, LINEAR)):
        with pytest.raises(InputError, match=r"t is 1000; it must be in \[0, 1000\)"):
            call(1000)
        with pytest.raises(InputError, match="timesteps are whole numbers"):
            call(0.5)
    with pytest.raises(InputError, match="is unknown"):
        variational_bound(prediction, v, x0, x_t, SOME_T, LINEAR, "eps")
