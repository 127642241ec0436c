"""Flow matching: the straight path, its weights in closed form, the limits at both ends, and diffusers' schedulers."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from debiaslib.diffusion.flow import FlowSchedule, from_diffusers
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.prediction import prediction_target, to_x0_epsilon
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.variance import log_variance
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.errors import InputError

UNIFORM = FlowSchedule.uniform(1000)
# The weight of |u_hat - u|^2 as a function of sigma, by hand.
CLOSED = {
    "debiased": lambda t: t * (1 - t),
    "constant": lambda t: (1 - t) ** 2,
    "inverse_snr": lambda t: t**2,
    "min_snr(gamma=4)": lambda t: torch.minimum((1 - t) ** 2, 4 * t**2),
    "max_snr(gamma=1)": lambda t: torch.maximum((1 - t) ** 2, t**2),
    "edm(sigma_data=1)": lambda t: (1 - t) ** 2 + t**2,
    "p2(k=1,gamma=1)": lambda t: (1 - t) ** 2 * t**2 / ((1 - t) ** 2 + t**2),
}


def refused(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("strategy", CLOSED)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_weights_in_closed_form(strategy, shift):
    schedule = FlowSchedule.uniform(1000, shift)
    weight = loss_weight(strategy, schedule, "flow_prediction")
    assert torch.allclose(weight, CLOSED[strategy](schedule.sigma), rtol=1e-11, atol=0)
    assert torch.allclose(loss_weight(strategy, schedule.snr, "flow_prediction"), weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("strategy", CLOSED)
def test_both_ends(strategy):
    ends = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    weight = loss_weight(strategy, FlowSchedule(ends), "flow_prediction")
    assert torch.allclose(weight, CLOSED[strategy](ends), rtol=1e-12, atol=1e-60)
    near = torch.tensor([1e-9, 1 - 1e-9], dtype=torch.float64)
    found = loss_weight(strategy, FlowSchedule(near), "flow_prediction")
    assert torch.allclose(found, CLOSED[strategy](near), rtol=1e-6, atol=0)


def test_an_end_without_a_finite_weight():
    ends = FlowSchedule([0.0, 0.5, 1.0])
    line = "the sample weight of 'constant' is infinite where SNR = inf; leave that timestep out"
    assert refused(loss_weight, "constant", ends, "sample") == line
    assert "'flow_prediction' in flow matching" in refused(loss_weight, "debiased", ends, "epsilon")


# the path


def test_the_path_and_its_velocity():
    t = torch.tensor([0, 250, 999])
    x0, noise = normal(2, 3, 3, 2, 2)
    sigma = UNIFORM.sigma[t].view(-1, 1, 1, 1)
    x_t = UNIFORM.add_noise(x0, noise, t)
    assert torch.allclose(x_t, (1 - sigma) * x0 + sigma * noise, rtol=1e-14)
    u = prediction_target(x0, noise, t, UNIFORM, "flow_prediction")
    assert torch.equal(u, noise - x0)
    x0_hat, epsilon_hat = to_x0_epsilon(u, x_t, t, UNIFORM, "flow_prediction")
    assert torch.allclose(x0_hat, x_t - sigma * u) and torch.allclose(epsilon_hat, x_t + (1 - sigma) * u)
    assert torch.allclose(x0_hat, x0, atol=1e-12) and torch.allclose(epsilon_hat, noise, atol=1e-12)


def test_at_both_ends_u_determines_the_pair_and_others_do_not():
    ends, (x0, noise) = FlowSchedule([0.0, 1.0]), normal(2, 1, 3, 2, 2)
    for t in (0, 1):
        x_t = ends.add_noise(x0, noise, t)
        pair = to_x0_epsilon(noise - x0, x_t, t, ends, "flow_prediction")
        assert all(torch.allclose(one, other) for one, other in zip(pair, (x0, noise), strict=True))
    assert "where SNR = 0" in refused(to_x0_epsilon, noise, noise, 1, ends, "epsilon")
    assert "where sigma = 0" in refused(to_x0_epsilon, x0, x0, 0, ends, "sample")
    for call in (to_x0_epsilon, prediction_target):
        assert "use prediction_type='flow_prediction'" in refused(call, x0, noise, 0, ends, "v_prediction")
    for given in (UNIFORM, FlowMatchEulerDiscreteScheduler()):
        assert "'flow_prediction'" in refused(loss_weight, "debiased", given, "v_prediction")


def test_the_optimum_knows_the_path():
    """For x0 ~ N(0, c) on the straight path E[x0 | x_t] = a c x_t / (a^2 c + s^2)."""
    x_t, c = normal(4, 1, 1, 1), 0.3
    a, s = UNIFORM.scales(600, x_t)
    found = GaussianDenoiser([0.0], [[c]], UNIFORM)(x_t, 600)
    assert torch.allclose(found, a * c * x_t / (a**2 * c + s**2))


def test_where_no_noise_is_left_the_optimum_is_the_image():
    both_ends = FlowSchedule(torch.linspace(0, 1, 11))
    images = torch.randint(0, 256, (8, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x_t = images[:3].double() / 127.5 - 1
    assert torch.allclose(OptimalDenoiser(images, both_ends)(x_t, 0), x_t, atol=1e-12)
    singular = GaussianDenoiser([0.0, 0.5], [[1.0, 0.0], [0.0, 0.0]], both_ends)  # the second number is always 0.5
    assert torch.allclose(singular(torch.tensor([[0.3, 0.5]]), 0), torch.tensor([[0.3, 0.5]]))


def test_what_needs_an_alpha_bar_refuses_it():
    line = "schedule is a FlowSchedule; this needs a Schedule, which has an alpha_bar"
    assert refused(sample, lambda x, t: x, UNIFORM, [0], shape=(3, 4, 4)) == line
    assert refused(log_variance, torch.zeros(1, 1), 0, UNIFORM) == line


# diffusers


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_scheduler_of_diffusers_as_it_is(kind, shift):
    """The weight's index is that of its sigmas and timesteps, the noisiest first."""
    scheduler = kind(shift=shift)
    weight = loss_weight("debiased", scheduler, "flow_prediction")
    sigma = scheduler.sigmas.double()
    assert weight.shape == scheduler.timesteps.shape and sigma[0] == 1
    assert torch.allclose(weight, sigma * (1 - sigma), rtol=1e-9, atol=1e-12)
    assert torch.allclose(weight.flip(0), loss_weight("debiased", FlowSchedule.uniform(1000, shift), "flow_prediction"),
                          rtol=1e-3, atol=1e-7)  # fmt: skip


