"""Weights that others published, read without running anything: safetensors, or torch's loader of tensors alone."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from ..errors import InputError, shown


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
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = shown(str(error), 60)
        raise InputError(f"{path} is refused: it is damaged, or holds more than tensors ({reason})") from None
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path} holds {shown(type(state).__name__)} and no state dict: {{name: tensor}}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise InputError(f"{path} holds {shown(name)}, which is no tensor; give the state dict alone (its EMA)")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{path} holds a value that is not finite in {shown(name)}")
    return state
