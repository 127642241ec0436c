"""Sampling: against loops written out in numpy, diffusers, and a Gaussian with a known flow; seeds, calls, bytes.

test_solvers.py has the solvers by themselves: their timesteps, order and variances.
"""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel, UNet2DModel

from debiaslib.diffusion import sampling
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.prediction import ALL_PREDICTION_TYPES, prediction_target
from debiaslib.diffusion.sampling import sample, to_float, to_uint8
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.study.experiment import SAMPLERS

SCHEDULE = Schedule.linear()
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SHAPE = (3, 4, 4)


@pytest.fixture
def last(monkeypatch):
    """The last x of each batch, before it is rounded to bytes."""
    kept = []

    def keep(x):
        kept.append(x.clone())
        return to_uint8(x)

    monkeypatch.setattr(sampling, "to_uint8", keep)
    return kept


def model(x, t):
    """Some network, the same function of torch and of numpy arrays; its x0_hat leaves [-1, 1]."""
    level = t.view(-1, 1, 1, 1) / 1000
    return torch.tanh(1.3 * x + 0.2) * (1 - 0.3 * level) + 0.1 * x.flip(-1)


def model64(x, t):
    return np.tanh(1.3 * x + 0.2) * (1 - 0.3 * t / 1000) + 0.1 * x[..., ::-1]


def noise_of(seed, draws, shape=SHAPE):
    """What seed's own generator draws: the starting noise, then one for each step."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty(shape).normal_(generator=generator).double().numpy() for _ in range(draws)]


def test_one_step_is_one_call_at_the_last_timestep(last):
    calls = []

    def spy(x, t):
        calls.append((x.clone(), t.tolist()))
        return torch.full_like(x, 0.25)

    images = sample(spy, SCHEDULE, [4], steps=1, prediction_type="sample", shape=SHAPE, batch_size=2)
    assert len(calls) == 1 and calls[0][1] == [999, 999]
    assert np.array_equal(calls[0][0][0].numpy(), noise_of(4, 1)[0].astype(np.float32))
    assert images.dtype == np.uint8 and images.shape == (1, *SHAPE) and (images == round(1.25 * 127.5)).all()


# Loops written out


def reference(seed, steps, sampler, *, clip=True, kind="epsilon"):
    """x of every step in float64 as the authors' code has it: betas of the respaced chain, then its formulas."""
    timesteps = sorted({round(i * 999 / max(steps - 1, 1)) for i in range(steps)}) if steps > 1 else [999]
    alpha_bar = ALPHA_BAR[timesteps]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    draws = iter(noise_of(seed, steps + 1))
    x, trajectory = next(draws), []
    for i in reversed(range(steps)):
        ab, previous, beta = alpha_bar[i], np.append(1.0, alpha_bar)[i], betas[i]
        out = model64(x, timesteps[i])
        if kind == "epsilon":
            x0 = np.sqrt(1 / ab) * x - np.sqrt(1 / ab - 1) * out
        else:
            x0 = out if kind == "sample" else np.sqrt(ab) * x - np.sqrt(1 - ab) * out
        x0 = np.clip(x0, -1, 1) if clip else x0
        if sampler == "ddpm":
            variance = beta * (1 - previous) / (1 - ab)
            mean = beta * np.sqrt(previous) / (1 - ab) * x0 + (1 - previous) * np.sqrt(1 - beta) / (1 - ab) * x
            x = mean + (np.sqrt(variance) * next(draws) if i > 0 else 0)
        else:
            epsilon = (np.sqrt(1 / ab) * x - x0) / np.sqrt(1 / ab - 1)
            x = x0 * np.sqrt(previous) + np.sqrt(1 - previous) * epsilon
        trajectory.append(x)
    return trajectory


