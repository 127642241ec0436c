"""Schedules against the published formulas in float64, against diffusers within its float32, and golden numbers."""

import math
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

from debiaslib.diffusion.flow import FlowSchedule
from debiaslib.diffusion.schedule import Schedule, check_schedule
from debiaslib.errors import InputError

# ours, the betas as published (numpy, float64), diffusers' name
LINEAR = (Schedule.linear, lambda T, b0=1e-4, b1=0.02: np.linspace(b0, b1, T), "linear")
SCALED = (
    Schedule.scaled_linear,
    lambda T, b0=0.00085, b1=0.012: np.linspace(b0**0.5, b1**0.5, T) ** 2,
    "scaled_linear",
)
SIGMOID = (
    Schedule.sigmoid,
    lambda T, b0=1e-4, b1=0.02: b0 + (b1 - b0) / (1 + np.exp(-np.linspace(-6, 6, T))),
    "sigmoid",
)


def cosine_betas(T, s=0.008):
    def f(i):
        return math.cos((i / T + s) / (1 + s) * math.pi / 2) ** 2

    return np.array([min(1 - f(i + 1) / f(i), 0.999) for i in range(T)])


COSINE = (Schedule.cosine, cosine_betas, "squaredcos_cap_v2")
ALL = [LINEAR, SCALED, COSINE, SIGMOID]
NAMES = ["linear", "scaled_linear", "cosine", "sigmoid"]
DEFAULTS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (1e-4, 0.02), "sigmoid": (1e-4, 0.02)}
every_schedule = pytest.mark.parametrize("ours, betas, theirs", ALL, ids=NAMES)
# First t (0-based) with S < 1; statistics of the debiased weight, its share on the last step, its effective sample size
# (mean w)^2 / mean w^2. Written with the digits that are known.
GOLDEN = {
    "linear": {"S_0": "9999", "S_T": "4.036e-5", "first": "259", "min": "0.0100", "max": "157.4", "mean": "17.82",
               "median": "3.43", "share": "0.009", "ess": "0.242"},
    "cosine": {"S_0": "2.42e4", "S_T": "2.43e-9", "first": "496", "min": "0.0064", "max": "2.03e4", "mean": "24.8",
               "median": "1.01", "share": "0.818", "ess": "0.001"},
    "scaled_linear": {"S_0": "1175", "S_T": "4.68e-3", "first": "354", "min": "0.029", "max": "14.6", "mean": "3.02",
                      "median": "1.62", "ess": "0.450"},
}  # fmt: skip


def reference(betas):
    """alpha_bar by another route than a cumulative product: exact sums of log(1 - beta)."""
    logs = np.log1p(-betas)
    return np.exp([math.fsum(logs[: t + 1]) for t in range(len(logs))])


def diffusers_scheduler(theirs, T=1000, **options):
    name = {"squaredcos_cap_v2": "cosine"}.get(theirs, theirs)
    start, end = DEFAULTS[name]
    return DDPMScheduler(T, beta_start=start, beta_end=end, beta_schedule=theirs, clip_sample=False, **options)


def refused(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@every_schedule
@pytest.mark.parametrize("T", [1, 2, 10, 1000, 4000])
def test_the_published_formula_in_float64(ours, betas, theirs, T):
    table = ours(T).alpha_bar
    assert ours(T).name == ours.__name__
    assert table.dtype == torch.float64 and table.shape == (T,)
    wanted = reference(betas(T))
    assert np.abs(table.numpy() - wanted).max() < 1e-12
    assert np.abs(table.numpy() / wanted - 1).max() < 1e-10


def test_the_betas_are_not_rescaled_with_the_number_of_timesteps():
    assert Schedule.linear(10).alpha_bar[0] == Schedule.linear(1000).alpha_bar[0] == 1 - 1e-4
    assert Schedule.linear(10).snr[-1] > 1  # ten steps of these betas leave most of the signal


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name):
    golden, snr = GOLDEN[name], getattr(Schedule, name)(1000).snr.numpy()
    weight = snr**-0.5
    found = {
        "S_0": snr[0],
        "S_T": snr[-1],
        "first": int((snr < 1).argmax()),
        "min": weight.min(),
        "max": weight.max(),
        "mean": weight.mean(),
        "median": np.median(weight),
        "share": weight[-1] / weight.sum(),
        "ess": weight.mean() ** 2 / (weight**2).mean(),
    }
    for key, wanted in golden.items():
        last_digit = 10.0 ** Decimal(wanted).as_tuple().exponent
        assert abs(found[key] - float(wanted)) <= 0.5001 * last_digit, (key, found[key], wanted)


