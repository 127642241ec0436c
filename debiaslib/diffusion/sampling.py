"""Sampling with the paper's respacing, batch by batch. Seed i makes image i, whatever the number and order of seeds.

The samplers and their timesteps are in solvers.py; here are the network's estimates, the noise and the batches.
"""

from types import SimpleNamespace

import numpy as np
import torch

from ..devices import check_device
from ..errors import InputError, check_choice, check_finite, check_number, shown
from .prediction import ALL_PREDICTION_TYPES, network_output, to_x0_epsilon
from .schedule import check_schedule
from .solvers import solver
from .variance import split_variance


def sample(
    model,
    schedule,
    seeds,
    *,
    sampler="ddim",
    steps=50,
    prediction_type="epsilon",
    clip_x0=True,
    shape=None,
    labels=None,
    batch_size=64,
    device="cpu",
    progress=False,
):
    """Draw one image per seed: uint8 (N, C, H, W), on the CPU.

    model: any callable of (x_t, t), x_t (batch_size, C, H, W) float32 and t int64 (batch_size,): a network, or a
        function, such as one that asks `OptimalDenoiser` above a timestep and a network below it. It is used as it
        is: call `eval()` on a network with dropout first.
    schedule: a `Schedule`; seeds: whole numbers in [0, 2^32). Image i depends on seed i alone, to the bit on the CPU,
        because the network always sees one padded batch shape and each image draws from a generator of its own.
    sampler, steps: "ddim", or "ddpm" (the posterior's variance, "fixed small", or the model's own if it has learned
        one). Both call the network `steps` times.
    prediction_type: what the model answers: "epsilon", "sample" (x0), "v_prediction" or "flow_prediction".
    clip_x0: clip x0_hat to [-1, 1] at each call and derive epsilon_hat from it again, as the authors do.
    shape: (C, H, W); taken from a diffusers model's configuration if not given.
    labels: the class of each image, whole numbers (N,), for a model that takes `class_labels`. If not given, seed i is
        of class i mod K where a diffusers model has K classes, so that all models and steps see the same.
    progress: show a bar for what takes longer than five seconds.

    Values are rounded to the nearest of 256 levels (flooring would darken every image by half a level). Variance
    channels of the model are split off. Raises InputError for a setting out of range, for prediction_type="epsilon"
    where SNR(T-1) = 0, and for answers of the model that are not finite.
    """
    if not callable(model):
        raise InputError(f"model is {shown(model)}; it must be a callable that takes (x_t, t)")
    seeds = [int(check_number("seed", s, minimum=0, maximum=2**32 - 1, integer=True)) for s in seeds]
    check_schedule(schedule, variance_preserving=True)
    check_number("batch_size", batch_size, minimum=1, integer=True)
    check_choice("prediction_type", prediction_type, ALL_PREDICTION_TYPES)
    check_choice("clip_x0", clip_x0, (True, False))
    check_device(device)
    shape, labels = _image_shape(model, shape), _image_labels(model, seeds, labels)
    walk, zero = solver(sampler, steps, schedule), torch.zeros((), dtype=torch.float32)
    # The schedule's (a, s) at the timesteps as float32 numbers without axes, which torch takes to any device.
    table = {t: tuple(scale.reshape(()) for scale in schedule.scales(t, zero)) for t in walk.timesteps}
    scales = SimpleNamespace(scales=lambda t, like: table[t])
    to_x0_epsilon(zero, zero, walk.timesteps[0], scales, prediction_type)  # refuses epsilon where SNR = 0
    batches = _batches(model, walk, scales, prediction_type, clip_x0, seeds, labels, (batch_size, *shape), device)
    if progress:
        from tqdm import tqdm  # here, so that the samplers need torch and numpy alone

        count = -(-len(seeds) // batch_size)
        batches = tqdm(batches, f"{sampler}, {steps} steps", count, unit="batch", delay=5, leave=False)
    return np.concatenate([np.empty((0, *shape), np.uint8), *batches])


@torch.no_grad()
def _batches(model, walk, scales, prediction_type, clip_x0, seeds, labels, shape, device):
    """Within a batch nothing waits for the device."""
    size = shape[0]
    t_of_step = torch.tensor(walk.timesteps).repeat_interleave(size).view(-1, size).to(device)
    for start in range(0, len(seeds), size):
        batch, classes, finite = seeds[start : start + size], None, []
        if labels is not None:  # padded to the batch shape, as the noise is
            classes = torch.zeros(size, dtype=torch.int64)
            classes[: len(batch)] = labels[start : start + size]
            classes = classes.to(device)
        generators = [torch.Generator().manual_seed(seed) for seed in batch]
        x = _normal(generators, shape, device)
        for i, t in enumerate(walk.timesteps):
            output = network_output(model, x, t_of_step[i], classes).float()
            finite.append(output[: len(batch)].isfinite().all())  # before clipping, which would hide an infinity
            prediction, values = split_variance(output, x.shape[1])
            x0, epsilon = to_x0_epsilon(prediction, x, t, scales, prediction_type)
            if clip_x0:
                x0, (a, s) = x0.clamp(-1, 1), scales.scales(t, x)
                epsilon = (x - a * x0) / s
            # Drawn after the call, so that a GPU is at work on it meanwhile.
            noise = _normal(generators, shape, device) if walk.noisy and i < len(walk.timesteps) - 1 else None
            x = walk.step(i, x, x0, epsilon, noise, values)
        _check_answers(finite, walk.timesteps, batch)
        yield to_uint8(x[: len(batch)]).numpy()


def _check_answers(finite, timesteps, seeds):
    """Raise InputError, naming the first timestep, if an answer for a batch was not finite."""
    for t, right in zip(timesteps, torch.stack(finite).tolist(), strict=True):
        if not right:
            some = f"some of the seeds {seeds[0]} to {seeds[-1]}"
            raise InputError(f"the model's answers are not finite at t = {t} for {some}")


def _normal(generators, shape, device):
    """One draw per generator, padded with zeros to the batch shape; always drawn on the CPU, so the same everywhere."""
    on_cuda = torch.device(device).type == "cuda"
    noise = torch.zeros(shape, dtype=torch.float32, pin_memory=on_cuda)
    for row, generator in zip(noise, generators, strict=False):
        row.normal_(generator=generator)
    return noise.to(device, non_blocking=on_cuda)


def to_uint8(x):
    """[-1, 1] floats to uint8 on the CPU by rounding to the nearest level. Raises InputError if one is not finite."""
    return ((check_finite("pixels", x).float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def to_float(images):
    """uint8 (N, C, H, W), array or tensor, to float32 in [-1, 1] on its device."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images))  # a copy: the array may be memory-mapped and read-only
    return images.float() / 127.5 - 1


def _image_shape(model, shape):
    if shape is None:
        config = getattr(model, "config", None)
        if getattr(config, "sample_size", None) is None:
            raise InputError("shape is not given and the model does not say it; give shape=(channels, height, width)")
        size = config.sample_size
        shape = (config.in_channels, *((size, size) if isinstance(size, int) else size))
    if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise InputError(f"shape is {shown(shape)}; it must be (channels, height, width), whole numbers >= 1")
    return tuple(shape)


def _image_labels(model, seeds, labels):
    """int64 (N,) on the CPU, or None for a model that is not told the class."""
    config = getattr(model, "config", None)
    classes = getattr(config, "num_class_embeds", None) or getattr(config, "num_embeds_ada_norm", None)
    if labels is None:
        return None if classes is None else torch.tensor([seed % classes for seed in seeds], dtype=torch.int64)
    if config is not None and classes is None:
        raise InputError("labels are given, but the model's num_class_embeds (U-Net) or num_embeds_ada_norm is not set")
    labels = torch.as_tensor(labels).tolist()
    for label in labels:
        check_number("label", label, minimum=0, below=classes, integer=True)
    if len(labels) != len(seeds):
        raise InputError(f"labels has {len(labels)} entries; it must have one for each of {len(seeds)} seeds")
    return torch.tensor(labels, dtype=torch.int64)
