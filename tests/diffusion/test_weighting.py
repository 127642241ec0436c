"""The loss weight: one objective in four units, the published formulas, the identities, the limits at SNR = 0.

The weights of flow matching in closed form, and their limits at both ends, are in test_flow.py.
"""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EDMEulerScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.diffusion.flow import FlowSchedule
from debiaslib.diffusion.prediction import ALL_PREDICTION_TYPES as TYPES
from debiaslib.diffusion.prediction import prediction_target, to_x0_epsilon
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.strategies import KNOWN, parse_strategy
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.errors import InputError

LINEAR = Schedule.linear()
TERMINAL = LINEAR.rescale_zero_terminal_snr()


def edm(S, sigma_data):
    """lambda(sigma) of Karras et al. 2022 on the denoiser, whose error is the error of epsilon times sigma."""
    sigma = 1 / np.sqrt(S)
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2 * sigma**2


# The weight of the epsilon loss as published, in numpy.
EPSILON = {
    "constant": lambda S: np.ones_like(S),
    "debiased": lambda S: 1 / np.sqrt(S),
    "inverse_snr": lambda S: 1 / S,
    "p2": lambda S, k, gamma: 1 / (k + S) ** gamma,
    "min_snr": lambda S, gamma: np.minimum(S, gamma) / S,
    "soft_min_snr": lambda S, gamma: gamma / (S + gamma),
    "max_snr": lambda S, gamma: np.maximum(S, gamma) / S,
    "edm": edm,
}
# What multiplies the weight of the epsilon loss in each unit.
FACTOR = {
    "epsilon": np.ones_like,
    "sample": lambda S: S,
    "v_prediction": lambda S: S / (1 + S),
    "flow_prediction": lambda S: S / (1 + np.sqrt(S)) ** 2,
}
POSITIVE = st.floats(0.01, 100)
STRATEGIES = st.one_of(
    st.sampled_from(["constant", "debiased", "inverse_snr"]),
    st.builds("p2(k={},gamma={})".format, st.one_of(st.just(0), st.floats(1e-6, 10)), st.floats(0, 3)),
    st.builds("{}(gamma={})".format, st.sampled_from(["min_snr", "soft_min_snr", "max_snr"]), POSITIVE),
    st.builds("edm(sigma_data={})".format, POSITIVE),
)
ALL = st.shared(STRATEGIES, key="strategy")
EXPONENTS = st.lists(st.floats(-6, 6), min_size=1, max_size=12, unique_by=lambda exponent: round(exponent, 4))