@every_schedule
def test_add_noise_is_the_forward_process(ours, betas, theirs):
    schedule, generator = ours(1000), torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 1, 250, 500, 998, 999])
    alpha_bar = reference(betas(1000))[t.numpy()].reshape(-1, 1, 1, 1)
    wanted = np.sqrt(alpha_bar) * x0.numpy() + np.sqrt(1 - alpha_bar) * noise.numpy()
    assert np.allclose(schedule.add_noise(x0, noise, t).numpy(), wanted, rtol=0, atol=1e-12)

    scheduler = diffusers_scheduler(theirs)
    theirs_x_t = scheduler.add_noise(x0.float(), noise.float(), t)
    ours_x_t = schedule.add_noise(x0.float(), noise.float(), t)
    assert ours_x_t.dtype == torch.float32
    # 1 - alpha_bar loses digits in float32 near t = 0, so sqrt(1 - alpha_bar) is off by about 1e-6 there.
    assert (ours_x_t - theirs_x_t).abs().max() < 2e-5
    scheduler.alphas_cumprod = schedule.alpha_bar  # their arithmetic on our table
    assert (schedule.add_noise(x0, noise, t) - scheduler.add_noise(x0, noise, t)).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8])
def test_every_integer_indexes(dtype):
    """One for all, or one for each; torch reads a uint8 index as a mask."""
    schedule, x0, noise = Schedule.linear(300), torch.ones(3, 1), torch.zeros(3, 1)
    a = schedule.alpha_bar.sqrt().float()
    t = torch.tensor([200 if dtype == torch.uint8 else 299, 0, 1], dtype=dtype)
    assert torch.equal(schedule.add_noise(x0, noise, t), a[t.long()].view(3, 1))
    for one in (7, np.int64(7), torch.tensor(7, dtype=dtype), [7]):
        assert torch.equal(schedule.add_noise(x0, noise, one), a[7].expand(3, 1))


ZEROS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "arguments, line",
    [
        *[((ZEROS, ZEROS, t), f"t is {shown}; it must be in [0, 1000)") for t, shown in
          [(-1, -1), (torch.tensor([0, 1000]), 1000)]],
        *[((ZEROS, ZEROS, t), f"t has dtype {torch.as_tensor(t).dtype}; timesteps are whole numbers") for t in
          (3.5, True, torch.tensor([1.0, 2.0]))],
        ((ZEROS, ZEROS, "5"), "t is '5'; it must be a whole number, or a tensor of them"),
        ((ZEROS, ZEROS, torch.arange(3)), "t has 3 entries; it must be a whole number, or one for each of 2 images"),
        *[((ZEROS, torch.zeros(size), 0), f"noise has shape {size}; it must be (2, 3)") for size in ((2, 1), (1, 3))],
        # sqrt(alpha_bar) as uint8 is 0: the answer would be black images and no error.
        ((ZEROS.byte(), ZEROS, 0), "the images have dtype torch.uint8; they must be floating-point, in [-1, 1]"),
    ],
)  # fmt: skip
def test_what_add_noise_refuses(arguments, line):
    assert refused(Schedule.linear().add_noise, *arguments) == line


def test_what_is_no_schedule():
    line = "schedule is 'linear'; it must be a Schedule, such as Schedule.linear(T=1000)"
    assert refused(check_schedule, "linear") == line
    flow, line = FlowSchedule.uniform(2), "schedule is a FlowSchedule; this needs a Schedule, which has an alpha_bar"
    assert check_schedule(flow) is check_schedule(flow, variance_preserving=False) is flow
    assert refused(check_schedule, flow, variance_preserving=True) == line
    preserving = Schedule.linear(2)
    assert check_schedule(preserving) is check_schedule(preserving, variance_preserving=True) is preserving


