"""From a network's output to (x0, epsilon): round trips, diffusers' own conversions, and what cannot be converted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.diffusion.prediction import ALL_PREDICTION_TYPES as TYPES
from debiaslib.diffusion.prediction import call_network, network_output, prediction_target, to_x0_epsilon
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError

LINEAR = Schedule.linear()
T = torch.tensor([0, 1, 10, 250, 500, 750, 998, 999])


def pair(seed=0, dtype=torch.float64):
    return torch.randn(2, len(T), 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=100)
@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=8, unique=True),
    st.sampled_from(TYPES),
    st.integers(0, 999),
)
def test_a_perfect_answer_gives_back_both(exponents, kind, seed):
    snr = 10.0 ** np.unique(np.round(exponents, 4))[::-1]
    schedule = Schedule(torch.from_numpy(snr / (1 + snr)))
    t = torch.arange(schedule.T)
    x0, noise = torch.randn(2, schedule.T, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    output = prediction_target(x0, noise, t, schedule, kind)
    x0_hat, epsilon_hat = to_x0_epsilon(output, schedule.add_noise(x0, noise, t), t, schedule, kind)
    # x0 is (x_t - s epsilon) / a, which loses sqrt(1/SNR) of the 16 digits, and epsilon likewise: 1e3 here.
    assert torch.allclose(x0_hat, x0, rtol=0, atol=1e-11)
    assert torch.allclose(epsilon_hat, noise, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", TYPES)
def test_any_answer_is_one_point_on_the_line(kind):
    # Whatever the network says, a x0_hat + s epsilon_hat = x_t, and the target of the pair is the answer.
    output, x_t = pair()
    x0_hat, epsilon_hat = to_x0_epsilon(output, x_t, T, LINEAR, kind)
    assert torch.allclose(LINEAR.add_noise(x0_hat, epsilon_hat, T), x_t, rtol=0, atol=1e-12)
    assert torch.allclose(prediction_target(x0_hat, epsilon_hat, T, LINEAR, kind), output, rtol=0, atol=1e-11)


def test_epsilon_is_what_a_network_predicts_unless_it_is_said():
    x0, noise = pair()
    assert prediction_target(x0, noise, T, LINEAR) is noise
    output, x_t = pair(seed=1)
    assert torch.equal(to_x0_epsilon(output, x_t, T, LINEAR)[1], output)


def test_the_target_of_v_is_the_velocity_of_diffusers():
    scheduler = DDPMScheduler(1000)
    x0, noise = pair()
    theirs = scheduler.get_velocity(x0.float(), noise.float(), T)
    ours = prediction_target(x0.float(), noise.float(), T, LINEAR, "v_prediction")
    assert ours.dtype == torch.float32 and (ours - theirs).abs().max() < 2e-5  # their 1 - alpha_bar is in float32
    scheduler.alphas_cumprod = LINEAR.alpha_bar
    theirs = scheduler.get_velocity(x0, noise, T)
    assert (prediction_target(x0, noise, T, LINEAR, "v_prediction") - theirs).abs().max() < 1e-14


@pytest.mark.parametrize("kind", TYPES[:3])
def test_x0_as_the_scheduler_of_diffusers_has_it(kind):
    scheduler = DDPMScheduler(1000, prediction_type=kind, clip_sample=False)
    output, x_t = pair()
    ours = to_x0_epsilon(output, x_t, T, LINEAR, kind)[0]
    assert torch.allclose(to_x0_epsilon(output, x_t, T, scheduler, kind)[0], ours, rtol=1e-5, atol=1e-6)
    single = to_x0_epsilon(output.float(), x_t.float(), T, LINEAR, kind)[0]
    for i, t in enumerate(T.tolist()):
        theirs = scheduler.step(output[i].float(), t, x_t[i].float()).pred_original_sample
        assert torch.allclose(single[i], theirs, rtol=1e-4, atol=1e-4)
    scheduler.alphas_cumprod = LINEAR.alpha_bar  # their arithmetic on our table
    for i, t in enumerate(T.tolist()):
        theirs = scheduler.step(output[i], t, x_t[i]).pred_original_sample
        assert torch.allclose(ours[i], theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", TYPES)
def test_dtype_and_shape_are_kept_and_nothing_is_clipped(kind, dtype):
    output, x_t = (100 * pair()).to(dtype)
    for part in to_x0_epsilon(output, x_t, T, LINEAR, kind):
        assert part.dtype == dtype and part.shape == x_t.shape
    assert to_x0_epsilon(output, x_t, T, LINEAR, kind)[0].abs().max() > 100


@pytest.mark.parametrize("shape", [(8, 3, 4, 1), (1, 3, 4, 4), (8, 6, 4, 4), ()])
def test_an_output_of_another_shape_is_not_stretched(shape):
    _, x_t = pair()
    with pytest.raises(InputError) as caught:
        to_x0_epsilon(torch.zeros(shape), x_t, T, LINEAR)
    assert str(caught.value) == f"output has shape {shape}; it must be that of x_t, (8, 3, 4, 4)"


def test_as_many_timesteps_as_images_and_noise_of_their_shape():
    _, x_t = pair()
    for call in (to_x0_epsilon, lambda *one: LINEAR.add_noise(*one[:3])):
        with pytest.raises(InputError, match="t has 3 entries; it must be a whole number, or one for each of 1 images"):
            call(x_t[:1], x_t[:1], torch.arange(3), LINEAR)
        with pytest.raises(InputError, match=r"t has shape \(8, 1\); it must be a whole number, or one for each image"):
            call(x_t, x_t, torch.zeros(8, 1, dtype=torch.int64), LINEAR)
    with pytest.raises(InputError, match=r"noise has shape \(1, 3, 4, 4\); it must be \(8, 3, 4, 4\)"):
        prediction_target(x_t, x_t[:1], 5, LINEAR, "v_prediction")


def test_no_signal_at_the_end_of_a_zero_terminal_schedule():
    schedule = LINEAR.rescale_zero_terminal_snr()
    x0, noise = pair()
    x_t = schedule.add_noise(x0, noise, 999)
    assert torch.equal(x_t, noise)
    with pytest.raises(InputError) as caught:
        to_x0_epsilon(noise, x_t, T, schedule, "epsilon")  # one of the eight is 999
    assert str(caught.value) == (
        "epsilon does not determine x0 where SNR = 0; "
        "use prediction_type='v_prediction' (in flow matching 'flow_prediction') or 'sample'"
    )
    to_x0_epsilon(noise[:-1], x_t[:-1], T[:-1], schedule, "epsilon")
    for kind in TYPES[1:]:
        x0_hat, epsilon_hat = to_x0_epsilon(prediction_target(x0, noise, 999, schedule, kind), x_t, 999, schedule, kind)
        assert torch.allclose(x0_hat, x0) and torch.allclose(epsilon_hat, noise)


@pytest.mark.parametrize("kind", ["eps", None, 1])
def test_an_unknown_prediction_type(kind):
    x0, noise = pair()
    for call in (prediction_target, to_x0_epsilon):
        with pytest.raises(
            InputError, match="^prediction_type .* is unknown; .*known: epsilon, sample, v_prediction, flow_prediction$"
        ):
            call(x0, noise, T, LINEAR, kind)


@pytest.mark.parametrize("kind", TYPES)
def test_nothing_leaves_the_device_of_the_images_or_waits_for_it(kind):
    """The device "meta" holds no values: it refuses tensors of the CPU, and where a value is asked for."""
    output, x_t = (tensor.to("meta") for tensor in pair())
    for t in (T, 500):
        parts = to_x0_epsilon(output, x_t, t, LINEAR, kind)
        assert all(part.device.type == "meta" and part.shape == x_t.shape for part in parts)
        assert prediction_target(output, x_t, t, LINEAR, kind).device.type == "meta"
    if kind == "epsilon":
        with pytest.raises(InputError, match="SNR = 0"):
            to_x0_epsilon(output, x_t, T, LINEAR.rescale_zero_terminal_snr(), kind)


# the network itself


def test_the_first_half_of_learned_variance_is_the_prediction_whatever_the_container():
    x_t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    answers = torch.cat([x_t + 1, x_t * 0 + 77], dim=1)
    for network in (lambda x, t: answers, lambda x, t: SimpleNamespace(sample=answers)):
        assert torch.equal(call_network(network, x_t, torch.tensor([1, 2])), x_t + 1)


@pytest.mark.parametrize("channels", [1, 4, 9])
def test_an_answer_of_another_shape_is_refused(channels):
    with pytest.raises(InputError, match=rf"\(2, {channels}, 4, 4\) to an input of \(2, 3, 4, 4\)"):
        call_network(lambda x, t: torch.zeros(2, channels, 4, 4), torch.zeros(2, 3, 4, 4), 0)


@pytest.mark.parametrize("call", [network_output, call_network])
def test_classes_reach_the_network_by_their_name_and_only_where_there_are_some(call):
    x_t, t, seen = torch.zeros(2, 3, 4, 4), torch.tensor([1, 2]), []

    def network(x, t, **more):
        seen.append((x, t, more))
        return x

    labels = torch.tensor([5, 6])
    assert call(network, x_t, t) is x_t and call(network, x_t, t, None) is x_t and call(network, x_t, t, labels) is x_t
    assert all(x is x_t and at is t for x, at, _ in seen)
    assert [more for *_, more in seen] == [{}, {}, {"class_labels": labels}]
