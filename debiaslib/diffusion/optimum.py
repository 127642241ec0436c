"""Denoisers that no network can beat: the exact posterior mean E[x0 | x_t] over a set of images, and over a Gaussian.

Their logits are float64: at low t they differ by thousands and float32 would round the differences away.
"""

import math

import numpy as np
import torch

from ..errors import InputError, check_finite
from .schedule import as_float64, check_schedule

LARGEST = 64.0  # no image in [-1, 1], nor a number of a latent or of a normal law, is as far out; grey levels are
_CHUNK_NUMBERS = 1 << 22  # of images at a time, in float64: 32 MiB


class OptimalDenoiser:
    """E[x0 | x_t] for x0 uniform over `images`: the mean of the images, weighted by softmax(-|x_t - a x0|^2 / (2 s^2)).

    images: uint8 (N, C, H, W), read as x/127.5 - 1 (an array may be memory-mapped), or floats in [-1, 1]. The work is
        done where they lie: on the CPU, or on a tensor's GPU that has float64.
    chunk: images in float64 at a time, by default as many as 32 MiB hold.
    labels: the classes of the images, int64 (N,), for E[x0 | x_t, class]: the mean over the images of a query's class.

    Where many images explain x_t (high t) this is the posterior mean of the data's law up to sampling error; where one
    alone does (low t) it has memorised that image. Raises InputError for images of another kind.
    """

    def __init__(self, images, schedule, chunk=None, labels=None):
        if not hasattr(images, "ndim"):
            raise InputError(f"images are a {type(images).__name__}; they must be an array or a tensor (N, C, H, W)")
        if images.ndim != 4 or len(images) == 0:
            raise InputError(f"images have shape {tuple(images.shape)}; it must be (N, C, H, W) with N >= 1")
        if labels is not None and len(labels) != len(images):
            raise InputError(f"labels has {len(labels)} entries; it must have one for each of {len(images)} images")
        self.images, self.schedule, self.shape = images, check_schedule(schedule), tuple(images.shape[1:])
        self.chunk = chunk or max(1, _CHUNK_NUMBERS // max(1, math.prod(self.shape)))
        whole = str(images.dtype).endswith("uint8")  # numpy's or torch's: x = p/127.5 - 1 is applied to the products
        if not whole and "float" not in str(images.dtype):
            raise InputError(f"images are {images.dtype}; they must be uint8, or floats in [-1, 1]")
        self._scale, self._shift = (127.5, 1.0) if whole else (1.0, 0.0)
        self._half_norms = None
        has_float64 = isinstance(images, torch.Tensor) and images.device.type != "mps"  # Apple's GPUs have no float64
        self._home = images.device if has_float64 else torch.device("cpu")
        labels = labels if isinstance(labels, torch.Tensor) else np.array([] if labels is None else labels)
        self.labels = torch.as_tensor(labels).to(self._home)
        for _, pixels in () if whole else self._chunks():
            if not float(pixels.abs().max()) <= LARGEST:
                raise InputError(f"images reach {float(pixels.abs().max()):g}; floats must be in [-1, 1]")

    @torch.no_grad()
    def __call__(self, x_t, t, class_labels=None):
        """x0_hat of x_t's shape, dtype and device. x_t: (B, C, H, W); t: an int or (B,); class_labels: int64 (B,).

        Raises InputError for an x_t of another shape, or that is not finite, and for a class without images.
        """
        if tuple(x_t.shape[1:]) != self.shape:
            raise InputError(f"x_t has shape {tuple(x_t.shape)}; it must be (B, {', '.join(map(str, self.shape))})")
        queries = check_finite("x_t", x_t.detach()).to(self._home).double().flatten(1)
        a, s = self.schedule.scales(t, queries)
        s = s.clamp(min=1e-9)  # at sigma = 0 the answer is the nearest image
        scaled, inverse = queries * (a / s**2 / self._scale), (a / s) ** 2
        if self._half_norms is None:
            self._half_norms = torch.cat([self._halved(pixels) for _, pixels in self._chunks()])
        if class_labels is not None:
            class_labels = torch.as_tensor(class_labels, device=self._home)
            absent = class_labels[~torch.isin(class_labels, self.labels)]
            if len(absent):
                raise InputError(f"none of the {len(self.images)} images is of class {int(absent[0])}")
        # One pass: the running maximum keeps the exponentials in range, as in streaming softmax.
        largest = queries.new_full((len(queries), 1), -torch.inf)
        total = queries.new_zeros(len(queries), 1)
        mean = torch.zeros_like(queries)
        for part, pixels in self._chunks():
            # In place, and without what is the same for all images.
            logits = (scaled @ pixels.T).addcmul_(inverse, self._half_norms[part], value=-1)
            if class_labels is not None:  # below any other, and finite: of one chunk all images may be of other classes
                logits.masked_fill_(class_labels[:, None] != self.labels[part], -1e300)
            larger = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            shrink, weights = (largest - larger).exp(), logits.sub_(larger).exp_()
            total.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
            mean.mul_(shrink).addmm_(weights, pixels)
            largest = larger
        return (mean / (total * self._scale) - self._shift).view(x_t.shape).to(x_t)

    def _halved(self, pixels):
        """|x|^2 / 2 of each image, where x = pixels / scale - shift, less what is the same for all images."""
        squares = torch.einsum("nd,nd->n", pixels, pixels)
        return (squares / self._scale - 2 * self._shift * pixels.sum(dim=1)) / (2 * self._scale)

    def _chunks(self):
        """(slice, float64 (n, C H W)) of each chunk; the memory is used again for the next one."""
        count = min(self.chunk, len(self.images))
        room = torch.empty(count, math.prod(self.shape), dtype=torch.float64, device=self._home)
        for start in range(0, len(self.images), count):
            part = slice(start, min(start + count, len(self.images)))
            pixels = self.images[part]
            if not isinstance(pixels, torch.Tensor):
                pixels = torch.from_numpy(np.array(pixels))
            yield part, room[: part.stop - start].copy_(pixels.to(self._home).flatten(1))


class GaussianDenoiser:
    """E[x0 | x_t] for x0 ~ N(mean, covariance), exact at all t: mean + a C (a^2 C + s^2 I)^-1 (x_t - a mean).

    mean: (D,), covariance: (D, D) symmetric and positive semi-definite, for images flattened to D = C H W. Raises
    InputError for others.
    """

    def __init__(self, mean, covariance, schedule):
        self.mean = check_finite("mean", as_float64("mean", mean).cpu()).flatten()
        covariance = check_finite("covariance", as_float64("covariance", covariance).cpu())
        side, rounding = f"the mean has {len(self.mean)} entries", 1e-5 * float(covariance.abs().max())  # float32's
        if covariance.shape != (len(self.mean),) * 2 or not torch.allclose(covariance, covariance.T, 0, rounding):
            raise InputError(f"covariance has shape {tuple(covariance.shape)}; {side}, and it must be symmetric")
        self.variances, self.axes = torch.linalg.eigh((covariance + covariance.T) / 2)
        if self.variances.min() < -1e-9 * self.variances.abs().max():
            raise InputError(f"covariance has the eigenvalue {self.variances.min():g}; it must not be negative")
        self.variances, self.schedule = self.variances.clamp(min=0), check_schedule(schedule)

    @torch.no_grad()
    def __call__(self, x_t, t):
        """x0_hat of x_t's shape, dtype and device. x_t: (B, ...); t: an int or (B,)."""
        queries = check_finite("x_t", x_t.detach()).cpu().double().flatten(1)
        if queries.shape[1] != len(self.mean):
            raise InputError(f"x_t has shape {tuple(x_t.shape)}; the law is of {len(self.mean)} numbers")
        a, s = self.schedule.scales(t, queries)
        gain = a * self.variances / (a**2 * self.variances + s**2).clamp(min=1e-300)  # 0 where all is known
        x0_hat = self.mean + ((queries - a * self.mean) @ self.axes * gain) @ self.axes.T
        return x0_hat.view(x_t.shape).to(x_t)
