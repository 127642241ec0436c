"""Bad parameters of the library's functions: each is one line that names it, its value and what is allowed."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from debiaslib import (
    GaussianDenoiser,
    OptimalDenoiser,
    Schedule,
    loss_weight,
    mse_by_timestep,
    one_step_estimate,
    parse_strategy,
    prediction_target,
    sample,
    to_x0_epsilon,
)
from debiaslib.diffusion.sampling import respaced_timesteps
from debiaslib.study.presets import get_preset

T10 = Schedule.linear(T=10)
ZERO = Schedule.linear().rescale_zero_terminal_snr()
X0 = torch.zeros(2, 3, 8, 8)
NAN, INF, HUGE = math.nan, math.inf, 10**400
WHOLE, FINITE = "a whole number", "a finite number"


def network(x, t):
    """Some network: it is asked nothing by a call that is refused."""
    return torch.zeros_like(x)


# (weighting, what the line must hold)
WEIGHTINGS = [
    ("debaised", "'debaised'", "did you mean 'debiased'?"),
    ("", "''", "'name(argument=value)'"),
    ("p2(", "'p2('", "'name(argument=value)'"),
    ("p2)", "'p2)'", "'name(argument=value)'"),
    ("p2(k=-1)", "k of weighting 'p2' is -1", f"{FINITE} >= 0"),
    ("p2(gamma=-0.5)", "gamma of weighting 'p2' is -0.5", f"{FINITE} >= 0"),
    ("p2(gamma=nan)", "'p2(gamma=nan)'", "'name(argument=value)'"),
    ("p2(gamma=inf)", "'p2(gamma=inf)'", "'name(argument=value)'"),
    ("p2(gamma=1e999)", "gamma of weighting 'p2' is inf", FINITE),
    ("p2(gamma='1')", "gamma of weighting 'p2' is '1'", FINITE),
    ("p2(k=True)", "k of weighting 'p2' is True", FINITE),
    ("p2(k=None)", "k of weighting 'p2' is None", FINITE),
    ("p2(k=[1])", "k of weighting 'p2' is [1]", FINITE),
    ("p2(k=1j)", "k of weighting 'p2' is 1j", FINITE),
    ("p2(1, 1)", "'p2(1, 1)'", "'name(argument=value)'"),
    ("p2(k=1, k=2)", "'p2(k=1, k=2)'", "'name(argument=value)'"),
    ("p2(kappa=1)", "argument of weighting 'p2': 'kappa'", "known: k, gamma"),
    ("p2(**{})", "argument of weighting 'p2': None", "known: k, gamma"),
    ("min_snr(gamma=0)", "gamma of weighting 'min_snr' is 0", f"{FINITE} > 0"),
    ("soft_min_snr(gamma=-5)", "gamma of weighting 'soft_min_snr' is -5", f"{FINITE} > 0"),
    ("max_snr(gamma=0)", "gamma of weighting 'max_snr' is 0", f"{FINITE} > 0"),
    ("edm(sigma_data=0)", "sigma_data of weighting 'edm' is 0", f"{FINITE} > 0"),
    ("sigmoid(bias=True)", "bias of weighting 'sigmoid' is True", FINITE),
    ("debiased(gamma=1)", "'debiased' takes no argument", "'gamma'"),
    ("p2(k=__import__('os').system('touch canary'))", "cannot be read", "'name(argument=value)'"),
    ("p2(k=open('canary', 'w'))", "cannot be read", "'name(argument=value)'"),
    ("__import__('os').system('touch canary')", "cannot be read", "'name(argument=value)'"),
    ("lambda: 0", "'lambda: 0'", "'name(argument=value)'"),
    ("p2\nk=1", "'p2\\nk=1'", "'name(argument=value)'"),
    ("p2(k=\0)", "cannot be read", "'name(argument=value)'"),
    ("\ud800", "cannot be read", "'name(argument=value)'"),
    ("(" * 100_000, "cannot be read", "'name(argument=value)'"),
    ("-" * 1_000_000 + "1", "cannot be read", "'name(argument=value)'"),
    ("x" * 1_000_000, "xxx", "'name(argument=value)'"),
    ("x" * 150, "xxx", "known: constant"),
    ("p2(k=1" + "0" * 5000 + ")", "cannot be read", "'name(argument=value)'"),
    (None, "None", "a string such as 'debiased'"),
    (5, "weighting is 5", "a string such as 'debiased'"),
    (["debiased"], "['debiased']", "a string such as 'debiased'"),
    (b"debiased", "b'debiased'", "a string such as 'debiased'"),
]
# (call of the constructor, what the line must hold)
SCHEDULES = [
    *[(partial(kind, T=T), f"T is {shown}", WHOLE)
      for kind in (Schedule.linear, Schedule.cosine)
      for T, shown in [(0, 0), (-5, -5), (10.0, 10.0), (True, True), ("10", "'10'"), (None, None), (NAN, "nan"),
                       (10**12, 10**12), (HUGE, "1000")]],
    (partial(Schedule.linear, beta_start=0), "beta_start is 0", "> 0 and < 1"),
    (partial(Schedule.linear, beta_start=-0.1), "beta_start is -0.1", "> 0 and < 1"),
    (partial(Schedule.linear, beta_end=1), "beta_end is 1", "< 1"),
    (partial(Schedule.linear, beta_end=1.5), "beta_end is 1.5", "< 1"),
    (partial(Schedule.linear, beta_end=NAN), "beta_end is nan", FINITE),
    (partial(Schedule.scaled_linear, beta_start="1e-4"), "beta_start is '1e-4'", FINITE),
    (partial(Schedule.sigmoid, beta_start=INF), "beta_start is inf", FINITE),
    (partial(Schedule.sigmoid, beta_end=0), "beta_end is 0", "< 1"),
    (partial(Schedule.linear, T=100_000), "T is 100000", "smaller"),
    (partial(Schedule.linear, beta_start=1e-300), "alpha_bar is 1.0 at t = 0", "in [0, 1)"),
    (partial(Schedule.cosine, s=-0.1), "s is -0.1", ">= 0"),
    (partial(Schedule.cosine, s=NAN), "s is nan", FINITE),
    (partial(Schedule.cosine, max_beta=1), "max_beta is 1", "< 1"),
    (partial(Schedule.cosine, max_beta=0), "max_beta is 0", "> 0"),
    (Schedule.linear(T=1).rescale_zero_terminal_snr, "T is 1", "two timesteps or more"),
    (partial(Schedule, []), "alpha_bar has shape (0,)", "one-dimensional and not empty"),
    (partial(Schedule, 0.5), "alpha_bar has shape ()", "one-dimensional"),
    (partial(Schedule, [[0.5]]), "alpha_bar has shape (1, 1)", "one-dimensional"),
    (partial(Schedule, [0.9, NAN]), "alpha_bar is nan at t = 1", "in [0, 1)"),
    (partial(Schedule, [1.0, 0.5]), "alpha_bar is 1.0 at t = 0", "in [0, 1)"),
    (partial(Schedule, [0.5, -0.5]), "alpha_bar is -0.5 at t = 1", "in [0, 1)"),
    (partial(Schedule, [0.5, 0.6]), "alpha_bar is 0.6 at t = 1", "must fall"),
    (partial(Schedule, "linear"), "alpha_bar is 'linear'", "a table of numbers"),
    (partial(Schedule, None), "alpha_bar is None", "a table of numbers"),
]  # fmt: skip
LOSS_WEIGHTS = [
    (partial(loss_weight, "debaised", T10), "'debaised'", "did you mean 'debiased'?"),
    (partial(loss_weight, "debiased", T10, "eps"), "prediction_type 'eps'", "known: epsilon, sample, v_prediction"),
    (partial(loss_weight, "debiased", T10, None), "prediction_type None", "known: epsilon"),
    (partial(loss_weight, "debiased", T10, np.zeros(2)), "prediction_type array", "known: epsilon"),
    (partial(loss_weight, "debiased", T10, max_weight=0), "max_weight is 0", "> 0"),
    (partial(loss_weight, "debiased", T10, max_weight=-1), "max_weight is -1", "> 0"),
    (partial(loss_weight, "debiased", T10, max_weight=NAN), "max_weight is nan", FINITE),
    (partial(loss_weight, "debiased", T10, max_weight="5"), "max_weight is '5'", FINITE),
    (partial(loss_weight, "debiased", T10, normalize="yes"), "normalize 'yes'", "known: True, False"),
    (partial(loss_weight, "debiased", 3.0), "SNR table has shape ()", "one-dimensional"),
    (partial(loss_weight, "debiased", [[1.0]]), "SNR table has shape (1, 1)", "one-dimensional"),
    (partial(loss_weight, "debiased", []), "SNR table has shape (0,)", "not empty"),
    (partial(loss_weight, "debiased", [1.0, -1.0]), "SNR table", "negative"),
    (partial(loss_weight, "debiased", [1.0, NAN]), "SNR table", "NaN"),
    (partial(loss_weight, "debiased", [INF, 1.0], "sample"), "SNR = inf", "leave that timestep out"),
    (partial(loss_weight, "debiased", "linear"), "a str holds no SNR", "give a Schedule"),
    (partial(loss_weight, "debiased", None), "a NoneType holds no SNR", "give a Schedule"),
    (partial(loss_weight, "debiased", np.array([1j, 2j])), "SNR table is complex128", "real numbers"),
    (partial(loss_weight, "debiased", torch.ones(3, dtype=torch.bool)), "SNR table is torch.bool", "real numbers"),
    (partial(loss_weight, "vlb", [1.0, 2.0, 1.5]), "'vlb'", "consecutive timesteps"),
    (partial(loss_weight, "sigmoid", [1.0]), "'sigmoid'", "two timesteps or more"),
    (partial(loss_weight, "debiased", ZERO), "'debiased' is infinite where SNR = 0", "bound it with max_weight"),
    (partial(loss_weight, "inverse_snr", ZERO), "'inverse_snr' is infinite", "use prediction_type='v_prediction'"),
    (partial(loss_weight, "debiased", ZERO, "v_prediction", normalize="epsilon"), "normalize", "use max_weight"),
    (partial(loss_weight, lambda snr: -snr, T10), "must give one finite weight >= 0", "10 timesteps"),
    (partial(loss_weight, lambda snr: snr[1:], T10), "must give one finite weight >= 0", "10 timesteps"),
    (partial(loss_weight, lambda snr: "one", T10), "must give one finite weight >= 0", "10 timesteps"),
    (partial(loss_weight, lambda snr: 0 * snr, T10, normalize=True), "normalize", "which is 0"),
]


def drawn(seeds=(0,), **changes):
    """A call of `sample` with one thing changed."""
    given = {"model": network, "schedule": T10, "seeds": seeds, "steps": 2, "shape": (3, 8, 8), **changes}
    return partial(sample, **given)


SAMPLES = [
    (drawn(steps=11), "steps is 11", "<= 10"),
    (drawn(steps=0), "steps is 0", ">= 1"),
    (drawn(steps=-1), "steps is -1", ">= 1"),
    (drawn(steps=2.0), "steps is 2.0", WHOLE),
    (drawn(steps=True), "steps is True", WHOLE),
    (drawn(steps="2"), "steps is '2'", WHOLE),
    (drawn(sampler="dddim"), "sampler 'dddim'", "did you mean 'ddim'?"),
    (drawn(sampler=None), "sampler None", "known: ddim"),
    (drawn(eta=1.5), "eta is 1.5", "<= 1"),
    (drawn(eta=-0.1), "eta is -0.1", ">= 0"),
    (drawn(eta=NAN), "eta is nan", FINITE),
    (drawn(eta=0.5, sampler="ddpm"), "eta is 0.5", "the noise of 'ddim'"),
    (drawn(seeds=[-1]), "seed is -1", ">= 0"),
    (drawn(seeds=[2**32]), f"seed is {2**32}", "<= 4"),
    (drawn(seeds=[0.5]), "seed is 0.5", WHOLE),
    (drawn(seeds=[True]), "seed is True", WHOLE),
    (drawn(seeds=["0"]), "seed is '0'", WHOLE),
    (drawn(seeds=5), "seeds is 5", "a list of whole numbers"),
    (drawn(seeds=None), "seeds is None", "a list of whole numbers"),
    (drawn(batch_size=0), "batch_size is 0", ">= 1"),
    (drawn(batch_size=2.5), "batch_size is 2.5", WHOLE),
    (drawn(clip_x0="no"), "clip_x0 'no'", "known: True, False"),
    (drawn(prediction_type="x0"), "prediction_type 'x0'", "known: epsilon, sample"),
    (drawn(shape=None), "shape is not given", "shape=(channels, height, width)"),
    (drawn(shape=(8, 8)), "shape is (8, 8)", "(channels, height, width)"),
    (drawn(shape=(3, 8, -8)), "shape is (3, 8, -8)", "(channels, height, width)"),
    (drawn(shape=(3, 8, 8.0)), "shape is (3, 8, 8.0)", "(channels, height, width)"),
    (drawn(shape=8), "shape is 8", "(channels, height, width)"),
    (drawn(labels=[0, 1]), "labels has 2 entries", "one for each of 1 seeds"),
    (drawn(labels=[-1]), "label is -1", ">= 0"),
    (drawn(labels=[0.5]), "label is 0.5", WHOLE),
    (drawn(schedule=ZERO), "epsilon does not determine x0 where SNR = 0", "prediction_type='v_prediction'"),
    (drawn(schedule=ZERO, sampler="unipc", steps=5), "sampler 'unipc'", "use 'ddim' or 'ddpm'"),
    (drawn(schedule="linear"), "schedule is 'linear'", "Schedule.linear("),
    (drawn(device="cuda"), "device is 'cuda'", "use device='cpu'"),
    (drawn(device="gpu"), "device is 'gpu'", "'cuda:0'"),
    (drawn(model=None), "model is None", "takes (x_t, t)"),
    (partial(respaced_timesteps, 0, 10), "steps is 0", ">= 1"),
]  # fmt: skip
ESTIMATES = [
    (partial(T10.add_noise, X0, X0, 10), "t is 10", "in [0, 10)"),
    (partial(T10.add_noise, X0, X0, -1), "t is -1", "in [0, 10)"),
    (partial(T10.add_noise, X0, X0, 0.5), "t has dtype torch.float32", "whole numbers"),
    (partial(T10.add_noise, X0, X0, torch.tensor([0, 99])), "t is 99", "in [0, 10)"),
    (partial(T10.add_noise, X0, X0, torch.tensor([0.0, 1.0])), "t has dtype torch.float32", "whole numbers"),
    (partial(T10.add_noise, X0, X0, True), "t has dtype torch.bool", "whole numbers"),
    (partial(T10.add_noise, X0, X0, "5"), "t is '5'", "whole number"),
    (partial(T10.add_noise, X0, X0, None), "t is None", "whole number"),
    (partial(T10.add_noise, X0, X0, torch.tensor([1, 2, 3])), "t has 3 entries", "one for each of 2"),
    (partial(T10.add_noise, X0, X0[:, :1, :4], 5), "noise has shape (2, 1, 4, 8)", "(2, 3, 8, 8)"),
    (partial(T10.add_noise, X0.to(torch.uint8), X0, 5), "dtype torch.uint8", "floating-point, in [-1, 1]"),
    (partial(prediction_target, X0, X0, 5, T10, "x0"), "prediction_type 'x0'", "known: epsilon"),
    (partial(prediction_target, X0, X0, 50, T10, "v_prediction"), "t is 50", "in [0, 10)"),
    (partial(to_x0_epsilon, X0, X0, 5, T10, "eps"), "prediction_type 'eps'", "known: epsilon"),
    (partial(to_x0_epsilon, X0, X0, 999, ZERO), "SNR = 0", "use prediction_type='v_prediction'"),
    (partial(to_x0_epsilon, X0[:1], X0, 5, T10), "output has shape (1, 3, 8, 8)", "(2, 3, 8, 8)"),
    (partial(to_x0_epsilon, X0, X0, 10, T10), "t is 10", "in [0, 10)"),
    (partial(one_step_estimate, network, X0, 10, X0, T10), "t is 10", "< 10"),
    (partial(one_step_estimate, network, X0, 1.0, X0, T10), "t is 1.0", WHOLE),
    (partial(one_step_estimate, network, X0, [1], X0, T10), "t is [1]", WHOLE),
    (partial(one_step_estimate, network, X0, 5, X0[:1], T10), "noise has shape (1, 3, 8, 8)", "(2, 3, 8, 8)"),
    (partial(one_step_estimate, network, X0, 5, X0, T10, batch_size=0), "batch_size is 0", ">= 1"),
    (partial(one_step_estimate, network, X0, 5, X0, T10, "x"), "prediction_type 'x'", "known: epsilon"),
    (partial(one_step_estimate, network, X0, 5, X0, T10, labels=[1]), "labels has 1 entries", "one for each of 2"),
    (partial(one_step_estimate, lambda x, t: x[:, :1], X0, 5, X0, T10), "(2, 1, 8, 8)", "(2, 3, 8, 8)"),
    (partial(one_step_estimate, network, X0, 5, X0, None), "schedule is None", "Schedule.linear("),
    (partial(mse_by_timestep, {"a": network}, X0[:0], [1], T10), "x0 holds no images, of shape (0, 3, 8, 8)", "N >= 1"),
    (partial(mse_by_timestep, {"a": network}, X0, [], T10), "timesteps is []", "at least one"),
    (partial(mse_by_timestep, {"a": network}, X0, [10], T10), "t is 10", "< 10"),
    (partial(mse_by_timestep, {"a": network}, X0, [0.5], T10), "t is 0.5", WHOLE),
    (partial(mse_by_timestep, {"a": network}, X0, 5, T10), "timesteps is 5", "a list"),
    (partial(mse_by_timestep, network, X0, [1], T10), "models is <function", "{name: model}"),
    (partial(mse_by_timestep, {"a": network}, X0, [1], T10, seed=-1), "seed is -1", ">= 0"),
    (partial(mse_by_timestep, {"a": network}, X0, [1], T10, prediction_type="x"), "prediction_type 'x'", "known:"),
    (partial(OptimalDenoiser, X0[0], T10), "images have shape (3, 8, 8)", "(N, C, H, W)"),
    (partial(OptimalDenoiser, X0[:0], T10), "images have shape (0, 3, 8, 8)", "N >= 1"),
    (partial(OptimalDenoiser, [X0], T10), "images are a list", "(N, C, H, W)"),
    (partial(OptimalDenoiser, X0.int(), T10), "images are torch.int32", "uint8, or floats in [-1, 1]"),
    (partial(OptimalDenoiser, X0 + 127.5, T10), "images reach 127.5", "[-1, 1]"),
    (partial(OptimalDenoiser, X0 * NAN, T10), "images reach nan", "[-1, 1]"),
    (partial(OptimalDenoiser, X0, T10, chunk=0), "chunk is 0", ">= 1"),
    (partial(OptimalDenoiser, X0, "linear"), "schedule is 'linear'", "Schedule.linear("),
    (partial(OptimalDenoiser(X0, T10), X0[:, :, :4], 5), "x_t has shape (2, 3, 4, 8)", "(B, 3, 8, 8)"),
    (partial(OptimalDenoiser(X0, T10), X0, 10), "t is 10", "in [0, 10)"),
    (partial(GaussianDenoiser, np.zeros(3), np.eye(2), T10), "covariance has shape (2, 2)", "3 entries"),
    (partial(GaussianDenoiser, np.zeros(2), -np.eye(2), T10), "eigenvalue -1", "must not be negative"),
    (partial(GaussianDenoiser, np.zeros(2), np.eye(2) * NAN, T10), "covariance", "finite"),
    (partial(GaussianDenoiser, np.array([0, NAN]), np.eye(2), T10), "mean", "finite"),
    (partial(GaussianDenoiser, "mean", np.eye(2), T10), "mean is 'mean'", "numbers"),
    (partial(GaussianDenoiser(np.zeros(2), np.eye(2), T10), X0, 5), "x_t has shape (2, 3, 8, 8)", "2 numbers"),
]  # fmt: skip
PRESET_NAMES = [("minifaces", "did you mean 'minifaces16'?"), (None, "known:"), ("", "known:"), (["a"], "known:")]


@pytest.mark.filterwarnings("error:Casting complex")  # what torch would drop with a warning is refused
def test_every_bad_parameter_is_one_line(tally, reached):
    for text, *parts in WEIGHTINGS:
        tally.refused(f"weighting {text!r:.40}", partial(parse_strategy, text), "weighting", *parts)
    for name, part in PRESET_NAMES:
        tally.refused(f"preset {name!r}", partial(get_preset, name), f"preset {name!r}", part)
    for table in (SCHEDULES, LOSS_WEIGHTS, SAMPLES, ESTIMATES):
        for call, *parts in table:
            tally.refused(f"{call}"[:150], call, *parts)
    assert not (tally.watched / "work" / "canary").exists()
    tally.settle(reached, "bad parameters of functions")
