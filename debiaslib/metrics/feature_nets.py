"""The two feature networks whose weights ship with the package, and one loader for both.

`MiniFacesFeatures` regresses the factors of MiniFaces and the blur and noise that its training images were given.
`CIFAR10Features` is a small residual classifier; its last layer sees averages of all three stages, since the last alone
forgets colour and sharpness. Each feature of both is scaled to mean 0 and standard deviation 1 over clean training
images. tools/train_features.py trained them.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn
from torch.nn import functional as F

from ..errors import InputError


class FeatureNet(nn.Module):
    """uint8 images (N, 3, H, H) -> float32 features (N, d), on the device of both.

    `side`: the resolution that the network sees; larger images are brought to it by area averages, smaller ones as
    `enlarge` says.
    """

    side: int
    enlarge = {"mode": "area"}

    def forward(self, images):
        with torch.autocast(images.device.type, enabled=False):
            return self.scale(self.body(self.pixels(images)))

    def pixels(self, images):
        """uint8 (N, 3, H, H) -> float32 (N, 3, side, side) in [-1, 1]."""
        values = images.float() / 127.5 - 1
        how, size = {"mode": "area"} if max(values.shape[2:]) > self.side else self.enlarge, (self.side,) * 2
        return values if values.shape[2:] == size else F.interpolate(values, size=size, **how)


class MiniFacesFeatures(FeatureNet):
    """64 features, at 16x16."""

    side = 16

    def __init__(self):
        super().__init__()

        def convolution(a, b):
            return nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.SiLU()

        self.body = nn.Sequential(
            *convolution(3, 24),
            *convolution(24, 32),
            nn.AvgPool2d(2),
            *convolution(32, 48),
            *convolution(48, 48),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(48 * (self.side // 4) ** 2, 64, bias=False),
        )
        # No scale and shift of its own: it is what brings the features to mean 0 and standard deviation 1.
        self.scale = nn.BatchNorm1d(64, affine=False)


class CIFAR10Features(FeatureNet):
    """256 features, at 32x32; smaller images are enlarged bilinearly.

    The first layer is fixed: it whitens 2x2 patches (Coates and Ng 2012), with both signs of each of the 12 principal
    directions, as ReLU then loses nothing.
    """

    side = 32
    enlarge = {"mode": "bilinear", "align_corners": False}
    classes = 10

    def __init__(self, widths=(48, 128, 256), narrowed=80):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.requires_grad_(False)
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in zip((24, *widths[:-1]), widths, strict=True))
        self.narrow = nn.Sequential(nn.Conv2d(widths[-1], narrowed, 1, bias=False), nn.BatchNorm2d(narrowed), nn.ReLU())
        dimension = sum(widths[:-1]) + narrowed
        self.scale = nn.BatchNorm1d(dimension, affine=False)
        self.head = nn.Linear(dimension, self.classes)

    def body(self, values):
        """The features before they are scaled, of what `pixels` returns."""
        x, levels = F.relu(self.whiten(values)), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels[-1] = self.narrow(x)
        return torch.cat([level.float().mean((2, 3)) for level in levels], 1)

    def logits(self, images):
        """uint8 images (N, 3, H, W) -> float32 (N, 10): unnormalised log-probabilities of CIFAR-10's classes."""
        return self.head(self(images))


class _Stage(nn.Module):
    """Halves the resolution and changes the width; then a convolution with a residual connection."""

    def __init__(self, width_in, width):
        super().__init__()
        self.widen = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.widen_norm = nn.BatchNorm2d(width)
        self.residual = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.residual_norm = nn.BatchNorm2d(width)

    def forward(self, x):
        x = F.relu(self.widen_norm(F.max_pool2d(self.widen(x), 2)))
        return x + F.relu(self.residual_norm(self.residual(x)))


NETWORKS = {"minifaces": MiniFacesFeatures, "cifar10": CIFAR10Features}
SHA256 = {  # of the shipped files
    "minifaces": "6697cf0d6178db60ade232d4261804cc8793e471ad18b298bcc9fcb186a3cdc5",
    "cifar10": "6aff6ca474d01ac3d03e5764c5ea7a057ee0195c94855ec68505d2874ecd90da",
}


def shipped_weights(name):
    """The path of the weights of `name` that ship with the package."""
    return Path(__file__).with_name(f"{name}_features.safetensors")


def load_network(name, path=None):
    """(network, sha256 of its weights in hex): in eval mode and without gradients, on the CPU.

    `name` is one of `NETWORKS`; `path` a file that tools/train_features.py wrote, else the shipped weights, whose
    sha256 must be the one recorded here. Raises InputError if the file is missing, altered or not such a file.
    """
    file = Path(path or shipped_weights(name))
    if not file.is_file():
        raise InputError(f"feature weights {file} are missing; install debiaslib again, or run tools/train_features.py")
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if path is None and sha256 != SHA256[name]:
        raise InputError(f"feature weights {file} were altered: sha256 {sha256[:12]}..., not {SHA256[name][:12]}...")
    with torch.random.fork_rng(devices=[]):  # the start that is overwritten at once must not use up random numbers
        network = NETWORKS[name]()
    try:
        network.load_state_dict(load(content))  # float16 in a file becomes float32 in the network
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"feature weights {file} are not those of {NETWORKS[name].__name__}") from error
    return network.eval().requires_grad_(False), sha256
