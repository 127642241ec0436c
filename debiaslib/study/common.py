"""What every measurement is made of: trained runs by their identity, a fixed subset of images, errors of networks."""

import numpy as np
import torch

from ..data.gaussian import gaussian_law
from ..diffusion.one_step import mse_by_timestep
from ..diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from ..diffusion.randomness import stream
from ..diffusion.sampling import to_float
from ..training.config import run_name
from .presets import get_preset

_ON_DEVICE_BYTES = 2 << 30


def trained(study, seeds, weightings=None):
    """{"runs": identity of each (weighting, seed)} that a table is made from; trains those that are missing."""
    pairs = [(w, s) for s in seeds for w in weightings or study.experiment.weightings]
    for weighting, seed in pairs:
        study.run(weighting, seed)
    data = {} if study.trained_here else study.images().identity  # a training's own identity has its images
    return {"runs": {run_name(w, s): study.identity(w, s) for w, s in pairs}, **data}


def subset(images, count):
    """`count` images, drawn once, since files may lie sorted by class, in their order; all, as they are, if fewer."""
    if count >= len(images):
        return images
    order = torch.randperm(len(images), generator=stream(0, "subset"))[:count]
    return np.ascontiguousarray(images[np.sort(order.numpy())])


def optimal_denoiser(study):
    """E[x0 | x_t] for a study's data, and whether it is that of the data's true law, right for held-out images too.

    The Gaussian images' law is known: `GaussianDenoiser`. Elsewhere `OptimalDenoiser` over `optimum_images` training
    images (`subset`), for x0 from those alone; for networks that are told the class, over those of its class.
    """
    e, data = study.experiment, study.images()
    if (e.dataset or get_preset(e.preset).dataset) == "gaussian":
        return GaussianDenoiser(*gaussian_law(data.images.shape[-1]), study.schedule), True
    images = subset(data.images, e.optimum_images)
    on_cuda = study.config.device.startswith("cuda")
    if on_cuda and images.nbytes <= _ON_DEVICE_BYTES:  # float64 is quick there, as on no other
        images = torch.from_numpy(np.array(images)).to(study.config.device)
    labels = None if data.labels is None else subset(data.labels, e.optimum_images)
    return OptimalDenoiser(images, study.schedule, labels=labels), False


def cached_by_t(optimal):
    """The optimum with its answers cached by t, for networks that are all asked at the same x_t and classes."""
    answers = {}
    return lambda x_t, t, **given: answers[t] if t in answers else answers.setdefault(t, optimal(x_t, t, **given))


def measured_images(study, count, split="train"):
    """(x0, labels) of `count` images of a split: float (N, C, H, W) in [-1, 1] and int64 (N,), on the study's device.

    labels is None for networks that are not told the class. Both are None where there are no images, or no classes of
    them that the networks ask for. "train" draws from the `OptimalDenoiser`'s images, without repetition: that is what
    error = floor + excess asks of x0.
    """
    found = study.images(split)
    if found is None or (study.config.classes is not None and found.labels is None):
        return None, None
    most = study.experiment.optimum_images if split == "train" else len(found.images)
    x0 = to_float(subset(subset(found.images, most), count)).to(study.config.device)
    labels = None if found.labels is None else torch.from_numpy(subset(subset(found.labels, most), count)).to(x0.device)
    return x0, labels


def errors_of(study, arms, seed, timesteps, images, optimal, *, raw=False, noise_seed=0):
    """`mse_by_timestep` of the networks of these arms and training seed. images: (x0, labels) of `measured_images`."""
    models = {arm: study.model(arm, seed, raw=raw) for arm in arms}
    kinds = {arm: study.prediction_type_of(arm) for arm in arms}
    options = {"prediction_type": kinds, "seed": noise_seed, "optimal": optimal, "labels": images[1]}
    return mse_by_timestep(models, images[0], timesteps, study.schedule, **options)
