"""The one-step estimate and its errors, against the formulas written out and identities that hold for any model."""

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib.diffusion import one_step
from debiaslib.diffusion.one_step import QUANTITIES, mse_by_timestep, one_step_estimate
from debiaslib.diffusion.optimum import OptimalDenoiser
from debiaslib.diffusion.prediction import PREDICTION_TYPES
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError

SCHEDULE = Schedule.linear()
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def scales(t):
    return ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(count, seed=0, shape=(3, 4, 4)):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def wavy(x, t):
    """Some model, right in no parametrisation."""
    return torch.sin(3 * x) + 0.1 + t.view(-1, 1, 1, 1) / 1000


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [0, 250, 999])
def test_the_amplified_error_is_what_the_estimate_lacks(kind, t):
    x0, noise = images(5), normal(5, 3, 4, 4, seed=1)
    one = one_step_estimate(wavy, x0, t, noise, SCHEDULE, kind)
    a, s = scales(t)
    assert torch.allclose(one.x_t, a * x0 + s * noise, rtol=0, atol=1e-12)
    assert torch.allclose(one.x0_hat + one.amplified_error, x0, rtol=0, atol=1e-9)
    assert torch.allclose(one.amplified_error, (one.epsilon_hat - noise) * (s / a), rtol=1e-10, atol=1e-10)
    output = wavy(one.x_t, torch.full((5,), t))
    expected = {
        "epsilon": (one.x_t - s * output) / a,
        "sample": output,
        "v_prediction": a * one.x_t - s * output,
    }[kind]
    assert torch.allclose(one.x0_hat, expected, rtol=1e-10, atol=1e-10)


def test_the_model_sees_batches_and_the_batches_do_not_matter(monkeypatch):
    seen = []

    def model(x, t):
        seen.append((len(x), t.tolist()))
        return wavy(x, t)

    x0, noise = images(7), normal(7, 3, 4, 4)
    whole = one_step_estimate(wavy, x0, 5, noise, SCHEDULE)
    monkeypatch.setattr(one_step, "_BATCH_SIZE", 3)
    one = one_step_estimate(model, x0, 5, noise, SCHEDULE)
    assert seen == [(3, [5] * 3), (3, [5] * 3), (1, [5])]
    assert torch.equal(one.x0_hat, whole.x0_hat)


# Errors by timestep


class Spy:
    """A model that keeps what it is shown."""

    def __init__(self, factor):
        self.factor, self.seen = factor, []

    def __call__(self, x, t):
        self.seen.append(x)
        return self.factor * x


def test_all_models_see_the_same_noise_and_other_seeds_see_other():
    x0 = images(6)
    spies = {"one": Spy(0.5), "two": Spy(0.1)}
    mse_by_timestep(spies, x0, [10, 900], SCHEDULE, seed=3)
    assert len(spies["one"].seen) == 2
    for first, second in zip(spies["one"].seen, spies["two"].seen, strict=True):
        assert torch.equal(first, second)
    noises = [(x - scales(t)[0] * x0) / scales(t)[1] for x, t in zip(spies["one"].seen, (10, 900), strict=True)]
    assert (noises[0] - noises[1]).abs().max() > 1  # each t has its own
    alone, other = Spy(1), Spy(1)
    mse_by_timestep({"alone": alone}, x0, [900], SCHEDULE, seed=3)  # whatever else is measured
    mse_by_timestep({"other": other}, x0, [900], SCHEDULE, seed=4)
    assert torch.equal(alone.seen[0], spies["one"].seen[1])
    assert (other.seen[0] - alone.seen[0]).abs().max() > 1