def published(strategy, snr):
    parsed = parse_strategy(strategy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return EPSILON[parsed.name](snr, **dict(parsed.arguments))


def schedule_of(exponents):
    """A schedule whose SNR is 10^exponent, falling. SNR in [1e-6, 1e6]."""
    snr = 10.0 ** np.unique(np.round(exponents, 4))[::-1]
    return Schedule(torch.from_numpy(snr / (1 + snr)))


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        loss_weight(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def close(one, other, rel=1e-12):
    return np.allclose(np.asarray(one), np.asarray(other), rtol=rel, atol=0)


def estimates(output, x_t, t, schedule, prediction_type):
    """The network's estimate in all units, from its output in one of them."""
    x0_hat, epsilon_hat = to_x0_epsilon(output, x_t, t, schedule, prediction_type)
    return {kind: prediction_target(x0_hat, epsilon_hat, t, schedule, kind) for kind in TYPES}


# one objective, four units


@settings(max_examples=150)
@given(ALL, EXPONENTS, st.sampled_from(TYPES), st.booleans(), st.integers(0, 2**32))
def test_the_four_losses_and_their_gradients_agree(strategy, exponents, answered, bounded, seed):
    schedule = schedule_of(exponents)
    t = torch.arange(schedule.T)
    generator = torch.Generator().manual_seed(seed)
    x0, noise, answer = torch.randn(3, schedule.T, 24, generator=generator, dtype=torch.float64)
    x_t = schedule.add_noise(x0, noise, t)
    # Any network's answer, in any unit, read as an estimate of epsilon.
    epsilon_hat = to_x0_epsilon(answer, x_t, t, schedule, answered)[1].clone().requires_grad_()
    estimate = estimates(epsilon_hat, x_t, t, schedule, "epsilon")

    losses, gradients = {}, {}
    for kind in TYPES:
        weight = loss_weight(strategy, schedule, kind, max_weight=2.0 if bounded else None)
        error = (estimate[kind] - prediction_target(x0, noise, t, schedule, kind)).square().mean(1)
        losses[kind] = weight * error
        gradients[kind] = torch.autograd.grad(losses[kind].sum(), epsilon_hat, retain_graph=True)[0]

    expected = published(strategy, schedule.snr.numpy())
    expected = torch.from_numpy(np.minimum(expected, 2.0) if bounded else expected)
    squared = (epsilon_hat - noise).square().mean(1).detach()
    slope = expected[:, None] * 2 * (epsilon_hat - noise).detach() / 24
    rel = 1e-10
    for kind in TYPES:
        assert close(losses[kind].detach(), expected * squared, rel), kind
        assert close(losses[kind].detach(), losses["epsilon"].detach(), 1e-10), kind
        distance = (gradients[kind] - slope).norm(dim=1) / slope.norm(dim=1)
        assert distance.max() < rel, kind
        apart = (gradients[kind] - gradients["epsilon"]).norm(dim=1) / gradients["epsilon"].norm(dim=1)
        assert apart.max() < 1e-10, kind


def test_every_known_weighting_is_tested():
    assert set(EPSILON) == set(KNOWN)


# identities


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("schedule", [LINEAR, Schedule.cosine(), Schedule.scaled_linear()], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "one, factor, other",
    [
        ("debiased", 1, "p2(k=0,gamma=0.5)"),
        ("inverse_snr", 1, "p2(k=0,gamma=1)"),
        ("constant", 1, "p2(k=3,gamma=0)"),
        ("soft_min_snr(gamma=5)", 5, "p2(k=5,gamma=1)"),
        ("constant", 1, "min_snr(gamma=1e9)"),
        ("constant", 1, "max_snr(gamma=1e-12)"),
        ("max_snr(gamma=1e9)", 1e9, "inverse_snr"),
        ("edm(sigma_data=1)", 1, lambda S: 1 + 1 / S),
        ("edm(sigma_data=1e12)", 1, "constant"),
        ("edm(sigma_data=1e-9)", 1e18, "inverse_snr"),
    ],
)
def test_identities_between_weightings(kind, schedule, one, factor, other):
    assert close(loss_weight(one, schedule, kind), factor * loss_weight(other, schedule, kind))


def test_the_debiased_weight_in_the_units_of_the_forward_process():
    a, s = LINEAR.alpha_bar.sqrt(), (1 - LINEAR.alpha_bar).sqrt()
    assert close(loss_weight("debiased", LINEAR), s / a)
    assert close(loss_weight("debiased", LINEAR, "sample"), a / s)
    assert close(loss_weight("debiased", LINEAR, "v_prediction"), a * s)
    assert loss_weight("debiased", LINEAR, "v_prediction").max() <= 0.5
    assert close(loss_weight("debiased", [1.0], "v_prediction"), [0.5])  # its maximum, at S = 1


@pytest.mark.parametrize(
    "strategy, mean",
    [
        ("debiased", "17.82"),
        ("p2(k=1,gamma=1)", ".7245"),
        ("p2(k=1,gamma=0.5)", ".8059"),
        ("min_snr(gamma=5)", ".9131"),
        ("inverse_snr", "1311"),
        ("edm(sigma_data=0.5)", "5246"),
    ],
)
def test_golden_means(strategy, mean):
    last_digit = 10.0 ** -len(mean.partition(".")[2])
    assert abs(float(loss_weight(strategy, LINEAR).mean()) - float(mean)) <= 0.5001 * last_digit


# against diffusers


@pytest.mark.parametrize("gamma", [1, 5, 20])
@pytest.mark.parametrize("name, theirs", [("linear", "linear"), ("scaled_linear", "scaled_linear"),
                                          ("cosine", "squaredcos_cap_v2")])  # fmt: skip
def test_min_snr_as_in_the_training_scripts_of_diffusers(name, theirs, gamma):
    schedule, t = getattr(Schedule, name)(1000), torch.arange(1000)
    start, end = (0.00085, 0.012) if name == "scaled_linear" else (1e-4, 0.02)
    scheduler = DDPMScheduler(1000, beta_start=start, beta_end=end, beta_schedule=theirs)
    scheduler.alphas_cumprod = schedule.alpha_bar  # their float32 table loses digits of 1 - alpha_bar
    snr = compute_snr(scheduler, t).double()
    clipped = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    for kind, formula in {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1)}.items():
        assert close(loss_weight(f"min_snr(gamma={gamma})", schedule, kind), formula, 1e-6), kind


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", KNOWN)
def test_a_scheduler_of_diffusers_as_the_argument(name, kind):
    for theirs, options, schedule in (
        (DDPMScheduler, {"beta_schedule": "linear"}, LINEAR),
        (DDPMScheduler, {"beta_schedule": "sigmoid"}, Schedule.sigmoid()),
        (DPMSolverMultistepScheduler, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
         Schedule.scaled_linear()),
    ):  # fmt: skip
        table = loss_weight(name, theirs(1000, **options), kind)
        assert table.dtype == torch.float64 and table.shape == (1000,)
        assert close(table, loss_weight(name, schedule, kind), 1e-6)


def test_what_is_predicted_is_the_schedulers_own_if_not_said():
    v, flow = DDPMScheduler(1000, prediction_type="v_prediction"), FlowSchedule.uniform(1000)
    assert torch.equal(loss_weight("debiased", v), loss_weight("debiased", v, "v_prediction"))
    assert torch.equal(loss_weight("debiased", flow), loss_weight("debiased", flow, "flow_prediction"))
    assert torch.equal(loss_weight("debiased", LINEAR), loss_weight("debiased", LINEAR, "epsilon"))
    assert "prediction_type '' is unknown" in refused("debiased", LINEAR, "")


def test_any_scheduler_with_a_table_of_alpha_bar():
    scheduler = SimpleNamespace(alphas_cumprod=LINEAR.alpha_bar)
    assert torch.equal(loss_weight("debiased", scheduler), loss_weight("debiased", LINEAR))


@pytest.mark.parametrize("name", KNOWN)
def test_a_zero_terminal_scheduler_of_diffusers(name):
    """Their rescaled betas are 1 - alpha in float32, which leaves SNR(0) three digits and some."""
    scheduler = DDPMScheduler(1000, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    table, ours = loss_weight(name, scheduler, "v_prediction"), loss_weight(name, TERMINAL, "v_prediction")
    assert table.isfinite().all() and (table[-1] == 0) == (ours[-1] == 0)
    assert close(table, ours, 2e-3)
    if name in ("debiased", "inverse_snr", "max_snr", "edm"):
        assert "infinite where SNR = 0" in refused(name, scheduler, "epsilon")


# SNR = 0

INF = math.inf


@pytest.mark.parametrize(
    "strategy, epsilon, sample, v",
    [
        ("constant", 1, 0, 0),
        ("debiased", INF, 0, 0),
        ("inverse_snr", INF, 1, 1),
        ("p2(k=1,gamma=1)", 1, 0, 0),
        ("p2(k=0.5,gamma=3)", 8, 0, 0),
        ("p2(k=0,gamma=0)", 1, 0, 0),
        ("p2(k=0,gamma=0.99)", INF, 0, 0),
        ("p2(k=0,gamma=1)", INF, 1, 1),
        ("p2(k=0,gamma=1.01)", INF, INF, INF),
        ("min_snr(gamma=5)", 1, 0, 0),
        ("soft_min_snr(gamma=5)", 1, 0, 0),
        ("max_snr(gamma=3)", INF, 3, 3),
        ("edm(sigma_data=2)", INF, 0.25, 0.25),
    ],
)
def test_limits_at_zero_snr(strategy, epsilon, sample, v):
    for kind, limit in zip(TYPES, (epsilon, sample, v, v), strict=True):
        if limit == INF:
            line = refused(strategy, TERMINAL, kind)
            assert "infinite where SNR = 0" in line and "max_weight" in line and kind in line
        else:
            weight = loss_weight(strategy, TERMINAL, kind)
            assert float(weight[-1]) == pytest.approx(limit, rel=1e-12, abs=0)
            # Nothing but the last entry knows of the limit.
            positive = TERMINAL.snr[:-1].numpy()
            wanted = published(strategy, TERMINAL.snr.numpy())[:-1] * FACTOR[kind](positive)
            assert close(weight[:-1], wanted)


def test_the_way_out_is_named_and_works():
    line = "the epsilon weight of 'debiased' is infinite where SNR = 0; use prediction_type='v_prediction' ("
    assert refused("debiased", TERMINAL) == line + "'flow_prediction' in flow matching), or bound it with max_weight"
    line = "the sample weight of 'debiased' is infinite where SNR = inf; leave that timestep out"
    assert refused("debiased", [math.inf, 1.0], "sample") == line
    assert loss_weight("debiased", TERMINAL, "v_prediction")[-1] == 0
    assert loss_weight("debiased", TERMINAL, max_weight=50)[-1] == 50
    assert loss_weight("inverse_snr", TERMINAL, max_weight=50)[-1] == 50
    # p2(k=0,gamma=2) is infinite in every unit, so v is no way out.
    assert loss_weight("p2(k=0,gamma=2)", TERMINAL, max_weight=7)[-1] == pytest.approx(7)


def test_a_tiny_snr_is_no_zero():
    # 40,000 and more steps of the linear schedule reach such SNRs.
    weight = loss_weight("debiased", torch.tensor([1e-250, 1e-300], dtype=torch.float64))
    assert close(weight, [1e125, 1e150])
    # S^-1.5 alone would be more than a float holds.
    assert close(loss_weight("p2(k=0,gamma=1.5)", [1e-210, 1e-250], "sample"), [1e105, 1e125])


# max_weight and normalize


@settings(max_examples=150)
@given(ALL, EXPONENTS, st.one_of(st.none(), st.floats(0.001, 1000)))
def test_the_published_formulas_and_max_weight_before_conversion(strategy, exponents, bound):
    snr = schedule_of(exponents).snr
    wanted = np.minimum(published(strategy, snr.numpy()), np.inf if bound is None else bound)
    for kind in TYPES:
        weight = loss_weight(strategy, snr, kind, max_weight=bound)
        assert close(weight, wanted * FACTOR[kind](snr.numpy()))


@given(ALL, EXPONENTS, st.one_of(st.none(), st.floats(0.001, 1000)), st.sampled_from(TYPES))
def test_normalize_by_the_own_mean_or_by_that_of_epsilon(strategy, exponents, bound, kind):
    snr = schedule_of(exponents).snr
    epsilon = np.minimum(published(strategy, snr.numpy()), np.inf if bound is None else bound)
    plain, own, shared = (loss_weight(strategy, snr, kind, max_weight=bound, normalize=by)
                          for by in (False, True, "epsilon"))  # fmt: skip
    assert close(shared, plain.numpy() / epsilon.mean())
    assert close(own, plain / plain.mean()) and float(own.mean()) == pytest.approx(1, rel=1e-12)
    assert kind != "epsilon" or torch.equal(own, shared)


def test_the_own_mean_is_finite_where_that_of_epsilon_is_not():
    for kind in TYPES[1:]:
        assert float(loss_weight("debiased", TERMINAL, kind, normalize=True).mean()) == pytest.approx(1)
    # v is what the caller has chosen, so it is no way out.
    line = "the epsilon weight of 'debiased' is infinite where SNR = 0; bound it with max_weight"
    assert refused("debiased", TERMINAL, "v_prediction", normalize="epsilon") == line


# arguments


@pytest.mark.parametrize("strategy", ["p2(gamma=0.5)", parse_strategy("p2(gamma=0.5)"), lambda S: (1 + S) ** -0.5])
def test_a_name_a_parsed_name_and_a_callable(strategy):
    assert close(loss_weight(strategy, LINEAR), (1 + LINEAR.snr) ** -0.5)


@pytest.mark.parametrize(
    "kind",
    [
        lambda s: s,
        lambda s: s.snr,
        lambda s: s.snr.tolist(),  # in float32, as torch reads a list, it would be off by 1e-7
        lambda s: pd.Series(s.snr.numpy(), index=range(7, 1007)),
    ],
    ids=["schedule", "tensor", "list", "series"],
)
def test_a_schedule_or_its_snr_in_any_table(kind):
    table = loss_weight("debiased", kind(LINEAR))
    assert table.dtype == torch.float64 and table.shape == (1000,) and table.device.type == "cpu"
    assert close(table, LINEAR.snr.numpy() ** -0.5, 1e-14)


@pytest.mark.parametrize("strategy", KNOWN)
def test_another_default_device(strategy):
    wanted = loss_weight(strategy, TERMINAL, "v_prediction")
    with torch.device("meta"):
        assert torch.equal(loss_weight(strategy, TERMINAL, "v_prediction"), wanted)


NOT_REAL = "it must be a table of real numbers"


@pytest.mark.parametrize(
    "snr, options, line",
    [
        (EDMEulerScheduler(), {}, "a EDMEulerScheduler holds no SNR; give a Schedule, a diffusers scheduler"),
        ("linear", {}, f"the SNR table is 'linear'; {NOT_REAL}"),
        *[([1.0, wrong], {}, "the SNR table has values that are negative or NaN") for wrong in (-1e-9, math.nan)],
        ([[1.0, 2.0]], {}, "the SNR table has shape (1, 2); it must be one-dimensional and not empty"),
        *[(LINEAR, {"max_weight": bound}, f"max_weight is {bound!r}; it must be a finite number > 0")
          for bound in (0, math.nan, "5")],
        (LINEAR, {"prediction_type": "eps"}, "prediction_type 'eps' is unknown; "),
        (LINEAR, {"normalize": "yes"}, "normalize 'yes' is unknown; "),
        (LINEAR, {"strategy": lambda S: 0 * S, "normalize": True}, "normalize divides by the mean weight of '<"),
        (LINEAR, {"strategy": lambda S: "S"}, "the weight of <function <lambda>"),
        # SNR is nowhere 0 here, so the message must not say so but name the smallest.
        (LINEAR, {"strategy": "p2(k=0.1,gamma=1000)"},
         f"the epsilon weight of 'p2(k=0.1,gamma=1000)' is infinite where SNR = {float(LINEAR.snr[-1]):.3g};"),
    ],
)  # fmt: skip
def test_what_is_refused(snr, options, line):
    assert refused(**{"strategy": "debiased", "schedule_or_snr": snr} | options).startswith(line)


@pytest.mark.parametrize("answer", [lambda S: -S, lambda S: S * math.inf, lambda S: S[:5]])
def test_a_callable_that_answers_nonsense(answer):
    wanted = f"the weighting {answer!r} must give one finite weight >= 0 for each of the 1000 timesteps"
    assert refused(answer, LINEAR) == wanted
