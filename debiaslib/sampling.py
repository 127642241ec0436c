"""Samplers: DDIM and DDPM with the paper's respacing. Seed i makes image i, whatever the number and order of the seeds.

Both walk down timesteps t_n > ... > t_1 spread evenly over [0, T-1] and step from alpha_bar_t to the next lower one (1
at the end), from the network's estimates x0_hat and epsilon_hat:

    DDIM (Song et al. 2021, eq. 12)   x' = sqrt(ab') x0_hat + sqrt(1 - ab' - sigma^2) epsilon_hat + sigma z
    DDPM (Ho et al. 2020, eq. 7)      x' ~ the posterior q(x' | x_t, x0_hat) of the respaced chain
"""

import numpy as np
import torch
from tqdm import tqdm

from .config import SAMPLERS
from .errors import InputError, check_choice, check_number
from .prediction import network_output, to_x0_epsilon
from .schedule import Schedule
from .variance import log_variance, split_variance


def respaced_timesteps(steps, T):
    """`steps` timesteps spread evenly over [0, T-1], highest first; one step means t = T-1. A list of ints.

    This is the authors' respacing (diffusers: timestep_spacing="linspace").
    """
    check_number("steps", steps, minimum=1, maximum=T, integer=True)
    if steps == 1:
        return [T - 1]
    return np.linspace(0, T - 1, steps).round().astype(int)[::-1].tolist()


@torch.no_grad()
def sample(
    model,
    schedule,
    seeds,
    *,
    sampler="ddim",
    steps=50,
    prediction_type="epsilon",
    eta=0.0,
    clip_x0=True,
    shape=None,
    batch_size=64,
    device="cpu",
    progress=False,
):
    """Draw one image per seed: uint8 (N, C, H, W), on the CPU.

    model: takes (x_t, t) with x_t (batch_size, C, H, W) float32 in [-1, 1] and t (batch_size,).
    seeds: whole numbers in [0, 2^32). Image i depends on seed i alone, to the bit on the CPU, because the network
        always sees one padded batch shape and each image draws from a generator of its own.
    sampler: "ddim" (eta = 0 deterministic, eta = 1 as noisy as DDPM) or "ddpm" (the posterior's variance,
        "fixed small", or the model's own if it has learned one).
    clip_x0: clip x0_hat to [-1, 1] at each step and derive epsilon_hat from it again, as the authors do.
    shape: (C, H, W); taken from a diffusers model's configuration if not given.

    Values are rounded to the nearest of 256 levels (flooring would darken every image by half a level).
    Raises InputError for a setting out of range.
    """
    seeds, shape = _check(model, seeds, sampler, eta, shape, batch_size)
    timesteps = respaced_timesteps(steps, schedule.T)
    move = _ddim_step if sampler == "ddim" else _ddpm_step
    respaced = Schedule(schedule.alpha_bar[timesteps[::-1]], schedule.name)
    images = np.empty((len(seeds), *shape), np.uint8)
    # A bar only for what takes longer than a breath, so that executed notebooks stay quiet.
    bar = tqdm(
        total=len(seeds),
        desc=f"{sampler}, {steps} steps",
        unit="image",
        mininterval=2,
        delay=5,
        leave=False,
        disable=not progress,
    )
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        generators = [torch.Generator().manual_seed(seed) for seed in batch]
        x = _normal(generators, shape, batch_size).to(device)
        for index, (t, t_next) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
            output = network_output(model, x, torch.full((batch_size,), t, device=device)).float()
            output, values = split_variance(output, shape[0])
            x0, epsilon = to_x0_epsilon(output, x, t, schedule, prediction_type)
            if clip_x0:
                x0, epsilon = _clip(x0, x, t, schedule)
            noise = None
            if t_next is not None and (sampler == "ddpm" or eta > 0):
                noise = _normal(generators, shape, batch_size).to(device)
            variance = None
            if sampler == "ddpm" and values is not None and noise is not None:
                variance = log_variance(values, steps - 1 - index, respaced).exp()
            x = move(x, x0, epsilon, noise, *_alpha_bars(schedule, t, t_next), eta, variance)
        images[start : start + len(batch)] = to_uint8(x[: len(batch)]).numpy()
        bar.update(len(batch))
    bar.close()
    return images


def to_uint8(x):
    """[-1, 1] floats to uint8 on the CPU by rounding to the nearest level."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def to_float(images):
    """uint8 (N, C, H, W), array or tensor, to float32 in [-1, 1] on its device."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images))  # a copy: the array may be memory-mapped and read-only
    return images.float() / 127.5 - 1


def _check(model, seeds, sampler, eta, shape, batch_size):
    check_choice("sampler", sampler, SAMPLERS)
    check_number("eta", eta, minimum=0, maximum=1)
    check_number("batch_size", batch_size, minimum=1, integer=True)
    seeds = [int(check_number("seed", s, minimum=0, maximum=2**32 - 1, integer=True)) for s in seeds]
    if shape is None:
        config = getattr(model, "config", None)
        if config is None or not hasattr(config, "sample_size"):
            raise InputError("shape is not given and the model does not say it; give shape=(channels, height, width)")
        size = config.sample_size
        shape = (config.in_channels, *((size, size) if isinstance(size, int) else size))
    return seeds, tuple(shape)


def _normal(generators, shape, batch_size):
    """One draw per generator, padded with zeros to the batch shape."""
    noise = torch.zeros(batch_size, *shape)
    for row, generator in zip(noise, generators, strict=False):
        row.normal_(generator=generator)
    return noise


def _clip(x0, x_t, t, schedule):
    a, s = schedule.scales(t, x_t)
    x0 = x0.clamp(-1, 1)
    return x0, (x_t - a * x0) / s


def _alpha_bars(schedule, t, t_next):
    return schedule.alpha_bar[t].item(), 1.0 if t_next is None else schedule.alpha_bar[t_next].item()


def _ddim_step(x, x0, epsilon, noise, ab, ab_next, eta, variance):
    sigma2 = eta**2 * (1 - ab_next) / (1 - ab) * (1 - ab / ab_next)
    x = ab_next**0.5 * x0 + max(1 - ab_next - sigma2, 0.0) ** 0.5 * epsilon
    return x if noise is None else x + sigma2**0.5 * noise


def _ddpm_step(x, x0, epsilon, noise, ab, ab_next, eta, variance):
    alpha = ab / ab_next
    mean = ab_next**0.5 * (1 - alpha) / (1 - ab) * x0 + alpha**0.5 * (1 - ab_next) / (1 - ab) * x
    if variance is None:
        variance = (1 - ab_next) / (1 - ab) * (1 - alpha)
    return mean if noise is None else mean + variance**0.5 * noise
