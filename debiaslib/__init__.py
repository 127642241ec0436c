"""debiaslib: the 1/sqrt(SNR) loss weight of "Unmasking Bias in Diffusion Model Training", and its independent re-test.

    from debiaslib import Schedule, loss_weight
    weight = loss_weight("debiased", Schedule.linear(T=1000))  # (T,): weight[t] multiplies the squared error at step t

These names need torch and numpy only; everything else is imported from its own module and needs the `lab` extra.
"""

import warnings
from importlib import import_module

__version__ = "0.1.0"

# Libraries draw their bars as widgets where they can; that they cannot is no news, and names a path in a notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

_HOMES = {
    "Schedule": "diffusion.schedule",
    "FlowSchedule": "diffusion.flow",
    "loss_weight": "diffusion.weighting",
    "parse_strategy": "diffusion.strategies",
    "to_x0_epsilon": "diffusion.prediction",
    "prediction_target": "diffusion.prediction",
    "one_step_estimate": "diffusion.one_step",
    "mse_by_timestep": "diffusion.one_step",
    "OptimalDenoiser": "diffusion.optimum",
    "GaussianDenoiser": "diffusion.optimum",
    "TrainConfig": "training.config",
    "load_experiment": "study.experiment",
    "load_images": "data.images",
    "train": "training.loop",
    "sample": "diffusion.sampling",
    "load_model": "training.load",
    "InputError": "errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'debiaslib' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__():
    return __all__