@pytest.mark.parametrize(
    "kind, clip", [("epsilon", True), ("sample", False), ("v_prediction", True), ("epsilon", False)]
)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_step_as_written_out(steps, sampler, clip, kind, last):
    seen = []

    def spy(x, t):
        seen.append(x.clone())
        return model(x, t)

    images = sample(spy, SCHEDULE, [11, 5], sampler=sampler, steps=steps, prediction_type=kind, clip_x0=clip,
                    shape=SHAPE, batch_size=2)  # fmt: skip
    walked = [*seen[1:], *last]
    assert len(walked) == steps
    for row, seed in enumerate((11, 5)):
        expected = reference(seed, steps, sampler, clip=clip, kind=kind)
        for ours, theirs in zip(walked, expected, strict=True):
            assert np.abs(ours[row].double().numpy() - theirs).max() < 1e-4 * max(1, np.abs(theirs).max())
        assert np.abs(images[row] - np.clip((expected[-1] + 1) * 127.5, 0, 255)).max() < 0.51


@pytest.mark.parametrize("steps, kind", [(2, "epsilon"), (10, "sample"), (100, "v_prediction")])
def test_ddpm_follows_diffusers_with_the_same_noise(steps, kind, last):
    scheduler = DDPMScheduler(
        timestep_spacing="linspace", variance_type="fixed_small", clip_sample=True, prediction_type=kind
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(8)
    x = torch.empty(1, *SHAPE).normal_(generator=generator)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t.view(1)), t, x, generator=generator).prev_sample
    sample(model, SCHEDULE, [8], sampler="ddpm", steps=steps, prediction_type=kind, shape=SHAPE, batch_size=1)
    assert (last[0] - x).abs().max() < 8e-5


# A function in the place of the network: the exact optimum

FACES = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


def test_the_optimum_above_a_timestep_and_a_network_below_it():
    """Of the swap, the part with the optimum is the optimum's walk; the other starts from where that came to."""
    denoiser, seen = OptimalDenoiser(FACES, SCHEDULE), []

    def swapped(x, t):
        above = int(t[0]) >= 500
        seen.append((int(t[0]), above))
        return denoiser(x, t) if above else torch.full_like(x, 0.5)

    settings = {"steps": 4, "prediction_type": "sample", "shape": SHAPE, "batch_size": 1}
    drawn = sample(swapped, SCHEDULE, [7], **settings)
    assert seen == [(999, True), (666, True), (333, False), (0, False)]
    assert (drawn == round(1.5 * 127.5)).all()  # the last call decides
    whole = sample(lambda x, t: denoiser(x, t), SCHEDULE, [7], **settings)
    assert not np.array_equal(drawn, whole)


# Seed i makes image i


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UNet2DModel(sample_size=8, block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4,
                       down_block_types=["DownBlock2D", "AttnDownBlock2D"], attention_head_dim=4,
                       up_block_types=["AttnUpBlock2D", "UpBlock2D"]).eval()  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seed_i_makes_image_i_whatever_number_and_order(network, sampler):
    settings = {"sampler": sampler, "steps": 3, "batch_size": 4}
    seeds = [7, 0, 3, 100, 2, 5, 2**31]
    images = sample(network, SCHEDULE, seeds, **settings)
    assert images.shape == (7, 3, 8, 8) and len(np.unique(images, axis=0)) == 7
    assert sample(network, SCHEDULE, [], **settings).shape == (0, 3, 8, 8)
    assert np.array_equal(sample(network, SCHEDULE, seeds[::-1], **settings)[::-1], images)
    for count in range(1, 7):  # every remainder of a batch
        assert np.array_equal(sample(network, SCHEDULE, seeds[:count], **settings), images[:count])
    assert np.array_equal(sample(network, SCHEDULE, np.array([3]), **settings)[0], images[2])
    assert np.array_equal(sample(network, SCHEDULE, [3, 3, 7, 3], **settings), images[[2, 2, 0, 2]])


def test_the_global_generator_has_no_part(network):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(sample(network, SCHEDULE, [0], sampler="ddpm", steps=3))
    assert np.array_equal(*states)
    after = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(torch.get_rng_state(), after)