def one_value(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    return table.sort_values("image").value.to_numpy()


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_every_quantity_by_hand(kind):
    x0, spy = images(4), Spy(0.3)
    table = mse_by_timestep({"spy": spy}, x0, [100, 800], SCHEDULE, prediction_type=kind)
    assert list(table.columns) == ["model", "t", "image", "quantity", "value"]
    assert len(table) == 2 * 2 * 3 * 4 and set(table.model) == {"spy", "initial"}
    for t, x_t in zip((100, 800), spy.seen, strict=True):
        a, s = scales(t)
        x0_hat = {"epsilon": (1 - 0.3 * s) / a * x_t, "sample": 0.3 * x_t, "v_prediction": (a - 0.3 * s) * x_t}[kind]
        epsilon, epsilon_hat = (x_t - a * x0) / s, (x_t - a * x0_hat) / s
        for i in range(4):
            by_hand = {
                "epsilon_mse": np.mean((epsilon_hat[i] - epsilon[i]).numpy() ** 2),
                "x0_mse": np.mean((x0_hat[i] - x0[i]).numpy() ** 2),
                "colour_mse": np.mean(np.mean((x0_hat[i] - x0[i]).numpy(), axis=(1, 2)) ** 2),
            }
            for quantity, value in by_hand.items():
                measured = one_value(table, model="spy", t=t, quantity=quantity)
                assert measured[i] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("t", [0, 250, 700, 999])
def test_the_closed_form_of_an_untrained_network_that_answers_x_t(t):
    """E|x_t - epsilon|^2 = abar E[x0^2] + (1-s)^2 and E|x_t - x0|^2 = (1-a)^2 E[x0^2] + s^2 (per pixel)."""
    x0 = images(400)
    table = mse_by_timestep({}, x0, [t], SCHEDULE)
    (a, s), power = scales(t), x0.square().mean().item()
    closed = {"epsilon_mse": a**2 * power + (1 - s) ** 2, "x0_mse": (1 - a) ** 2 * power + s**2}
    for quantity, value in closed.items():
        measured = one_value(table, model="initial", quantity=quantity)
        assert abs(measured.mean() - value) < 4 * measured.std() / 400**0.5


SET = (images(20) * 127.5 + 127.5).round().to(torch.uint8).numpy()
FLOATS = torch.from_numpy(SET).double() / 127.5 - 1
FEW = OptimalDenoiser(SET, SCHEDULE)


def drawn(count):
    """x0 drawn from the set, with repetition."""
    index = torch.randint(20, (count,), generator=torch.Generator().manual_seed(9))
    return FLOATS[index]


MODELS = {
    "wavy": lambda x, t: 0.3 * wavy(x, t),
    "nothing": lambda x, t: torch.zeros_like(x),
    "mean": lambda x, t: FLOATS.mean(dim=0).expand_as(x),
    "shrunk": lambda x, t: 0.5 * x,
    "half the set": lambda x, t: OptimalDenoiser(SET[:10], SCHEDULE)(x, t),
    "another step": lambda x, t: FEW(x, (t - 150).clamp(min=0)),
}


TIMES = [0, 50, 200, 600, 800, 950, 999]


@pytest.fixture(scope="module")
def errors():
    return mse_by_timestep(MODELS, drawn(3000), TIMES, SCHEDULE, prediction_type="sample", optimal=FEW)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("model", MODELS)
def test_an_error_is_the_floor_and_the_excess(errors, model, t):
    """For x0 from the denoiser's own images, and for no other x0; image by image only on average."""
    where = {"model": model, "t": t}
    gap = one_value(errors, quantity="x0_mse", **where) - one_value(errors, quantity="excess", **where)
    gap -= one_value(errors, model="optimum", t=t, quantity="x0_mse")
    cross = one_value(errors, quantity="cross", **where)
    assert np.abs(gap - cross).max() < 1e-12
    if t < 100:  # twenty images are told apart there: no floor, and nothing that crosses
        assert np.abs(cross).max() < 1e-6
    else:
        assert np.abs(cross).max() > 0 and abs(cross.mean()) < 4 * cross.std() / len(cross) ** 0.5
    if t == 600:  # the two sides are no zeros
        assert one_value(errors, quantity="excess", **where).mean() > 5 * abs(cross.mean())


def test_models_that_predict_different_things():
    x0 = images(4)
    kinds = {"noise": "epsilon", "image": "sample"}
    both = mse_by_timestep(dict.fromkeys(kinds, wavy), x0, [700], SCHEDULE, prediction_type=kinds)
    for name, kind in kinds.items():
        alone = mse_by_timestep({name: wavy}, x0, [700], SCHEDULE, prediction_type=kind)
        for quantity in ("x0_mse", "epsilon_mse"):
            where = {"model": name, "quantity": quantity}
            assert np.array_equal(one_value(both, **where), one_value(alone, **where))


@pytest.mark.parametrize("t", [600, 800, 950])
@pytest.mark.parametrize("model", MODELS)
def test_no_model_beats_the_optimum(errors, model, t):
    for quantity in ("x0_mse", "epsilon_mse"):
        worse = one_value(errors, model=model, t=t, quantity=quantity)
        worse = worse - one_value(errors, model="optimum", t=t, quantity=quantity)
        error = worse.std() / len(worse) ** 0.5
        assert worse.mean() > (4 if t == 600 else -3) * error  # at high t some come close to it


def test_the_optimum_is_at_no_distance_from_itself_and_memorises_at_low_t(errors):
    assert (errors[(errors.model == "optimum") & errors.quantity.isin(QUANTITIES[3:])].value == 0).all()
    assert one_value(errors, model="optimum", t=50, quantity="x0_mse").mean() < 1e-6


def test_the_excess_of_a_clipped_estimate():
    """E|clip(x0_hat) - m|^2 by hand: what is left of the excess when a sampler clips."""
    x0, spy = images(4), Spy(3.0)
    table = mse_by_timestep({"spy": spy}, x0, [800], SCHEDULE, prediction_type="sample", optimal=FEW)
    best = FEW(spy.seen[0], 800)
    wanted = ((3 * spy.seen[0]).clamp(-1, 1) - best).square().mean(dim=(1, 2, 3)).numpy()
    found, plain = (one_value(table, model="spy", quantity=name) for name in ("clipped_excess", "excess"))
    assert np.allclose(found, wanted, rtol=1e-9) and (found < plain).all()
    assert QUANTITIES[-1] == "clipped_excess" and set(table.quantity) == set(QUANTITIES)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
def test_the_amplified_error_where_no_signal_is_left(kind):
    x0 = images(5)
    one = one_step_estimate(wavy, x0, 999, normal(5, 3, 4, 4), SCHEDULE.rescale_zero_terminal_snr(), kind)
    assert torch.allclose(one.x0_hat + one.amplified_error, x0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_in_half_precision_are_measured_in_float32(dtype):
    x0, zero = images(4).to(dtype), lambda x, t: torch.zeros_like(x)
    half, whole = (mse_by_timestep({"zero": zero}, x, [999], SCHEDULE) for x in (x0, x0.float()))
    pd.testing.assert_frame_equal(half, whole)
    assert np.isfinite(half["value"]).all() and half["value"].max() > 1e4  # a square of this size overflows in float16


ONE, ZERO = normal(2, 3, 4, 4), images(2)


@pytest.mark.parametrize(
    "call, line",
    [
        *[(lambda t=t: one_step_estimate(wavy, ZERO, t, ONE, SCHEDULE), "t is .*; it must be a whole number >= 0 and ")
          for t in (-1, 1000, 2.0, True, None, "5")],
        (lambda: one_step_estimate(wavy, ZERO[0], 5, ONE, SCHEDULE), r"x0 has shape \(3, 4, 4\)"),
        (lambda: one_step_estimate(wavy, ZERO * 100, 5, ONE, SCHEDULE), "x0 reaches .*; images must be in"),
        (lambda: one_step_estimate(wavy, ZERO, 5, ONE, SCHEDULE, labels=[1]), "labels has 1 entries"),
        (lambda: one_step_estimate(lambda x, t: x / 0, ZERO, 5, ONE, SCHEDULE), "answers at t = 5 must be finite"),
        (lambda: mse_by_timestep({"wavy": wavy}, images(0), [5], SCHEDULE), r"x0 has shape \(0, "),
        (lambda: mse_by_timestep({}, ZERO.byte(), [5], SCHEDULE), "x0 reaches .* .torch.uint8.; images must be in"),
        (lambda: mse_by_timestep({"wavy": wavy}, ZERO, [], SCHEDULE), "timesteps is ..; it must list at least one"),
        (lambda: mse_by_timestep(wavy, ZERO, [5], SCHEDULE), "models is <function"),
        (lambda: mse_by_timestep({"initial": wavy}, ZERO, [5], SCHEDULE), "no name initial or optimum"),
    ],
)  # fmt: skip
def test_what_is_refused(call, line):
    with pytest.raises(InputError, match=line):
        call()