def test_the_tables_are_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        for name in NAMES:
            schedule = getattr(Schedule, name)(10)
            assert schedule.alpha_bar.device.type == schedule.scales(3, schedule.alpha_bar)[0].device.type == "cpu"


@every_schedule
def test_zero_terminal_rescaling(ours, betas, theirs):
    schedule = ours(1000)
    rescaled = schedule.rescale_zero_terminal_snr()
    root = np.sqrt(reference(betas(1000)))
    wanted = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2  # Lin et al. 2024, algorithm 1
    assert np.abs(rescaled.alpha_bar.numpy() - wanted).max() < 1e-12
    in_diffusers = np.cumprod(1 - rescale_zero_terminal_snr(torch.from_numpy(betas(1000))).numpy())
    assert np.abs(rescaled.alpha_bar.numpy() - in_diffusers).max() < 1e-12
    assert rescaled.snr[-1] == 0 and rescaled.name == f"{schedule.name}, zero-terminal"
    assert rescaled.snr[0] == pytest.approx(float(schedule.snr[0]), rel=1e-9)
    assert (rescaled.snr.diff() < 0).all()
    assert schedule.snr[-1] > 0  # the schedule itself is as it was


def test_a_schedule_is_shown_in_one_line():
    assert repr(Schedule.linear()) == "Schedule(name='linear')" and "tensor" not in repr(FlowSchedule.uniform())


def test_two_timesteps_can_be_rescaled():
    assert Schedule.linear(2).rescale_zero_terminal_snr().alpha_bar.tolist() == pytest.approx([1 - 1e-4, 0], rel=1e-12)


# the schedule of a diffusers scheduler

SOLVERS = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler]


def solver(kind, name, **options):
    start, end = DEFAULTS[name]
    theirs = {"cosine": "squaredcos_cap_v2"}.get(name, name)
    return kind(1000, beta_start=start, beta_end=end, beta_schedule=theirs, **options)


def relative(one, other):
    return (one.snr / other.snr - 1).abs()


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in SOLVERS for name in NAMES
                                        if name != "sigmoid" or kind is DDPMScheduler])  # fmt: skip
def test_the_schedule_of_a_diffusers_scheduler(kind, name):
    ours, schedule = getattr(Schedule, name)(), Schedule.from_diffusers(solver(kind, name))
    assert schedule.alpha_bar.dtype == torch.float64 and schedule.T == 1000
    assert schedule.name == {"cosine": "squaredcos_cap_v2"}.get(name, name)
    assert (schedule.alpha_bar - ours.alpha_bar).abs().max() < 1e-7
    # A float32 beta near 1, as in the cosine schedule's last steps, leaves 1 - beta few digits.
    steps = 1 - ours.alpha_bar[1:] / ours.alpha_bar[:-1]
    far_from_one = torch.cat([torch.ones(1, dtype=torch.bool), steps.cummax(0).values < 0.5])
    assert relative(schedule, ours)[far_from_one].max() < 1e-6
    assert relative(schedule, ours).max() < 1e-4


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("kind", SOLVERS)
def test_the_schedule_of_a_rescaled_scheduler(kind, name):
    """Solvers that put 2^-24 in the place of the last alpha_bar still mean SNR = 0."""
    ours = getattr(Schedule, name)().rescale_zero_terminal_snr()
    schedule = Schedule.from_diffusers(solver(kind, name, rescale_betas_zero_snr=True))
    assert (schedule.alpha_bar - ours.alpha_bar).abs().max() < 2e-6
    assert schedule.snr[-1] == 0 and (schedule.snr.diff() < 0).all()


def test_what_has_neither_betas_nor_a_configuration():
    schedule = Schedule.from_diffusers(SimpleNamespace(alphas_cumprod=torch.tensor([0.75, 0.5])))
    assert schedule.alpha_bar.tolist() == [0.75, 0.5] and schedule.name == "SimpleNamespace"


