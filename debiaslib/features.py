"""Feature networks behind one interface: uint8 images -> (N, d) numbers, between which `metrics` measures distances.

    minifaces   the network shipped for MiniFaces, 64 numbers; distances fd_minifaces, kid_minifaces
    pooled      4x4 area-pooled RGB, 48 numbers, no weights; distances fd_pooled, kid_pooled
    inception   torch-fidelity's Inception-v3, 2048 numbers and logits; distances fid, kid, and the inception score

Only Inception's distances bear the names FID and KID. Its weights do not come with the package:

    python -m debiaslib.features fetch-inception
"""

import argparse
import hashlib
import http.client
import io
import os
import pickle
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from .errors import InputError, check_choice, check_number
from .files import sha256_file

__all__ = ["EXTRACTORS", "Extractor", "fetch_inception", "inception_path", "load_extractor", "torch_fidelity_module"]

EXTRACTORS = ("minifaces", "pooled", "inception")
BATCH_SIZE = 64  # float32 networks give slightly other numbers in other batches, so it is fixed and part of a result

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = "6726825d"  # how it begins: torch.hub's convention, the last part of the file's name
INCEPTION_SIZE = "about 95.5 MB"
PATIENCE = 60  # seconds without a byte after which a download has failed


@dataclass(frozen=True)
class Extractor:
    """A feature network, as `load_extractor` makes it.

    name: one of EXTRACTORS. dimension: d. dtype: of the arithmetic inside, "float32" or "float64".
    weights_sha256: hex, None where there are no weights. distance, kernel: what the Frechet and the kernel distance in
    these features are called. rule: which network, layer and resizing.
    """

    name: str
    dimension: int
    dtype: str
    weights_sha256: str | None
    distance: str
    kernel: str
    rule: str
    network: nn.Module
    device: str = "cpu"

    def features(self, images, batch_size=BATCH_SIZE):
        """uint8 images (N, 3, H, W), array or tensor -> features (N, d): float64 for "pooled", else float32.

        Raises InputError for other images and for features that are not finite.
        """
        return self.features_and_logits(images, batch_size)[0]

    def features_and_logits(self, images, batch_size=BATCH_SIZE):
        """As `features`, with Inception's unbiased logits (N, 1008), float32; None in their place for the others."""
        images = check_images("images", images)
        check_number("batch_size", batch_size, minimum=1, integer=True)
        batches = []
        with torch.no_grad(), _exact(self.device):
            starts = range(0, len(images), batch_size)
            for start in tqdm(starts, f"{self.name} features", disable=None, delay=5, leave=False):
                # A copy, as torch wants no read-only (memory-mapped) arrays.
                batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(self.device)
                output = self.network(batch)
                batches.append([part.cpu().numpy() for part in (output if isinstance(output, tuple) else (output,))])
        features, *logits = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        if not np.isfinite(features).all():
            raise InputError(f"{self.name} gives features that are not finite; its weights are damaged or not its own")
        return features, logits[0] if logits else None


def check_images(name, images):
    """Return `images` as a uint8 array (N, 3, H, W) with N >= 1; raises InputError for anything else."""
    images = images.cpu().numpy() if isinstance(images, torch.Tensor) else np.asanyarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"{name} are {images.dtype} of shape {images.shape}; they must be uint8 (N, 3, H, W)")
    return images


@contextmanager
def _exact(device):
    """Neither TF32 nor autocast, and cuDNN's deterministic algorithms, whatever the training around it has chosen."""
    # By torch's newer names alone: reading the older ones raises an error where someone has set the newer.
    wanted = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
    ]
    before = [getattr(home, name) for home, name, _ in wanted]
    try:
        for home, name, value in wanted:
            setattr(home, name, value)
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for (home, name, _), value in zip(wanted, before, strict=True):
            setattr(home, name, value)


def load_extractor(name, device="cpu", dtype="float32"):
    """The Extractor called `name` (one of EXTRACTORS), on `device`.

    dtype "float64" is for Inception alone: arithmetic in double precision, rounded to float32 in the end, so that the
    features do not depend on the batch. "pooled" is always float64, on the CPU. Raises InputError for an unknown name,
    missing or altered weights, and (Inception only) where torch-fidelity cannot be imported.
    """
    check_choice("extractor", name, EXTRACTORS)
    check_choice("dtype", dtype, ("float32", "float64") if name == "inception" else ("float32",))
    return {"minifaces": _minifaces, "pooled": _pooled, "inception": _inception}[name](str(device), dtype)


def _minifaces(device, dtype):
    from .minifaces_features import feature_hash, load_features  # lazy: the others do not need it

    network, weights = load_features().to(device), feature_hash()
    rule = "MiniFacesFeatures: penultimate layer, area to 16x16"
    return Extractor("minifaces", 64, dtype, weights, "fd_minifaces", "kid_minifaces", rule, network, device)


