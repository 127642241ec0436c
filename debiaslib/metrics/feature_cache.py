"""The features of a reference set, kept by all that they depend on: torch-fidelity's own cache knows neither the images
nor the weights.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch

from ..errors import check_number
from ..files import sha256_json, write_npy
from ..paths import cache_root
from ..store import stored
from .features import BATCH_SIZE, TORCH_FIDELITYS, torch_fidelity_module

__all__ = ["fingerprint_of", "reference_features"]


def reference_features(images, extractor, fingerprint, n=None, cache=None):
    """Features of the first `n` images (None: all), (n, d), kept in `cache` (None: features/ of the cache folder).

    `fingerprint` stands for the content of `images`. The file's name is a hash of it and of all else that the features
    depend on; see `store.stored`. A cache that cannot be written is a warning, not an error.
    """
    n = check_number("n", len(images) if n is None else n, minimum=1, maximum=len(images), integer=True)
    inputs = [extractor.name, extractor.weights_sha256, extractor.dtype, extractor.rule, fingerprint, n, BATCH_SIZE]
    inputs += [str(torch.__version__), torch.device(extractor.device).type]
    if extractor.name in TORCH_FIDELITYS:
        inputs.append(torch_fidelity_module().__version__)
    path = (Path(cache) if cache else cache_root() / "features") / f"{sha256_json(inputs)}.npy"
    made = []

    def make(temporary):
        made.append(extractor.features(images[:n], BATCH_SIZE))
        write_npy(temporary, made[0])

    try:
        return np.load(stored(path, inputs, make), allow_pickle=False)
    except OSError as error:
        warnings.warn(f"the reference's features are not cached: {error}", stacklevel=2)
        return made[0] if made else extractor.features(images[:n], BATCH_SIZE)


def fingerprint_of(images):
    """sha256 (hexadecimal) of the shape and the pixels of uint8 images (N, 3, H, W), which may be mapped from disk."""
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]))
    return digest.hexdigest()
