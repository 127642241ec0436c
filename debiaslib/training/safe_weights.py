"""Weights that others published, read without running anything: safetensors, or torch's loader of tensors alone."""

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..errors import InputError, shown

__all__ = ["read_weights"]


def read_weights(path):
    """{name: tensor} on the CPU of a .safetensors file, or of one that torch.save wrote (any other suffix).

    Raises InputError, in one line, for a file that is missing, cut short or holds anything but named tensors of finite
    numbers. A pickle that would run code is refused, and its code not run.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: it is damaged, or holds more than tensors, which takes code to load ({_reason(error)})"
        ) from None
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise InputError(f"{path} cannot be read as weights, it may be cut short: {_reason(error)}") from None
    _check(path, state)
    return state


def _check(path, state):
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path} holds {shown(type(state).__name__)} and no state dict: {{name: tensor}}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise InputError(f"{path} holds {shown(name)}, which is no tensor; give the state dict alone (its EMA)")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{path} holds a value that is not finite in {shown(name)}")


def _reason(error):
    """The sentence that says it, of torch's page of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "WeightsUnpickler error" in line or "unsupported" in line.lower()), "")
    return (told or " ".join(lines) or type(error).__name__)[:60]
