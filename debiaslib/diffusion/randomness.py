"""All randomness of step s comes from (seed, purpose, s): nothing is stored, and a resumed run equals another one."""

import hashlib

import torch


def stream_seed(seed, purpose, step=0):
    """A 63-bit seed from (seed, purpose, step); different purposes and steps are independent streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed, purpose, step=0, device="cpu"):
    """A torch.Generator for (seed, purpose, step) on `device`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, step))