@pytest.mark.parametrize("shift", [0.02, 0.1, 0.4, 1.18, 2.14, 2.36, 8.06])  # some round 1 up, some down
def test_the_end_is_noise_whatever_the_shift(shift):
    flow, sigmas = FlowSchedule.uniform(1000, shift), torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert flow.sigma[-1] == 1 and torch.allclose(flow.sigma, shift * sigmas / (1 + (shift - 1) * sigmas), rtol=1e-12)
    for schedule in (flow, FlowMatchEulerDiscreteScheduler(shift=shift)):
        assert "infinite where SNR = 0" in refused(loss_weight, "debiased", schedule, "epsilon")


def test_noise_is_added_as_the_scheduler_does():
    scheduler, indices = FlowMatchEulerDiscreteScheduler(shift=3.0), torch.tensor([0, 10, 999])
    x0, noise = normal(2, 3, 3, 2, 2)
    theirs = scheduler.scale_noise(x0, scheduler.timesteps[indices], noise)
    assert torch.allclose(from_diffusers(scheduler).add_noise(x0, noise, indices), theirs, atol=1e-6)
    x0_hat, epsilon_hat = to_x0_epsilon(noise - x0, theirs, indices, scheduler, "flow_prediction")
    assert torch.allclose(x0_hat, x0, atol=1e-5) and torch.allclose(epsilon_hat, noise, atol=1e-5)


def test_after_set_timesteps_the_end_is_left_out():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    assert scheduler.sigmas[-1] == 0 and loss_weight("debiased", scheduler, "flow_prediction").shape == (20,)


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
@pytest.mark.parametrize("steps", [None, 20])
def test_a_solver_with_flow_sigmas_is_refused(kind, steps):
    """Its table of alpha_bar is there, and is not what it samples by."""
    scheduler = kind(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    if steps:
        scheduler.set_timesteps(steps)
    line = refused(loss_weight, "debiased", scheduler, "flow_prediction")
    assert line.startswith(f"{kind.__name__} is flow matching (use_flow_sigmas), without a table of training timesteps")
    assert isinstance(from_diffusers(kind()), Schedule)


# mistakes

NEITHER = "sigma must rise from each timestep to the next, or fall throughout; this table does not"


@pytest.mark.parametrize(
    ("sigma", "line"),
    [
        ([0.1, 1.1], "sigma is 1.1 at t = 1; it must be in [0, 1]"),
        ([-0.1, 1.0], "sigma is -0.1 at t = 0; it must be in [0, 1]"),
        ([0.1, float("nan")], "sigma is nan at t = 1; it must be in [0, 1]"),
        ([0.1, 0.1], NEITHER),
        ([0.1, 0.9, 0.5], NEITHER),
        ([], "sigma has shape (0,); it must be one-dimensional and not empty"),
        ("flow", "sigma is 'flow'; it must be a table of real numbers"),
    ],
)
def test_a_table_that_is_no_flow_schedule(sigma, line):
    assert refused(FlowSchedule, sigma) == line


def test_arguments_out_of_range():
    assert refused(FlowSchedule.uniform, 0) == "T is 0; it must be a whole number >= 1"
    assert refused(FlowSchedule.uniform, 10, 0) == "shift is 0; it must be a finite number > 0"
