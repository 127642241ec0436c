"""The feature network of MiniFaces: 64 numbers per image, for a Frechet distance without downloads (`fd_minifaces`).

A small CNN regresses the known factors of `minifaces.FACTORS`, and the strength of the blur and noise that its training
images were given, so its penultimate layer reacts to colour, layout and defects. Each feature is scaled to mean 0 and
standard deviation 1 over clean images. Its training images are of a seed of their own, neither 0 nor 1.

The shipped weights were made by

    OMP_NUM_THREADS=1 python -m debiaslib.metrics.minifaces_features --out debiaslib/minifaces_features.safetensors

on one CPU core (Linux x86-64) with torch 2.15.0 and numpy 2.4.6.
"""

import hashlib
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from ..cli import Parser
from ..data import minifaces
from ..errors import InputError, check_number
from ..files import atomic_path

__all__ = ["MiniFacesFeatures", "factor_r2", "feature_hash", "load_features", "train_features"]

WEIGHTS = Path(__file__).with_name("minifaces_features.safetensors")
SHA256 = "6697cf0d6178db60ade232d4261804cc8793e471ad18b298bcc9fcb186a3cdc5"

SIDE = 16  # what the network sees; other sizes are brought to it by area averages
IMAGES_SEED = 2  # of the images trained on: runs of the package train on seed 0 and hold out seed 1
HELD_OUT_SEED = 1
BATCH = 128


