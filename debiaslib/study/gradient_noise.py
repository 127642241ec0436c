"""How noisy a minibatch's gradient is, by weighting and by the way in which the weight is applied.

With the gradients g_1..g_K of K batches and their mean G, the trace of the covariance of one batch's gradient and the
squared norm of the expected gradient are, without bias,

    variance = sum_k |g_k - G|^2 / (K - 1)            gradient_norm2 = |G|^2 - variance / K

and variance / gradient_norm2 is the number of batches after which noise and signal are equally large.
"""

import dataclasses

import pandas as pd
import torch

from ..diffusion.randomness import stream
from ..diffusion.sampling import to_float
from ..training.objective import Objective, effective_sample_size
from .common import trained

WAYS = {"factor": "uniform", "factor, stratified": "stratified", "density": "weight"}  # name: timestep_sampling
BATCHES, LARGEST_BATCH = 16, 32
COLUMNS = ["weighting", "way", "images_seen", "batches", "batch_size", "effective_sample_size", "gradient_norm2",
           "variance", "variance_se", "noise_to_signal"]  # fmt: skip


class Moments:
    """First and second moment of vectors (P,) that are added one by one: large networks need no stack of them."""

    def __init__(self):
        self.total, self.squares = 0.0, []

    def add(self, vector):
        """Add one vector."""
        self.total = self.total + vector
        self.squares.append(_norm2(vector))

    @property
    def mean(self):
        """The mean vector."""
        return self.total / len(self.squares)

    @property
    def variance(self):
        """The trace of the covariance of one vector, without bias."""
        n = len(self.squares)
        return (sum(self.squares) - n * _norm2(self.mean)) / (n - 1)

    @property
    def norm2(self):
        """The squared norm of the expectation, without bias: below zero where noise hides it."""
        return _norm2(self.mean) - self.variance / len(self.squares)


def _norm2(vector):
    return vector.double().square().sum().item()


def gradient_noise(study):
    """The noise of a minibatch's gradient at each weighting's EMA network of the first seed: a DataFrame, `COLUMNS`.

    The network is that of the first snapshot (images_seen): near the end of a training the expected gradient drowns in
    the noise of any affordable number of batches. All ways (`WAYS`) see the same images and noise. Their expected
    gradient is one, so gradient_norm2 is taken from all of them together; where noise hides it, noise_to_signal is NaN.
    effective_sample_size is a share of the batch. With learned variance there is no "density". A network that was
    trained elsewhere has no weighting here and no row.
    """
    seed = study.experiment.seeds[0]
    inputs = {**trained(study, [seed]), "batches": BATCHES, "largest_batch": LARGEST_BATCH, "ways": WAYS}

    def rows():
        weightings = study.experiment.weightings if study.trained_here else ()
        found = [row for weighting in weightings for row in _of_weighting(study, weighting, seed)]
        return pd.DataFrame(found, columns=COLUMNS)

    return study.csv("gradient_noise.csv", inputs, rows, digits=7)


def _of_weighting(study, weighting, seed):
    objectives = ways_to_apply(study.experiment.train_config(weighting, seed))
    seen = study.run(weighting, seed).record["snapshots"][0]["images"]
    data = study.images()
    found = gradient_moments(study.model(weighting, seed, seen), objectives, data.images, BATCHES, data.labels)
    signal = found.pop("all").norm2
    for way, moments in found.items():
        size, used = objectives[way].config.batch_size, effective_sample_size(objectives[way].factor.double())
        noise = moments.variance / signal if signal > 0 else float("nan")
        se = pd.Series(moments.squares).sem()  # for gradients whose mean is small beside their spread
        row = (weighting, way, seen, BATCHES, size, used, signal, moments.variance, se, noise)
        yield dict(zip(COLUMNS, row, strict=True))


def ways_to_apply(config):
    """{way: `Objective`} of a `TrainConfig`'s weight, applied in each way that the configuration allows."""
    ways = {way: kind for way, kind in WAYS.items() if not (config.learned_variance and kind == "weight")}
    config = dataclasses.replace(config, batch_size=min(config.batch_size, LARGEST_BATCH))
    return {way: Objective(dataclasses.replace(config, timestep_sampling=kind)) for way, kind in ways.items()}


@torch.enable_grad()
def gradient_moments(network, objectives, images, batches, labels=None):
    """{way: `Moments`} of the gradients of `batches` batches of the same images and noise; "all": of the ways' mean.

    images: uint8 (N, C, H, W); labels: their classes, int64 (N,), for a network that takes them.
    """
    parameters = list(network.requires_grad_(True).parameters())
    found = {way: Moments() for way in [*objectives, "all"]}
    for k in range(batches):
        gradients = {}
        for way, objective in objectives.items():
            x0, noise, given = _batch(objective.config, images, k, labels)
            loss = objective.loss(network, x0, objective.timesteps(k), noise, given)[0]
            gradients[way] = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
        gradients["all"] = sum(gradients.values()) / len(gradients)
        for way, gradient in gradients.items():
            found[way].add(gradient)
    return found


def _batch(config, images, k, labels):
    index = torch.randint(len(images), (config.batch_size,), generator=stream(config.seed, "gradient noise: images", k))
    x0 = to_float(images[index.numpy()])
    noise = torch.randn(x0.shape, generator=stream(config.seed, "gradient noise: noise", k))
    given = None if labels is None else torch.from_numpy(labels)[index].to(config.device)
    return x0.to(config.device), noise.to(config.device), given
