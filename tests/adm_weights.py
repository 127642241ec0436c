"""Weights and inputs that name and shape alone decide, so that golden outputs need no weights beside them.

`numpy.random.RandomState` keeps its stream for ever. Norms are near 1, convolutions and linear layers keep the size of
what goes through, and nothing is 0, so that every tensor has a say in the output.
"""

import hashlib
import math

import numpy as np
import torch


def numbers(name, shape):
    """Standard normal float32 numbers of that shape."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def weight(name, shape):
    """The tensor of that name in a network."""
    drawn = numbers(name, shape)
    if len(shape) == 1:
        return 0.1 * drawn + (1.0 if name.endswith("weight") else 0.0)
    return drawn / math.sqrt(math.prod(shape[1:]))


def weights(shapes):
    """{name: tensor} of a state dict given as {name: shape}."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def inputs(count, channels, side, classes=None):
    """x (N, C, side, side), t (N,) over [0, 1000), labels (N,) or None."""
    t = torch.tensor([0, 3, 250, 999])[torch.arange(count) % 4]
    return (
        numbers("x", (count, channels, side, side)),
        t,
        None if classes is None else torch.arange(count) * 3 % classes,
    )
