"""Flow matching: the straight path from an image to noise, and the schedules of diffusers' schedulers.

    x_t = (1 - t) x0 + t epsilon      u = dx_t/dt = epsilon - x0      SNR = ((1 - t) / t)^2        (Lipman et al. 2023)

Here t is a time in [0, 1], called sigma as in diffusers. The argument t of the methods is an index into the table of
sigma, as everywhere in this library.
"""

from dataclasses import dataclass, field

import torch

from ..errors import InputError, check_number
from .schedule import ForwardProcess, Schedule, check_table


@dataclass(frozen=True, eq=False)
class FlowSchedule(ForwardProcess):
    """sigma at every training timestep: float64 (T,), in [0, 1], rising or falling. Raises InputError otherwise.

    sigma = 0 is the image, with an infinite SNR; sigma = 1 is noise, with SNR = 0. `uniform` needs T >= 1, shift > 0.
    """

    sigma: torch.Tensor = field(repr=False)
    name: str = "flow"

    def __post_init__(self):
        sigma = check_table("sigma", self.sigma)
        outside = ~((sigma >= 0) & (sigma <= 1))  # also true for NaN
        if bool(outside.any()):
            t = int(outside.int().argmax())
            raise InputError(f"sigma is {sigma[t]} at t = {t}; it must be in [0, 1]")
        if not (bool((sigma.diff() > 0).all()) or bool((sigma.diff() < 0).all())):
            raise InputError("sigma must rise from each timestep to the next, or fall throughout; this table does not")
        object.__setattr__(self, "sigma", sigma)

    @classmethod
    def uniform(cls, T=1000, shift=1.0):
        """sigma = 1/T, 2/T, ... 1, shifted to shift sigma / (1 + (shift - 1) sigma) as in Stable Diffusion 3."""
        check_number("T", T, minimum=1, integer=True)
        check_number("shift", shift, above=0)
        sigma = torch.arange(1, T + 1, dtype=torch.float64, device="cpu") / T
        return cls(shift * sigma / (shift * sigma + (1 - sigma)))  # in this form exactly 1 at sigma = 1

    @property
    def scale_tables(self):
        """(1 - sigma, sigma): float64 (T,) each."""
        return 1 - self.sigma, self.sigma

    @property
    def snr(self):
        """SNR = ((1 - sigma) / sigma)^2: float64 (T,); infinite at sigma = 0."""
        return ((1 - self.sigma) / self.sigma) ** 2


def from_diffusers(scheduler):
    """The `Schedule` or `FlowSchedule` of a diffusers scheduler. Raises InputError for one that has neither table.

    Of a flow-matching scheduler the sigmas are taken as they are, shift included, in its own falling order, as training
    scripts index them. The 0 that `set_timesteps` appends is left out. DPM-Solver, UniPC and the like with
    `use_flow_sigmas=True` are refused: they hold no table of training timesteps.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", None) or {}
    if any(base.__name__.startswith("FlowMatch") for base in type(scheduler).__mro__):
        sigma = scheduler.sigmas[: len(scheduler.timesteps)].double()
        return FlowSchedule(torch.where(sigma > 1 - 1e-6, 1.0, sigma), name)  # its float32 rounds 1 up and down
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        lacks = f"{name} is flow matching (use_flow_sigmas), without a table of training timesteps"
        raise InputError(f"{lacks}; give FlowMatchEulerDiscreteScheduler(shift=...) or FlowSchedule.uniform(T, shift)")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(f"a {name} holds no SNR; give a Schedule, a diffusers scheduler, or a table of SNR(t)")
    return Schedule.from_diffusers(scheduler)