class MiniFacesFeatures(nn.Module):
    """uint8 images (N, 3, H, H) -> float32 features (N, 64), on the device of both.

    An image's features do not depend on the others' in the batch once the network is in eval mode, as `load_features`
    returns it. Raises InputError for anything but square uint8 RGB images.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(3, 24),
            *_convolution(24, 32),
            nn.AvgPool2d(2),
            *_convolution(32, 48),
            *_convolution(48, 48),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(48 * (SIDE // 4) ** 2, 64, bias=False),
        )
        # No scale and shift of its own: it is what brings the features to mean 0 and standard deviation 1.
        self.scale = nn.BatchNorm1d(64, affine=False)

    def forward(self, images):
        shape = tuple(images.shape)
        if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise InputError(f"images are {images.dtype} of shape {shape}; they must be torch.uint8 (N, 3, H, H)")
        with torch.autocast(images.device.type, enabled=False):
            return self.scale(self.body(_prepare(images)))


def _convolution(width_in, width_out):
    return nn.Conv2d(width_in, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.SiLU()


def _prepare(images):
    """uint8 of any size -> float32 (N, 3, SIDE, SIDE) in [-1, 1]."""
    pixels = images.float() / 127.5 - 1
    return pixels if pixels.shape[-1] == SIDE else F.interpolate(pixels, size=(SIDE, SIDE), mode="area")


def load_features(path=None):
    """The trained network, in eval mode and without gradients, on the CPU.

    `path`: a file that `python -m debiaslib.metrics.minifaces_features --out` wrote; else the shipped weights, whose
    sha256 must be the one recorded here. Raises InputError if the file is missing, altered or not such a file.
    """
    content = _read(path)
    with torch.random.fork_rng(devices=[]):  # the start that is overwritten at once must not use up random numbers
        network = MiniFacesFeatures()
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"feature weights {path or WEIGHTS} are not those of MiniFacesFeatures") from error
    return network.eval().requires_grad_(False)


def feature_hash(path=None):
    """sha256 (hexadecimal) of the weights that `load_features(path)` loads; raises InputError as it does."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path):
    file = Path(path or WEIGHTS)
    if not file.is_file():
        raise InputError(
            f"feature weights {file} are missing; `python -m debiaslib.metrics.minifaces_features` makes them"
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if path is None and found != SHA256:
        raise InputError(f"feature weights {file} were altered: sha256 {found[:12]}..., expected {SHA256[:12]}...")
    return content


def _targets(factors):
    """What the network regresses: a dict of float64 (N,) computed from `minifaces.factors`.

    A factor that cannot be seen where another is near zero is weighted by that other: a hue by how colourful the colour
    is (as two coordinates), the redness of the hair by its lightness. The others are taken as they are.
    """
    values = {name: np.asarray(column, np.float64) for name, column in factors.items()}
    shade, shirt = values["background_shade"], values["shirt_shade"]
    reach = {
        "background_hue": values["background_chroma"] * np.minimum(shade, 1 - shade),
        "shirt_hue": np.minimum(shirt, 1 - shirt),
    }
    for name, length in reach.items():
        angle = 2 * np.pi * values.pop(name)
        values |= {f"{name}_cos": length * np.cos(angle), f"{name}_sin": length * np.sin(angle)}
    values["hair_red"] = values["hair_red"] * values["hair_shade"]
    return values


def train_features(images=589824, seed=0, report=print):
    """Train the network on that many images, each seen once; return it in eval mode.

    `seed` sets the weights' start and the augmentation. `report` is called with a line now and then.
    """
    check_number("images", images, minimum=BATCH, integer=True)
    check_number("seed", seed, minimum=0, maximum=2**63 - 1, integer=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MiniFacesFeatures()
        # Two outputs more than factors: how strong the blur and the noise are.
        _fit(network, nn.Linear(64, len(_law()[0]) + 2), images // BATCH, report)
    _standardise(network, min(images, 16384))
    return network


def factor_r2(network, count=8192, held_out=4096):
    """{target: R^2} on `held_out` images of the held-out seed, of a least-squares fit to features of `count` others."""
    network.eval()
    features, wanted = {}, {}
    for name, indices, seed in (("fit", range(count), IMAGES_SEED), ("test", range(held_out), HELD_OUT_SEED)):
        images, wanted[name] = _examples(indices, seed)
        with torch.no_grad():
            raw = torch.cat([network(part) for part in images.split(1024)]).double()
        features[name] = torch.cat([raw, torch.ones(len(raw), 1).double()], 1)
    fitted = torch.linalg.lstsq(features["fit"], wanted["fit"].double()).solution
    error = (features["test"] @ fitted - wanted["test"]).square().mean(0)
    r2 = 1 - error / wanted["test"].double().var(0, correction=0)
    names = _targets(minifaces.factors(range(1)))
    return dict(zip(names, r2.tolist(), strict=True))


@lru_cache
def _law():
    """Mean and standard deviation of each target, float64 (K,) each."""
    sample = np.stack(list(_targets(minifaces.factors(range(16384), IMAGES_SEED)).values()), 1)
    return sample.mean(0), sample.std(0)


def _examples(indices, seed):
    """uint8 images and their targets, float32 (N, K) of mean 0 and standard deviation 1."""
    mean, std = _law()
    wanted = np.stack(list(_targets(minifaces.factors(indices, seed)).values()), 1)
    images = minifaces.render(indices, SIDE, seed)
    return torch.from_numpy(images), torch.from_numpy((wanted - mean) / std).float()


def _degrade(pixels):
    """Leave half of the float images as they are, blur the rest and add noise: (images, strengths (N, 2))."""
    count = len(pixels)
    strength = torch.rand(count, 2) * (torch.rand(count, 1) < 0.5)
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    pixels = torch.lerp(pixels, blurred, strength[:, 0, None, None, None])
    return pixels + 0.25 * strength[:, 1, None, None, None] * torch.randn_like(pixels), 2 * strength


def _fit(network, head, steps, report):
    parameters = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    started, recent = time.perf_counter(), []
    for step in range(steps):
        images, wanted = _examples(range(step * BATCH, (step + 1) * BATCH), IMAGES_SEED)
        degraded, strength = _degrade(_prepare(images))
        output = head(network.scale(network.body(degraded)))
        loss = F.mse_loss(output, torch.cat([wanted, strength], 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        recent.append(loss.item())
        if (step + 1) % 256 == 0 or step + 1 == steps:
            seconds = time.perf_counter() - started
            report(f"step {step + 1} of {steps}: loss {sum(recent) / len(recent):.4f}, {seconds:.0f} s")
            recent.clear()


def _standardise(network, count):
    """Set the last layer's mean and variance to those of clean images (training saw degraded ones too)."""
    network.eval().requires_grad_(False)
    images, _ = _examples(range(count), IMAGES_SEED)
    raw = torch.cat([network.body(_prepare(part)) for part in images.split(1024)]).double()
    network.scale.running_mean.copy_(raw.mean(0))
    network.scale.running_var.copy_(raw.var(0))


def main(arguments=None):
    """Train the network and write its weights; the printed sha256 belongs into `SHA256` if they are to be shipped."""
    parser = Parser(prog="python -m debiaslib.metrics.minifaces_features", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.safetensors)")
    parser.add_argument("--images", type=int, default=589824, help="images to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of start and augmentation (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.out.absolute().parent.is_dir():
        parser.error(f"--out {options.out}: its folder does not exist")
    torch.set_num_threads(1)  # part of what the result depends on
    try:
        network = train_features(options.images, options.seed, report=lambda line: print(line, flush=True))
        for name, r2 in factor_r2(network, min(options.images, 8192), min(options.images, 4096)).items():
            print(f"held-out R^2 {name:24} {r2:6.3f}")
        with atomic_path(options.out) as temporary:
            temporary.write_bytes(
                save(network.state_dict(), metadata={"made_by": "debiaslib.metrics.minifaces_features"})
            )
    except (InputError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{options.out}: sha256 {feature_hash(options.out)}")


if __name__ == "__main__":
    main()
