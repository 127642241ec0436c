"""Whether a device is there, asked before any work."""

import torch

from .errors import InputError, shown

__all__ = ["check_device"]


def check_device(device):
    """Return `device`, a text or a torch.device. Raises InputError if PyTorch does not find it on this machine.

    Nothing is put on it: a GPU would keep half a gigabyte for this process.
    """
    kind, colon, index = str(device).partition(":")
    known = kind in ("cpu", "cuda", "mps", "meta") and (not colon or index.isdecimal())  # meta: sizes without numbers
    if not known or not isinstance(device, (str, torch.device)):
        raise InputError(f"device is {shown(device)}; write it as 'cpu', 'cuda', 'cuda:0' or 'mps'")
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(kind)
    if backend is not None and not backend.is_available():
        raise InputError(f"device is {str(device)!r}, which PyTorch does not find on this machine; use device='cpu'")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(index or 0) >= count:
        raise InputError(f"device is {str(device)!r}; this machine has {count} of its kind, counted from 0")
    return device