@pytest.mark.parametrize("change, taken", [(5e-5, False), (2e-4, True), (-2e-4, True)])
def test_what_counts_as_rounding_of_a_scheduler(change, taken):
    """Float32 leaves an alpha_bar of the usual schedules an error of 1e-5 at most; a change of 2e-4 is meant."""
    scheduler = solver(DDPMScheduler, "linear")
    rounding = (scheduler.alphas_cumprod / Schedule.linear().alpha_bar - 1).abs().max()
    assert rounding < 2e-5
    scheduler.alphas_cumprod[500:] *= 1 + change
    schedule = Schedule.from_diffusers(scheduler)
    assert (relative(schedule, Schedule.linear()).max() > 1e-4) == taken
    assert torch.equal(schedule.alpha_bar, scheduler.alphas_cumprod.double()) == taken


WHOLE, SHARE = "it must be a whole number >= 1 and <= 1e+06", "it must be a finite number > 0 and < 1"


@pytest.mark.parametrize(
    "call, line",
    [
        *[(partial(getattr(Schedule, name), T), f"T is {T!r}; {WHOLE}")
          for name in NAMES for T in (0, 10.0, 1_000_001)],
        *[(partial(ours, 10, **{name: 1}), f"{name} is 1; {SHARE}")
          for ours in (Schedule.linear, Schedule.scaled_linear, Schedule.sigmoid)
          for name in ("beta_start", "beta_end")],
        (partial(Schedule.cosine, 10, s=-1), "s is -1; it must be a finite number >= 0"),
        (Schedule.linear(1).rescale_zero_terminal_snr,
         "T is 1; a schedule needs two timesteps or more to have both SNR(0) kept and SNR(T-1) = 0"),
        # 2^-1074 is the smallest number above 0.
        (partial(Schedule.linear, 1080, 0.5, 0.5),
         "alpha_bar is 0.0 at t = 1075; it must fall from each timestep to the next"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(call, line):
    assert refused(call) == line


@pytest.mark.parametrize(
    "table, line",
    [
        ([], "alpha_bar has shape (0,); it must be one-dimensional and not empty"),
        ([1.0, 0.5], "alpha_bar is 1.0 at t = 0; it must be in [0, 1)"),
        ([0.5, -0.1], "alpha_bar is -0.1 at t = 1; it must be in [0, 1)"),
        ([0.5, math.nan], "alpha_bar is nan at t = 1; it must be in [0, 1)"),
        ([0.5, 0.5], "alpha_bar is 0.5 at t = 1; it must fall from each timestep to the next"),
    ],
)
def test_a_table_that_is_no_schedule(table, line):
    assert refused(Schedule, torch.tensor(table, dtype=torch.float64)) == line


@pytest.mark.parametrize("kind", [list, np.array])
def test_a_table_of_ones_own_keeps_its_digits(kind):
    # torch reads a list as float32, which would lose nine digits of 1 - alpha_bar.
    values = [0.99990000000001, 0.7, 0.1, 0.0]
    schedule = Schedule(kind(values))
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar.tolist() == values
    assert schedule.snr[-1] == 0


@pytest.mark.parametrize("kind", [np.float32, np.float16, object])
def test_every_table_becomes_float64(kind):
    wanted = torch.tensor([0.5, 0.25], dtype=torch.float64)
    array = np.array([Fraction(1, 2), Fraction(1, 4)]).astype(kind)
    for given in (array, array.tolist(), *([] if kind is object else [torch.from_numpy(array)])):
        table = Schedule(given).alpha_bar
        assert table.dtype == torch.float64 and torch.equal(table, wanted)
    assert Schedule(wanted).alpha_bar is wanted  # on its device, and not copied


@pytest.mark.parametrize(
    "given",
    ["linear", None, [1j], [True, False], torch.tensor([1j]), torch.tensor([True, False]),
     torch.zeros(2, device="meta"), [[0.5], [0.4, 0.3]]],
)  # fmt: skip
def test_what_holds_no_real_numbers(given):
    assert refused(Schedule, given).endswith("; it must be a table of real numbers")
