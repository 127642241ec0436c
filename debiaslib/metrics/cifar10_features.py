"""The feature network of CIFAR-10: 256 numbers per image, for distances without downloads (`fd_cifar10`).

A small residual network that classifies CIFAR-10. Its last layer sees averages over the positions of all three stages,
since the last stage alone is trained to forget what does not change the class, colour and sharpness among it. These are
the features, each scaled to mean 0 and standard deviation 1 over training images. The first layer is fixed: it whitens
2x2 patches (Coates and Ng 2012), so that few epochs suffice. The shipped weights were made by

    OMP_NUM_THREADS=1 python -m debiaslib.metrics.cifar10_training --dataset FOLDER --out cifar10_features

on one CPU core, FOLDER being uoft-cs/cifar10's parquet files (`cifar10_training`). Their metadata
(`weights_metadata`) hold the settings, torch's version and the test accuracy.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import nn
from torch.nn import functional as F

from ..errors import InputError

__all__ = ["CIFAR10Features", "feature_hash", "load_features", "weights_metadata"]

WEIGHTS = Path(__file__).with_name("cifar10_features.safetensors")
SHA256 = "6aff6ca474d01ac3d03e5764c5ea7a057ee0195c94855ec68505d2874ecd90da"

SIDE = 32  # what the network sees; other sizes are brought to it: smaller ones bilinearly, larger ones by area averages
CLASSES = 10
WIDTHS = (48, 128, 256)  # of the stages, at 15x15, 7x7 and 3x3
NARROWED = 80  # what the last stage is brought to
DIMENSION = WIDTHS[0] + WIDTHS[1] + NARROWED
PATCH = 2
WHITENED = 2 * 3 * PATCH**2  # both signs of each principal direction of a patch: ReLU loses nothing


class Stage(nn.Module):
    """Halve the resolution and change the width; then a convolution about which the signal may pass."""

    def __init__(self, width_in, width):
        super().__init__()
        self.widen = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.widen_norm = nn.BatchNorm2d(width)
        self.residual = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.residual_norm = nn.BatchNorm2d(width)

    def forward(self, x):
        x = F.relu(self.widen_norm(F.max_pool2d(self.widen(x), 2)))
        return x + F.relu(self.residual_norm(self.residual(x)))


class CIFAR10Features(nn.Module):
    """uint8 images (N, 3, H, H) -> float32 features (N, 256), on the device of both.

    An image's features do not depend on the others' in the batch once the network is in eval mode, as `load_features`
    returns it. Raises InputError for anything but square uint8 RGB images.
    """

    def __init__(self):
        super().__init__()
        self.whiten = nn.Conv2d(3, WHITENED, PATCH)
        self.whiten.requires_grad_(False)
        self.stages = nn.ModuleList(Stage(a, b) for a, b in zip((WHITENED, *WIDTHS[:-1]), WIDTHS, strict=True))
        self.narrow = nn.Sequential(nn.Conv2d(WIDTHS[-1], NARROWED, 1, bias=False), nn.BatchNorm2d(NARROWED), nn.ReLU())
        # No scale and shift of its own: it is what brings the features to mean 0 and standard deviation 1.
        self.scale = nn.BatchNorm1d(DIMENSION, affine=False)
        self.head = nn.Linear(DIMENSION, CLASSES)

    def forward(self, images):
        shape = tuple(images.shape)
        if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise InputError(f"images are {images.dtype} of shape {shape}; they must be torch.uint8 (N, 3, H, H)")
        with torch.autocast(images.device.type, enabled=False):
            return self.embed(pixels(images))

    def embed(self, values):
        """Features of what `pixels` returns; under autocast if the caller says so."""
        return self.scale(self.averages(values))

    def averages(self, values):
        """The features before they are scaled."""
        x, levels = F.relu(self.whiten(values)), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels[-1] = self.narrow(x)
        return torch.cat([level.float().mean((2, 3)) for level in levels], 1)

    def logits(self, images):
        """uint8 images (N, 3, H, H) -> float32 (N, 10): unnormalised log-probabilities of CIFAR-10's classes."""
        return self.head(self(images))


def pixels(images):
    """uint8 of any size -> float32 (N, 3, SIDE, SIDE) in [-1, 1]."""
    values = images.float() / 127.5 - 1
    if values.shape[-1] == SIDE:
        return values
    if values.shape[-1] < SIDE:
        return F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return F.interpolate(values, size=(SIDE, SIDE), mode="area")


def load_features(path=None):
    """The trained network, in eval mode and without gradients, on the CPU.

    `path` is a file that `python -m debiaslib.metrics.cifar10_training` wrote; without it, the shipped weights, whose
    sha256 must be the one recorded here. Raises InputError if the file is missing, altered or not such a file.
    """
    content = _read(path)
    with torch.random.fork_rng(devices=[]):  # the start that is overwritten at once must not use up random numbers
        network = CIFAR10Features()
    try:
        network.load_state_dict(load(content))  # float16 in the file, float32 in the network
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"feature weights {path or WEIGHTS} are not those of CIFAR10Features") from error
    return network.eval().requires_grad_(False)


def feature_hash(path=None):
    """sha256 (hexadecimal) of the weights that `load_features(path)` loads; raises InputError as it does."""
    return hashlib.sha256(_read(path)).hexdigest()


def weights_metadata(path=None):
    """What the file of the weights says of its making: a dict of command, test_accuracy, settings and torch's version.

    Raises InputError as `load_features` does.
    """
    _read(path)
    try:
        with safe_open(path or WEIGHTS, "pt") as file:
            return json.loads(file.metadata()["training"])
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"feature weights {path or WEIGHTS} do not say how they were made") from error


def _read(path):
    file = Path(path or WEIGHTS)
    if not file.is_file():
        raise InputError(
            f"feature weights {file} are missing; `python -m debiaslib.metrics.cifar10_training` makes them"
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if path is None and found != SHA256:
        raise InputError(f"feature weights {file} were altered: sha256 {found[:12]}..., expected {SHA256[:12]}...")
    return content
