"""The features of a reference set, stored by all that they depend on.

torch-fidelity's own cache knows neither the images nor the weights.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch

from ..files import sha256_json, write_npy
from ..paths import cache_root
from ..store import stored
from .features import BATCH_SIZE, TORCH_FIDELITYS, torch_fidelity_module


def reference_features(images, extractor, fingerprint, cache=None):
    """Features of uint8 images (N, 3, H, W), (N, d), stored in `cache` (None: features/ of the cache folder).

    `fingerprint` stands for the content of `images`. The file's name is a hash of it and of all else that the features
    depend on; see `store.stored`. Warns where the cache cannot be written.
    """
    inputs = [extractor.name, extractor.weights_sha256, extractor.dtype, extractor.rule, fingerprint, len(images)]
    inputs += [BATCH_SIZE, str(torch.__version__), torch.device(extractor.device).type]
    if extractor.name in TORCH_FIDELITYS:
        inputs.append(torch_fidelity_module().__version__)
    path = (Path(cache) if cache else cache_root() / "features") / f"{sha256_json(inputs)}.npy"
    try:
        stored(path, inputs, lambda temporary: write_npy(temporary, extractor.features(images)))
        return np.load(path, allow_pickle=False)
    except OSError as error:
        warnings.warn(f"the reference's features are not cached: {error}", stacklevel=2)
        return extractor.features(images)


def fingerprint_of(images):
    """sha256 (hexadecimal) of the shape and the pixels of uint8 images (N, 3, H, W), which may be mapped from disk."""
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]))
    return digest.hexdigest()
