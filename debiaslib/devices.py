"""Whether a device is there, asked before any work. Imports no torch until then."""

import re

from .errors import InputError, shown


def check_device_name(device):
    """Return `device`, a text or a torch.device, if it names one; otherwise raise InputError."""
    if not re.fullmatch("(cpu|cuda|mps|meta)(:[0-9]+)?", str(device)):  # meta: sizes without numbers
        raise InputError(f"device is {shown(device)}; write it as 'cpu', 'cuda', 'cuda:0' or 'mps'")
    return device


def check_device(device):
    """Return `device`. Raises InputError if PyTorch does not find it on this machine. Nothing is put on it."""
    kind, _, index = str(check_device_name(device)).partition(":")
    if kind in ("cpu", "meta"):
        return device
    import torch

    backend = torch.cuda if kind == "cuda" else torch.backends.mps
    if not backend.is_available():
        raise InputError(f"device is {str(device)!r}, which PyTorch does not find on this machine; use device='cpu'")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if index and int(index) >= count:
        raise InputError(f"device is {str(device)!r}; this machine has {count} of its kind, counted from 0")
    return device
