"""The loss weight: one objective in three units, the published formulas, the identities, the limits at SNR = 0."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.errors import InputError
from debiaslib.prediction import PREDICTION_TYPES, prediction_target, to_x0_epsilon
from debiaslib.schedule import Schedule
from debiaslib.strategies import KNOWN, parse_strategy
from debiaslib.weighting import loss_weight

LINEAR = Schedule.linear()
TERMINAL = LINEAR.rescale_zero_terminal_snr()

# The weight of the epsilon loss as published, in numpy.
EPSILON = {
    "constant": lambda S: np.ones_like(S),
    "debiased": lambda S: 1 / np.sqrt(S),
    "inverse_snr": lambda S: 1 / S,
    "p2": lambda S, k, gamma: 1 / (k + S) ** gamma,
    "min_snr": lambda S, gamma: np.minimum(S, gamma) / S,
    "soft_min_snr": lambda S, gamma: gamma / (S + gamma),
    "max_snr": lambda S, gamma: np.maximum(S, gamma) / S,
}
POSITIVE = st.floats(0.01, 100)
STRATEGIES = st.one_of(
    st.sampled_from(["constant", "debiased", "inverse_snr"]),
    st.builds("p2(k={},gamma={})".format, st.one_of(st.just(0), st.floats(0, 10)), st.floats(0, 3)),
    st.builds("{}(gamma={})".format, st.sampled_from(["min_snr", "soft_min_snr", "max_snr"]), POSITIVE),
)
EXPONENTS = st.lists(st.floats(-6, 6), min_size=1, max_size=12, unique=True)


def published(strategy, snr):
    parsed = parse_strategy(strategy)
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
    """The network's estimate in all three units, from its output in one of them."""
    x0_hat, epsilon_hat = to_x0_epsilon(output, x_t, t, schedule, prediction_type)
    return {kind: prediction_target(x0_hat, epsilon_hat, t, schedule, kind) for kind in PREDICTION_TYPES}


# one objective, three units


@settings(max_examples=600)
@given(STRATEGIES, EXPONENTS, st.sampled_from(PREDICTION_TYPES), st.booleans(), st.integers(0, 2**32))
def test_the_three_losses_and_their_gradients_agree(strategy, exponents, answered, bounded, seed):
    schedule = schedule_of(exponents)
    t = torch.arange(schedule.T)
    generator = torch.Generator().manual_seed(seed)
    x0, noise, answer = torch.randn(3, schedule.T, 24, generator=generator, dtype=torch.float64)
    x_t = schedule.add_noise(x0, noise, t)
    # Any network's answer, in any of the three units, read as an estimate of epsilon.
    epsilon_hat = to_x0_epsilon(answer, x_t, t, schedule, answered)[1].clone().requires_grad_()
    estimate = estimates(epsilon_hat, x_t, t, schedule, "epsilon")

    losses, gradients = {}, {}
    for kind in PREDICTION_TYPES:
        weight = loss_weight(strategy, schedule, kind, max_weight=2.0 if bounded else None)
        error = (estimate[kind] - prediction_target(x0, noise, t, schedule, kind)).square().mean(1)
        losses[kind] = weight * error
        gradients[kind] = torch.autograd.grad(losses[kind].sum(), epsilon_hat, retain_graph=True)[0]

    expected = published(strategy, schedule.snr.numpy())
    expected = torch.from_numpy(np.minimum(expected, 2.0) if bounded else expected)
    squared = (epsilon_hat - noise).square().mean(1).detach()
    slope = expected[:, None] * 2 * (epsilon_hat - noise).detach() / 24
    for kind in PREDICTION_TYPES:
        assert close(losses[kind].detach(), expected * squared, 1e-10), kind
        distance = (gradients[kind] - slope).norm(dim=1) / slope.norm(dim=1)
        assert distance.max() < 1e-10, kind


@settings(max_examples=500)
@given(STRATEGIES, EXPONENTS)
def test_the_published_formulas(strategy, exponents):
    snr = schedule_of(exponents).snr
    weight = published(strategy, snr.numpy())
    assert close(loss_weight(strategy, snr), weight)
    assert close(loss_weight(strategy, snr, "sample"), weight * snr.numpy())
    assert close(loss_weight(strategy, snr, "v_prediction"), weight * (snr / (1 + snr)).numpy())


def test_every_known_weighting_is_tested():
    assert set(EPSILON) == set(KNOWN)


