"""Feature networks behind one interface: uint8 images -> (N, d) numbers, between which `distances` measures.

    minifaces   the network shipped for MiniFaces, 64 numbers; distances fd_minifaces, kid_minifaces
    cifar10     the network shipped for CIFAR-10, 256 numbers; distances fd_cifar10, kid_cifar10
    pooled      4x4 area-pooled RGB, 48 numbers, no weights; distances fd_pooled, kid_pooled
    inception   torch-fidelity's Inception-v3, 2048 numbers and logits; distances fid, kid, and the inception score

Only Inception's distances bear the names FID and KID. Its weights do not come with the package:

    python -m debiaslib.metrics.features fetch-inception
"""

import hashlib
import io
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ..cli import Parser, run_command
from ..devices import check_device
from ..errors import InputError, check_choice
from ..files import sha256_json, write_npy
from ..paths import cache_root
from ..store import stored
from .colour import check_images
from .feature_nets import load_network
from .feature_weights import SIZE, fetch_inception, inception_path, not_inception, read_inception

EXTRACTORS = ("minifaces", "cifar10", "pooled", "inception")
BATCH_SIZE = 64  # float32 networks give slightly other numbers in other batches, so it is fixed and part of a result


@dataclass(frozen=True)
class Extractor:
    """A feature network, as `load_extractor` makes it.

    name: one of EXTRACTORS. dimension: d. dtype: of the arithmetic inside. weights_sha256: hex, None without weights.
    distance, kernel: names of the Frechet and the kernel distance. rule: which network, layer and resizing.
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

    def features(self, images):
        """uint8 images (N, 3, H, W), array or tensor -> features (N, d): float64 for "pooled", else float32.

        Raises InputError for other images.
        """
        return self.features_and_logits(images)[0]

    def features_and_logits(self, images):
        """As `features`, with Inception's unbiased logits (N, 1008), float32; None in their place for the others."""
        images, batches = check_images("images", images), []
        with torch.no_grad(), _exact(self.device):
            starts = range(0, len(images), BATCH_SIZE)
            for start in tqdm(starts, f"{self.name} features", disable=None, delay=5, leave=False):
                # A copy, as torch wants no read-only (memory-mapped) arrays.
                output = self.network(torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(self.device))
                batches.append([part.cpu().numpy() for part in (output if isinstance(output, tuple) else (output,))])
        features, *logits = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return features, logits[0] if logits else None


@contextmanager
def _exact(device):
    """Neither TF32, bfloat16 nor autocast, and cuDNN's deterministic algorithms, whatever a training has chosen."""
    wanted = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (torch.backends.mkldnn.matmul, "fp32_precision", "ieee"),  # the CPU's, by torch.set_float32_matmul_precision
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
    ]
    with ExitStack() as before, torch.autocast(torch.device(device).type, enabled=False):
        for home, name, value in wanted:
            before.callback(setattr, home, name, getattr(home, name))
            setattr(home, name, value)
        yield


def load_extractor(name, device="cpu"):
    """The Extractor called `name` (one of EXTRACTORS), on `device`.

    "pooled" is float64 on the CPU, whatever the device. Raises InputError for an unknown name, an absent device,
    missing or altered weights, and (Inception) where torch-fidelity cannot be imported.
    """
    check_choice("extractor", name, EXTRACTORS)
    check_device(device)
    names = ("fid", "kid") if name == "inception" else (f"fd_{name}", f"kid_{name}")
    if name == "pooled":  # one pass over the pixels, and not all devices have float64
        return Extractor(name, 48, "float64", None, *names, _RULES[name], PooledPixels())
    if name == "inception":
        state, weights = read_inception()
        network, dimension = _inception_network(state), 2048
    else:
        network, weights = load_network(name)
        dimension = network.scale.num_features
    return Extractor(name, dimension, "float32", weights, *names, _RULES[name], network.to(device), str(device))


_RULES = {
    "minifaces": "MiniFacesFeatures: penultimate layer, area to 16x16",
    "cifar10": "CIFAR10Features: penultimate layer (three stages), area or (from smaller) bilinear to 32x32",
    "pooled": "RGB/255, area to 4x4",
    "inception": "inception-v3-compat: 2048, TF1 bilinear to 299x299",
}


def at_hand(name):
    """Whether the weights of the extractor `name` are on this machine; `load_extractor` checks them."""
    return check_choice("extractor", name, EXTRACTORS) != "inception" or inception_path().is_file()


class PooledPixels(nn.Module):
    """uint8 (N, 3, H, W), H and W >= 4 -> float64 (N, 48): means over a 4x4 grid, in [0, 1], red's 16 first.

    Where a side is no multiple of 4, neighbouring cells share a row or column: torch's adaptive average pooling.
    """

    def forward(self, images):
        return F.adaptive_avg_pool2d(images.double(), 4).flatten(1) / 255


def _inception_network(state):
    """torch-fidelity's network with the weights `state`; called on uint8 images, it returns (2048 features, logits)."""
    kind = torch_fidelity_module("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    # Its constructor downloads, or unpickles a file without protection; here it reads back what we have just written.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = kind("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=buffer)
    except (RuntimeError, TypeError) as error:
        raise not_inception(error) from error
    return network.eval().requires_grad_(False)


def reference_features(images, extractor):
    """Features of uint8 images (N, 3, H, W), (N, d), stored in features/ of the cache folder.

    The file's name is a hash of all that they depend on, the pixels among it; torch-fidelity's own cache knows neither
    the images nor the weights.
    """
    pixels = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), 1024):
        pixels.update(np.ascontiguousarray(images[start : start + 1024]))
    inputs = [extractor.name, extractor.weights_sha256, extractor.dtype, extractor.rule]
    inputs += [pixels.hexdigest(), len(images), BATCH_SIZE, str(torch.__version__), torch.device(extractor.device).type]
    if extractor.name == "inception":
        inputs.append(torch_fidelity_module().__version__)
    path = cache_root() / "features" / f"{sha256_json(inputs)}.npy"
    stored(path, inputs, lambda temporary: write_npy(temporary, extractor.features(images)))
    return np.load(path, allow_pickle=False)


def torch_fidelity_module(name=None):
    """torch_fidelity, or a module in it; InputError where it is missing or torch and torchvision do not match."""
    try:
        return import_module(f"torch_fidelity.{name}" if name else "torch_fidelity")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # "operator torchvision::nms does not exist": torchvision's compiled part was built for another torch.
        how = "pip install 'debiaslib[lab]', with torch and torchvision from one index"
        raise InputError(f"torch-fidelity cannot be imported ({error}): {how}") from error


def main(arguments=None):
    """Fetch the weights of Inception-v3, once, on a machine with a network."""
    parser = Parser(prog="python -m debiaslib.metrics.features", description=main.__doc__)
    text = f"download, verify and store the weights ({SIZE})"
    parser.add_argument("command", choices=["fetch-inception"], help=text)
    parser.parse_args(arguments)
    print(fetch_inception())


if __name__ == "__main__":
    run_command(main)