# What every sampler shares


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule.sigmoid(), Schedule.cosine()], ids=lambda s: s.name)
def test_the_prediction_type_makes_no_difference(sampler, schedule, last):
    """One denoiser answers x0, epsilon, v and u by turns; float32 alone tells them apart."""
    denoiser = GaussianDenoiser([0.3, -0.2, 0.1, 0.0], np.diag([0.3, 0.2, 0.1, 0.05]), schedule)
    for kind in ALL_PREDICTION_TYPES:

        def answer(x, t, kind=kind):
            x, t = x.double(), int(t[0])
            x0, (a, s) = denoiser(x, t), schedule.scales(t, x)
            return prediction_target(x0, (x - a * x0) / s, t, schedule, kind).float()

        sample(answer, schedule, range(8), sampler=sampler, steps=10, prediction_type=kind, shape=(1, 2, 2))
    assert all((one - last[0]).abs().max() < 3e-3 for one in last[1:])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clipping(sampler, last):
    """An answer beyond [-1, 1] is what its clipped value would be, at every call."""
    answers = {factor: lambda x, t, factor=factor: factor * torch.sign(x.flip(-1)) for factor in (1.0, 3.0)}
    settings = {"sampler": sampler, "steps": 5, "prediction_type": "sample", "shape": SHAPE}
    clipped = [sample(answer, SCHEDULE, range(4), **settings) for answer in answers.values()]
    sample(answers[3.0], SCHEDULE, range(4), **settings, clip_x0=False)
    assert np.array_equal(*clipped) and last[1].abs().max() == 1 and last[2].abs().max() == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_variance_channels_are_split_off(sampler):
    """They decide the noise of "ddpm" and nothing else."""

    def wide(x, t):
        return torch.cat([model(x, t), torch.full_like(x, 0.5)], dim=1)

    plain, split = (
        sample(answer, SCHEDULE, range(3), sampler=sampler, steps=5, shape=SHAPE) for answer in (model, wide)
    )
    assert np.array_equal(plain, split) == (sampler != "ddpm")


# Bytes


def test_bytes_are_rounded_to_the_nearest():
    level = torch.arange(256, dtype=torch.float64)
    for offset in (-0.49, 0.0, 0.49):
        assert torch.equal(to_uint8(((level + offset) / 127.5 - 1).float()), level.to(torch.uint8))
    assert to_uint8(torch.tensor([-3.0, -1.003, 1.003, 7.0])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_bytes_to_floats_and_back(kind):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = to_float(kind(levels))
    assert floats.dtype == torch.float32 and (floats.min(), floats.max()) == (-1, 1)
    assert np.abs(floats.double().numpy() - (levels / 127.5 - 1)).max() < 1e-7
    assert np.array_equal(to_uint8(floats).numpy(), levels)


def test_a_stock_transformer_is_told_the_class():
    size = {"num_attention_heads": 1, "attention_head_dim": 4, "in_channels": 3, "num_layers": 1, "sample_size": 4}
    torch.manual_seed(0)
    network = DiTTransformer2DModel(**size, num_embeds_ada_norm=10, norm_num_groups=1).eval()
    of_class = {k: sample(network, SCHEDULE, [3], steps=1, labels=[k]) for k in (3, 4)}
    assert np.array_equal(sample(network, SCHEDULE, [3], steps=1), of_class[3])  # as for a U-Net: seed i is of class i
    assert not np.array_equal(of_class[3], of_class[4])
    with pytest.raises(InputError, match="label is 10"):
        sample(network, SCHEDULE, [3], steps=1, labels=[10])


# Bad input


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sampler": "dddim"}, "sampler 'dddim' is unknown; did you mean 'ddim'?"),
        ({"seeds": [0, -1]}, "seed is -1; it must be a whole number >= 0"),
        ({"seeds": [0.5]}, "seed is 0.5"),
        ({"seeds": [2**32]}, "seed is 4294967296"),  # the generator takes the low 32 bits: image 0 again
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prediction_type": "eps"}, "prediction_type 'eps' is unknown; did you mean 'epsilon'?"),
        ({"shape": None}, "shape is not given and the model does not say it"),
    ],
)
def test_bad_input_is_one_line_before_the_model_is_called(settings, line):
    def never(x, t):
        raise AssertionError("the model was called")

    arguments = {"seeds": [0], "shape": SHAPE, "steps": 2, **settings}
    with pytest.raises(InputError) as caught:
        sample(never, SCHEDULE, arguments.pop("seeds"), **arguments)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