# identities


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", [LINEAR, Schedule.cosine(), Schedule.scaled_linear()], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "one, factor, other",
    [
        ("debiased", 1, "p2(k=0,gamma=0.5)"),
        ("inverse_snr", 1, "p2(k=0,gamma=1)"),
        ("constant", 1, "p2(k=3,gamma=0)"),
        ("constant", 1, "p2(k=0,gamma=0)"),
        ("soft_min_snr(gamma=5)", 5, "p2(k=5,gamma=1)"),
        ("soft_min_snr(gamma=0.3)", 0.3, "p2(k=0.3,gamma=1)"),
        ("constant", 1, "min_snr(gamma=1e9)"),
        ("constant", 1, "max_snr(gamma=1e-12)"),
        ("max_snr(gamma=1e9)", 1e9, "inverse_snr"),
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


def test_other_weights_in_the_units_of_the_forward_process():
    a2, s2 = LINEAR.alpha_bar, 1 - LINEAR.alpha_bar
    assert close(loss_weight("constant", LINEAR, "v_prediction"), a2)
    assert close(loss_weight("inverse_snr", LINEAR, "v_prediction"), s2)
    assert close(loss_weight("p2(k=1,gamma=1)", LINEAR), s2)
    assert close(loss_weight("inverse_snr", LINEAR, "sample"), torch.ones(1000))
    assert close(loss_weight("max_snr(gamma=1)", LINEAR, "sample"), LINEAR.snr.clamp(min=1))  # Salimans & Ho 2022
    assert close(loss_weight(lambda S: 1 + 1 / S, LINEAR, "v_prediction"), torch.ones(1000))  # the plain error of v


@pytest.mark.parametrize(
    "strategy, mean",
    [
        ("debiased", "17.82"),
        ("p2(k=1,gamma=1)", ".7245"),
        ("p2(k=1,gamma=0.5)", ".8059"),
        ("min_snr(gamma=5)", ".9131"),
        ("inverse_snr", "1311"),
        (lambda S: 1 + 4 / S, "5246"),  # EDM, sigma_data = 0.5
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
    # Their own float32 table loses digits of 1 - alpha_bar; the same arithmetic on a float64 table does not.
    for source, tolerance in (
        (scheduler, 5e-7 / (1 - schedule.alpha_bar) + 1e-4),
        (schedule_namespace(schedule), 1e-6),
    ):
        snr = compute_snr(source, t).double()
        clipped = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
        for kind, formula in {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1)}.items():
            ours = loss_weight(f"min_snr(gamma={gamma})", schedule, kind)
            assert ((ours / formula - 1).abs() <= tolerance).all(), kind


def schedule_namespace(schedule):
    return SimpleNamespace(alphas_cumprod=schedule.alpha_bar)


def test_snr_as_in_diffusers():
    snr = compute_snr(schedule_namespace(LINEAR), torch.arange(1000))
    assert ((LINEAR.snr / snr.double() - 1).abs() < 1e-6).all()


# SNR = 0

INF = math.inf


@pytest.mark.parametrize(
    "strategy, epsilon, sample, v",
    [
        ("constant", 1, 0, 0),
        ("debiased", INF, 0, 0),
        ("inverse_snr", INF, 1, 1),
        ("p2(k=1,gamma=1)", 1, 0, 0),
        ("p2(k=2,gamma=1)", 0.5, 0, 0),
        ("p2(k=4,gamma=0.5)", 0.5, 0, 0),
        ("p2(k=0.5,gamma=3)", 8, 0, 0),
        ("p2(k=0,gamma=0)", 1, 0, 0),
        ("p2(k=0,gamma=0.25)", INF, 0, 0),
        ("p2(k=0,gamma=0.99)", INF, 0, 0),
        ("p2(k=0,gamma=1)", INF, 1, 1),
        ("p2(k=0,gamma=1.01)", INF, INF, INF),
        ("p2(k=0,gamma=2)", INF, INF, INF),
        ("p2(k=0,gamma=50)", INF, INF, INF),
        ("min_snr(gamma=5)", 1, 0, 0),
        ("min_snr(gamma=0.01)", 1, 0, 0),
        ("soft_min_snr(gamma=5)", 1, 0, 0),
        ("max_snr(gamma=1)", INF, 1, 1),
        ("max_snr(gamma=3)", INF, 3, 3),
    ],
)
def test_limits_at_zero_snr(strategy, epsilon, sample, v):
    for kind, limit in zip(PREDICTION_TYPES, (epsilon, sample, v), strict=True):
        if limit == INF:
            line = refused(strategy, TERMINAL, kind)
            assert "infinite where SNR = 0" in line and "max_weight" in line and kind in line
        else:
            weight = loss_weight(strategy, TERMINAL, kind)
            assert float(weight[-1]) == pytest.approx(limit, rel=1e-12, abs=0)
            # Nothing but the last entry knows of the limit.
            positive = TERMINAL.snr[:-1].numpy()
            factor = {"epsilon": 1, "sample": positive, "v_prediction": positive / (1 + positive)}[kind]
            assert close(weight[:-1], published(strategy, positive) * factor)


def test_the_way_out_is_named_and_works():
    assert "prediction_type='v_prediction'" in refused("debiased", TERMINAL)
    assert loss_weight("debiased", TERMINAL, "v_prediction")[-1] == 0
    assert loss_weight("debiased", TERMINAL, max_weight=50)[-1] == 50
    assert loss_weight("inverse_snr", TERMINAL, max_weight=50)[-1] == 50
    # p2(k=0,gamma=2) is infinite in every unit, so v is no way out.
    assert loss_weight("p2(k=0,gamma=2)", TERMINAL, max_weight=7)[-1] == pytest.approx(7)


def test_the_way_out_is_not_the_one_already_taken():
    assert "use prediction_type='v_prediction'" not in refused("p2(k=0,gamma=2)", TERMINAL, "v_prediction")
    # The mean of the epsilon table is what normalize divides by, and it is infinite here.
    line = refused("debiased", TERMINAL, "v_prediction", normalize=True)
    assert "normalize" in line and "use prediction_type='v_prediction'" not in line


@pytest.mark.parametrize("kind, at_zero", [("epsilon", 10), ("sample", 0), ("v_prediction", 0)])
def test_a_bounded_weight_at_zero_snr(kind, at_zero):
    weight = loss_weight("debiased", TERMINAL, kind, max_weight=10)
    assert float(weight[-1]) == pytest.approx(at_zero, abs=1e-100)
    assert loss_weight("debiased", TERMINAL, kind, max_weight=10, normalize=True).isfinite().all()


def test_a_callable_at_zero_snr():
    assert loss_weight(lambda S: 1 / (1 + S), TERMINAL)[-1] == 1
    assert loss_weight(lambda S: 1 / S, TERMINAL, "sample")[-1] == pytest.approx(1)
    assert "infinite where SNR = 0" in refused(lambda S: 1 / S, TERMINAL)


@settings(max_examples=200)
@given(STRATEGIES, st.sampled_from(PREDICTION_TYPES))
def test_zero_snr_gives_a_limit_or_the_documented_error(strategy, kind):
    snr = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)
    try:
        weight = loss_weight(strategy, snr, kind)
    except InputError as error:
        assert "infinite where SNR = 0" in str(error)
        return
    assert weight.isfinite().all() and (weight >= 0).all()
    # A finite limit is what the weight tends to.
    near = loss_weight(strategy, torch.tensor([1e-60, 1e-120], dtype=torch.float64), kind)
    assert abs(near[1] - weight[-1]) <= abs(near[0] - weight[-1]) + 1e-12 * weight[-1]


def test_a_tiny_snr_is_no_zero():
    # 40,000 and more steps of the linear schedule reach such SNRs.
    weight = loss_weight("debiased", torch.tensor([1e-250, 1e-300], dtype=torch.float64))
    assert close(weight, [1e125, 1e150])


# max_weight and normalize


@given(STRATEGIES, EXPONENTS, st.floats(0.001, 1000), st.sampled_from(PREDICTION_TYPES))
def test_max_weight_bounds_the_epsilon_weight_before_conversion(strategy, exponents, bound, kind):
    snr = schedule_of(exponents).snr
    factor = {"epsilon": torch.ones_like(snr), "sample": snr, "v_prediction": snr / (1 + snr)}[kind]
    wanted = np.minimum(published(strategy, snr.numpy()), bound) * factor.numpy()
    assert close(loss_weight(strategy, snr, kind, max_weight=bound), wanted)


@given(STRATEGIES, EXPONENTS, st.one_of(st.none(), st.floats(0.001, 1000)), st.sampled_from(PREDICTION_TYPES))
def test_normalize_divides_by_the_mean_of_the_epsilon_table(strategy, exponents, bound, kind):
    snr = schedule_of(exponents).snr
    epsilon = np.minimum(published(strategy, snr.numpy()), np.inf if bound is None else bound)
    plain = loss_weight(strategy, snr, kind, max_weight=bound)
    normalized = loss_weight(strategy, snr, kind, max_weight=bound, normalize=True)
    assert close(normalized, plain.numpy() / epsilon.mean())
    if kind == "epsilon":
        assert float(normalized.mean()) == pytest.approx(1, rel=1e-12)


def test_a_weight_that_is_zero_everywhere_cannot_be_normalized():
    assert "mean" in refused(lambda S: 0 * S, LINEAR, normalize=True)


# arguments


@pytest.mark.parametrize("strategy", ["p2(gamma=0.5)", parse_strategy("p2(gamma=0.5)"), lambda S: (1 + S) ** -0.5])
def test_a_name_a_parsed_name_and_a_callable(strategy):
    assert close(loss_weight(strategy, LINEAR), (1 + LINEAR.snr) ** -0.5)


def test_a_callable_sees_the_snr():
    seen = []
    loss_weight(lambda S: seen.append(S.clone()) or torch.ones_like(S), LINEAR)
    assert torch.equal(seen[0], LINEAR.snr)
    assert close(loss_weight(lambda S: S.numpy() ** -0.5, LINEAR), loss_weight("debiased", LINEAR))


@pytest.mark.parametrize("kind", [lambda s: s, lambda s: s.snr, lambda s: s.snr.numpy(), lambda s: s.snr.tolist()],
                         ids=["schedule", "tensor", "numpy", "list"])  # fmt: skip
def test_a_schedule_or_its_snr(kind):
    # A list in float32, as torch reads it, would be off by 1e-7.
    table = loss_weight("debiased", kind(LINEAR))
    assert table.dtype == torch.float64 and table.shape == (1000,) and table.device.type == "cpu"
    assert close(table, LINEAR.snr.numpy() ** -0.5, 1e-14)


def test_a_float32_table_gives_float64_and_is_left_as_it_was():
    snr = LINEAR.snr.float()
    before = snr.clone()
    weight = loss_weight("debiased", snr, max_weight=2, normalize=True)
    assert weight.dtype == torch.float64
    assert torch.equal(snr, before)
    loss_weight("constant", LINEAR, "sample").zero_()
    assert (LINEAR.snr > 0).all()  # the answer is no view of the schedule


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "", None, 3, "Epsilon", ["epsilon"]])
def test_an_unknown_prediction_type(kind):
    assert refused("debiased", LINEAR, kind).startswith(f"prediction_type {kind!r} is unknown;")


