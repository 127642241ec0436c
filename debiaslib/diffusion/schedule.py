"""Noise schedules: alpha_bar, the signal-to-noise ratio, and the forward process. Tables in float64.

    x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) epsilon      SNR(t) = alpha_bar_t / (1 - alpha_bar_t)    (eq. 3)

t is 0-based: t = 0 is the least noisy step, t = T-1 the noisiest. The forward process of flow matching is in flow.py.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import InputError, check_number, shown


class ForwardProcess:
    """x_t = a_t x0 + s_t epsilon at whole timesteps. A subclass has `snr` and `scale_tables`, (a, s)."""

    @property
    def T(self):
        """Number of timesteps."""
        return len(self.snr)

    def scales(self, t, like):
        """(a_t, s_t) as `like` (N, ...) is, to broadcast. t: int or int64 (N,). InputError for a t outside [0, T)."""
        try:
            t = torch.as_tensor(t, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"t is {shown(t)}; it must be a whole number, or a tensor of them") from None
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
            raise InputError(f"t has dtype {t.dtype}; timesteps are whole numbers")
        if not like.is_floating_point():
            raise InputError(f"the images have dtype {like.dtype}; they must be floating-point, in [-1, 1]")
        t = t.long()
        outside = t[(t < 0) | (t >= self.T)]
        if outside.numel():
            raise InputError(f"t is {int(outside[0])}; it must be in [0, {self.T})")
        if t.ndim > 1:
            raise InputError(f"t has shape {tuple(t.shape)}; it must be a whole number, or one for each image")
        shape = -1, *[1] * (like.ndim - 1)
        # Asynchronously, or a GPU's queue would end here at each step.
        return tuple(table.cpu()[t].reshape(shape).to(like, non_blocking=like.is_cuda) for table in self.scale_tables)

    def add_noise(self, x0, noise, t):
        """x_t = a_t x0 + s_t noise, (N, ...). x0 and noise: float (N, ...); t: int or (N,).

        Raises InputError for shapes that differ, for images of whole numbers and for a t outside [0, T).
        """
        if noise.shape != x0.shape:  # torch would stretch it
            raise InputError(f"noise has shape {tuple(noise.shape)}; it must be {tuple(x0.shape)}")
        a, s = self.scales(t, x0)
        if len(a) not in (1, len(x0)):
            raise InputError(f"t has {len(a)} entries; it must be a whole number, or one for each of {len(x0)} images")
        return a * x0 + s * noise


@dataclass(frozen=True, eq=False)
class Schedule(ForwardProcess):
    """alpha_bar at every timestep: float64, shape (T,), in [0, 1) and falling. Raises InputError otherwise.

    The constructors raise it for a T outside 1 .. 1,000,000, for a beta outside (0, 1) and for an s below 0.
    """

    alpha_bar: torch.Tensor = field(repr=False)
    name: str = "custom"

    def __post_init__(self):
        table = check_table("alpha_bar", self.alpha_bar)
        for wrong, allowed in (
            (~((table >= 0) & (table < 1)), "be in [0, 1)"),  # also true for NaN
            (table.diff(prepend=table.new_tensor([torch.inf])) >= 0, "fall from each timestep to the next"),
        ):
            if bool(wrong.any()):
                t = int(wrong.int().argmax())
                raise InputError(f"alpha_bar is {table[t]} at t = {t}; it must {allowed}")
        object.__setattr__(self, "alpha_bar", table)

    @classmethod
    def linear(cls, T=1000, beta_start=1e-4, beta_end=0.02):
        """DDPM's schedule (Ho et al. 2020): beta linear in t. The betas are not rescaled with T."""
        _check_betas(beta_start, beta_end)
        return cls._from_betas(_line(beta_start, beta_end, T), "linear")

    @classmethod
    def scaled_linear(cls, T=1000, beta_start=0.00085, beta_end=0.012):
        """Stable Diffusion's schedule (Rombach et al. 2022): sqrt(beta) linear in t."""
        _check_betas(beta_start, beta_end)
        return cls._from_betas(_line(math.sqrt(beta_start), math.sqrt(beta_end), T) ** 2, "scaled_linear")

    @classmethod
    def cosine(cls, T=1000, s=0.008):
        """alpha_bar ~ cos^2((t/T + s) / (1 + s) pi/2), betas clipped at 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
        check_number("s", s, minimum=0)
        time = torch.arange(_check_T(T) + 1, dtype=torch.float64, device="cpu") / T
        curve = torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2
        return cls._from_betas((1 - curve[1:] / curve[:-1]).clamp(max=0.999), "cosine")

    @classmethod
    def sigmoid(cls, T=1000, beta_start=1e-4, beta_end=0.02):
        """GeoDiff's schedule as in diffusers: beta a logistic curve from -6 to 6 between the two ends."""
        _check_betas(beta_start, beta_end)
        return cls._from_betas(torch.sigmoid(_line(-6, 6, T)) * (beta_end - beta_start) + beta_start, "sigmoid")

    @classmethod
    def from_diffusers(cls, scheduler):
        """The schedule of a diffusers scheduler, from its float32 `betas`, recomputed in float64.

        alpha_bar itself is float32 there, which leaves SNR(0) four digits. Where it differs by more than rounding from
        what the betas give, it was changed on purpose and is used as it is; 2^-24 in place of a terminal 0 counts as 0.
        """
        alpha_bar = scheduler.alphas_cumprod.cpu().to(torch.float64)  # `add_noise` has moved it to the images' device
        betas = getattr(scheduler, "betas", None)
        if betas is not None:
            exact = torch.cumprod(1 - betas.cpu().to(torch.float64), dim=0)
            alpha_bar = exact if torch.allclose(exact, alpha_bar, rtol=1e-4, atol=1e-6) else alpha_bar
        name = getattr(scheduler, "config", {}).get("beta_schedule", type(scheduler).__name__)
        return cls(alpha_bar, str(name))

    @classmethod
    def _from_betas(cls, betas, name):
        return cls(torch.cumprod(1 - betas, dim=0), name)

    @property
    def scale_tables(self):
        """(sqrt(alpha_bar), sqrt(1 - alpha_bar)): float64 (T,) each."""
        return self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()

    @property
    def snr(self):
        """SNR(t) = alpha_bar / (1 - alpha_bar): float64 (T,), strictly decreasing."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def rescale_zero_terminal_snr(self):
        """Shifted and scaled to SNR(T-1) = 0; SNR(0) is kept (Lin et al. 2024, algorithm 1). InputError for T = 1."""
        if self.T < 2:
            raise InputError("T is 1; a schedule needs two timesteps or more to have both SNR(0) kept and SNR(T-1) = 0")
        root = self.alpha_bar.sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return Schedule(root**2, f"{self.name}, zero-terminal")


def check_schedule(schedule, variance_preserving=False):
    """Return `schedule`. Raises InputError unless given a `Schedule` or, where that is allowed, a `FlowSchedule`."""
    if not hasattr(schedule, "scales"):
        raise InputError(f"schedule is {shown(schedule)}; it must be a Schedule, such as Schedule.linear(T=1000)")
    if variance_preserving and not hasattr(schedule, "alpha_bar"):
        raise InputError(f"schedule is a {type(schedule).__name__}; this needs a Schedule, which has an alpha_bar")
    return schedule


def check_table(name, given):
    """`as_float64` of a one-dimensional table that is not empty. Raises InputError, under that name, for all else."""
    table = as_float64(name, given)
    if table.ndim != 1 or len(table) == 0:
        raise InputError(f"{name} has shape {tuple(table.shape)}; it must be one-dimensional and not empty")
    return table


def as_float64(name, given):
    """A float64 tensor of the real numbers in a tensor, an array, a list or a Series.

    A tensor stays on its device, if that has float64; an array, of any byte order and stride, is copied. Raises
    InputError, under that name, for what holds no real numbers.
    """
    try:
        if isinstance(given, torch.Tensor) and not (given.is_complex() or given.dtype == torch.bool or given.is_meta):
            return (given.cpu() if given.device.type == "mps" else given).to(torch.float64)  # Apple's GPUs have none
        array = np.asarray(given)
        if array.dtype.kind in "iuf" or (array.dtype.kind == "O" and array.ndim):
            return torch.from_numpy(array.astype(np.float64, order="C"))  # at once: torch reads a list as float32
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass  # refused below
    raise InputError(f"{name} is {shown(given)}; it must be a table of real numbers")


def _line(start, end, T):
    return torch.linspace(start, end, _check_T(T), dtype=torch.float64, device="cpu")


def _check_T(T):
    return check_number("T", T, minimum=1, maximum=1_000_000, integer=True)  # more are a mistake, and fill the memory


def _check_betas(start, end):
    check_number("beta_start", start, above=0, below=1)
    check_number("beta_end", end, above=0, below=1)