class PooledPixels(nn.Module):
    """uint8 (N, 3, H, W), H and W >= 4 -> float64 (N, 48): means over a 4x4 grid, in [0, 1], red's 16 first.

    Where a side is no multiple of 4, neighbouring cells share a row or column: torch's adaptive average pooling.
    """

    def forward(self, images):
        if min(images.shape[2:]) < 4:
            raise InputError(f"images are {images.shape[2]}x{images.shape[3]}; pooled features need at least 4x4")
        return F.adaptive_avg_pool2d(images.double(), 4).flatten(1) / 255


def _pooled(device, dtype):
    # On the CPU whatever the device: it is one pass over the pixels, and not every accelerator has float64.
    rule = "RGB/255, area to 4x4"
    return Extractor("pooled", 48, "float64", None, "fd_pooled", "kid_pooled", rule, PooledPixels())


def _inception(device, dtype):
    state, weights = _read_inception(inception_path())
    network = _inception_network(state, dtype).to(device)
    rule = "inception-v3-compat: 2048, TF1 bilinear to 299x299"
    return Extractor("inception", 2048, dtype, weights, "fid", "kid", rule, network, device)


def _inception_network(state, dtype):
    """torch-fidelity's network with the weights `state`; called on uint8 images, it returns (2048 features, logits)."""
    torch_fidelity_module()
    kind = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    # Its constructor downloads, or unpickles a file without protection; here it reads back what we have just written.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = kind("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=buffer)
    except RuntimeError as error:
        raise InputError(f"{INCEPTION_FILE} does not hold Inception-v3's weights: {_one_line(error)}") from error
    if dtype == "float64":
        # torch-fidelity 0.4 takes feature_extractor_internal_dtype="float64" and computes in float32.
        network = network.double()
        network.feature_extractor_internal_dtype = torch.float64
    return network.eval().requires_grad_(False)


def inception_path():
    """Where Inception's weights belong: $DEBIASLIB_INCEPTION (the file or its folder), else torch hub's checkpoints."""
    given = os.environ.get("DEBIASLIB_INCEPTION", "")
    if not given:
        return Path(torch.hub.get_dir()).absolute() / "checkpoints" / INCEPTION_FILE
    path = Path(given).expanduser().absolute()
    return path / INCEPTION_FILE if path.is_dir() else path


def _read_inception(path):
    """(weights, sha256) of the file, which is hashed before it is read with torch's safe loader."""
    if not path.is_file():
        raise InputError(
            f"{INCEPTION_FILE} ({INCEPTION_SIZE}, sha256 {INCEPTION_SHA256}...) is missing: put it at {path} (or set"
            f" DEBIASLIB_INCEPTION); `python -m debiaslib.features fetch-inception` gets it from {INCEPTION_URL}"
        )
    content = path.read_bytes()
    weights = hashlib.sha256(content).hexdigest()
    if not weights.startswith(INCEPTION_SHA256):
        raise InputError(_altered(path, weights))
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), weights
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{path} does not hold Inception-v3's weights: {_one_line(error)}") from error


def _altered(path, weights):
    return f"{path} is damaged: sha256 {weights[:8]}..., expected {INCEPTION_SHA256}...; delete it and fetch it again"


def _one_line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def torch_fidelity_module():
    """The module torch_fidelity; InputError, one line, where it is missing or torch and torchvision do not match."""
    try:
        return import_module("torch_fidelity")
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'debiaslib[lab]' (for torch-fidelity)") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # "operator torchvision::nms does not exist": torchvision's compiled part was built for another torch.
        raise InputError(
            f"torch-fidelity cannot be imported ({_one_line(error)}): torch {torch.__version__} and torchvision do not"
            " match; install both as one pair from the same index, as requirements.lock has them"
        ) from error


def fetch_inception(progress=True):
    """Download Inception's weights to `inception_path()` unless they are there; return the path.

    They appear there whole and verified or not at all. Raises InputError without a network.
    """
    path = inception_path()
    if path.is_file():
        weights = sha256_file(path)
        if not weights.startswith(INCEPTION_SHA256):
            raise InputError(_altered(path, weights))
        return path
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torch.hub would wait for ever
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=INCEPTION_SHA256, progress=progress)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise InputError(
            f"{INCEPTION_FILE} ({INCEPTION_SIZE}) could not be downloaded ({_one_line(error)}); get {INCEPTION_URL}"
            f" on a machine with a network and put it at {path}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return path


def main(arguments=None):
    """Fetch the weights of Inception-v3, once, on a machine with a network."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.features", description=main.__doc__)
    parser.add_argument("command", choices=["fetch-inception"], help="download, verify and store the weights")
    parser.parse_args(arguments)
    try:
        print(fetch_inception())
    except InputError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