def test_unknown_strategies():
    assert "did you mean 'debiased'?" in refused("debaised", LINEAR)
    assert "it must be a finite number > 0" in refused("min_snr(gamma=-1)", LINEAR)
    assert "it must be a finite number >= 0" in refused("p2(k=1e999)", LINEAR)
    for strategy in (None, 3, ["debiased"], {"debiased": 1}):
        assert "it must be a string" in refused(strategy, LINEAR)


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf, "5", True])
def test_max_weight_out_of_range(bound):
    assert refused("debiased", LINEAR, max_weight=bound) == f"max_weight is {bound!r}; it must be a finite number > 0"


@pytest.mark.parametrize(
    "snr, part",
    [
        ([1.0, -1e-9], "negative or not finite"),
        ([1.0, math.nan], "negative or not finite"),
        ([math.inf, 1.0], "negative or not finite"),
        ([[1.0, 2.0]], "one-dimensional"),
        (3.0, "one-dimensional"),
    ],
)
def test_a_table_that_is_no_snr(snr, part):
    assert part in refused("debiased", torch.tensor(snr))


@pytest.mark.parametrize(
    "answer", [lambda S: -S, lambda S: S * math.nan, lambda S: S * math.inf, lambda S: S[:5], lambda S: 2.0]
)
def test_a_callable_that_answers_nonsense(answer):
    assert "one finite weight >= 0 for each of the 1000 timesteps" in refused(answer, LINEAR)


def test_a_weight_too_large_for_a_float():
    # SNR is nowhere 0 here, so the message must not say so.
    line = refused("p2(k=0.1,gamma=1000)", LINEAR)
    assert "infinite" in line and "SNR = 0" not in line
