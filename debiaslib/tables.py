"""What every measurement is made of: trained runs by their identity, a fixed subset of images, arrays in a file."""

import numpy as np
import torch

from .config import run_name
from .randomness import stream


def trained(study, seeds, weightings=None):
    """{"runs": identity of each (weighting, seed)} that a table is made from; trains those that are missing."""
    pairs = [(w, s) for s in seeds for w in weightings or study.experiment.weightings]
    for weighting, seed in pairs:
        study.run(weighting, seed)
    return {"runs": {run_name(w, s): study.identity(w, s) for w, s in pairs}}


def subset(images, count):
    """`count` images (all, if fewer) in an order that is drawn once, since files may lie sorted by class."""
    order = torch.randperm(len(images), generator=stream(0, "subset"))[:count]
    return np.ascontiguousarray(images[np.sort(order.numpy())])


def save_arrays(path, **arrays):
    """Write named arrays, compressed."""
    with open(path, "wb") as file:  # an open file: numpy would append .npz to a path
        np.savez_compressed(file, **arrays)


def load_arrays(path):
    """The named arrays of a file, as a dict; pickles are refused."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
