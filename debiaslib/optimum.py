"""Denoisers that no network can beat: the exact posterior mean E[x0 | x_t] over a set of images, and over a Gaussian.

Their logits are float64: at low t they differ by thousands and float32 would round the differences away.
"""

import numpy as np
import torch

from .errors import InputError, check_number


class OptimalDenoiser:
    """E[x0 | x_t] for x0 uniform over `images`: the mean of the images, weighted by softmax(-|x_t - a x0|^2 / (2 s^2)).

    images: uint8 (N, C, H, W), read as x/127.5 - 1 (an array may be memory-mapped), or floats in [-1, 1].
    chunk: images in float64 at a time; memory is about 8 chunk C H W bytes plus 32 for each pair of query and image.

    Where many images explain x_t (high t) this is the posterior mean of the data's law up to sampling error; where one
    alone does (low t) it has memorised that image.
    """

    def __init__(self, images, schedule, chunk=4096):
        if len(images) == 0 or images.ndim != 4:
            raise InputError(f"images have shape {tuple(images.shape)}; it must be (N, C, H, W) with N >= 1")
        self.images, self.schedule = images, schedule
        self.chunk = check_number("chunk", chunk, minimum=1, integer=True)

    @torch.no_grad()
    def __call__(self, x_t, t):
        """x0_hat of x_t's shape, dtype and device. x_t: (B, C, H, W); t: an int or (B,)."""
        queries = x_t.detach().to("cpu", torch.float64).flatten(1)
        a, s = self.schedule.scales(t, queries)
        scaled, half = queries * (a / s**2), 0.5 * (a / s) ** 2
        # One pass: the running maximum keeps the exponentials in range, as in streaming softmax.
        largest = torch.full((len(queries), 1), -torch.inf, dtype=torch.float64)
        total = torch.zeros(len(queries), 1, dtype=torch.float64)
        mean = torch.zeros_like(queries)
        for start in range(0, len(self.images), self.chunk):
            chunk = self._chunk(start)
            logits = scaled @ chunk.T - half * chunk.square().sum(dim=1)
            larger = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            shrink, weights = (largest - larger).exp(), (logits - larger).exp()
            total = total * shrink + weights.sum(dim=1, keepdim=True)
            mean = mean * shrink + weights @ chunk
            largest = larger
        return (mean / total).view(x_t.shape).to(x_t)

    def _chunk(self, start):
        part = self.images[start : start + self.chunk]
        if not isinstance(part, torch.Tensor):
            part = torch.from_numpy(np.array(part))
        chunk = part.to("cpu", torch.float64).flatten(1)
        return chunk / 127.5 - 1 if part.dtype == torch.uint8 else chunk


class GaussianDenoiser:
    """E[x0 | x_t] for x0 ~ N(mean, covariance), exact at all t: mean + a C (a^2 C + s^2 I)^-1 (x_t - a mean).

    mean: (D,), covariance: (D, D) symmetric and positive semi-definite, for images flattened to D = C H W.
    """

    def __init__(self, mean, covariance, schedule):
        self.mean = torch.as_tensor(mean, dtype=torch.float64).flatten()
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if covariance.shape != (len(self.mean),) * 2:
            raise InputError(f"covariance has shape {tuple(covariance.shape)}; the mean has {len(self.mean)} entries")
        self.variances, self.axes = torch.linalg.eigh((covariance + covariance.T) / 2)
        if self.variances.min() < -1e-9 * self.variances.abs().max():
            raise InputError(f"covariance has the eigenvalue {self.variances.min():g}; it must not be negative")
        self.variances, self.schedule = self.variances.clamp(min=0), schedule

    @torch.no_grad()
    def __call__(self, x_t, t):
        """x0_hat of x_t's shape, dtype and device. x_t: (B, ...); t: an int or (B,)."""
        queries = x_t.detach().to("cpu", torch.float64).flatten(1)
        a, s = self.schedule.scales(t, queries)
        gain = a * self.variances / (a**2 * self.variances + s**2)
        x0_hat = self.mean + ((queries - a * self.mean) @ self.axes * gain) @ self.axes.T
        return x0_hat.view(x_t.shape).to(x_t)
