"""Feature networks behind one interface: uint8 images -> (N, d) numbers, between which `metrics` measures distances.

    minifaces   the network shipped for MiniFaces, 64 numbers; distances fd_minifaces, kid_minifaces
    cifar10     the network shipped for CIFAR-10, 256 numbers; distances fd_cifar10, kid_cifar10
    pooled      4x4 area-pooled RGB, 48 numbers, no weights; distances fd_pooled, kid_pooled
    inception   torch-fidelity's Inception-v3, 2048 numbers and logits; distances fid, kid, and the inception score
    dinov2      torch-fidelity's DINOv2 ViT-L/14, 1024 numbers; distances fd_dinov2, kid_dinov2

Only Inception's distances bear the names FID and KID. The weights of the last two do not come with the package:

    python -m debiaslib.metrics.features fetch-inception
    python -m debiaslib.metrics.features fetch-dinov2
"""

import io
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ..cli import Parser
from ..devices import check_device
from ..errors import InputError, check_choice, check_number
from . import colour
from .feature_weights import DINOV2, INCEPTION, one_line

__all__ = ["EXTRACTORS", "Extractor", "at_hand", "load_extractor", "torch_fidelity_module"]

EXTRACTORS = ("minifaces", "cifar10", "pooled", "inception", "dinov2")
TORCH_FIDELITYS = ("inception", "dinov2")  # also in float64
BATCH_SIZE = 64  # float32 networks give slightly other numbers in other batches, so it is fixed and part of a result


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
    return colour.check_images(name, images.cpu().numpy() if isinstance(images, torch.Tensor) else images)


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

    dtype "float64" is for Inception and DINOv2 alone: arithmetic in double precision, rounded to float32 in the end, so
    that the features do not depend on the batch. "pooled" is always float64, on the CPU. Raises InputError for an
    unknown name, an absent device, missing or altered weights, and (those two) where torch-fidelity cannot be imported.
    """
    check_choice("extractor", name, EXTRACTORS)
    check_choice("dtype", dtype, ("float32", "float64") if name in TORCH_FIDELITYS else ("float32",))
    check_device(device)
    makers = {"minifaces": _minifaces, "cifar10": _cifar10, "pooled": _pooled, "inception": _inception}
    return {**makers, "dinov2": _dinov2}[name](str(device), dtype)


def at_hand(name):
    """Whether the weights of the extractor `name` are on this machine; `load_extractor` checks them."""
    check_choice("extractor", name, EXTRACTORS)
    if name in TORCH_FIDELITYS:
        return {"inception": INCEPTION, "dinov2": DINOV2}[name].path().is_file()
    return name != "cifar10" or import_module(".cifar10_features", __package__).WEIGHTS.is_file()


def _minifaces(device, dtype):
    from .minifaces_features import feature_hash, load_features  # lazy: the others do not need it

    network, weights = load_features().to(device), feature_hash()
    rule = "MiniFacesFeatures: penultimate layer, area to 16x16"
    return Extractor("minifaces", 64, dtype, weights, "fd_minifaces", "kid_minifaces", rule, network, device)


def _cifar10(device, dtype):
    from .cifar10_features import feature_hash, load_features

    network, weights = load_features().to(device), feature_hash()
    rule = "CIFAR10Features: penultimate layer (three stages), area or (from smaller) bilinear to 32x32"
    return Extractor("cifar10", 256, dtype, weights, "fd_cifar10", "kid_cifar10", rule, network, device)


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
    torch_fidelity_module()
    state, weights = INCEPTION.read()
    network = _inception_network(state, dtype).to(device)
    rule = "inception-v3-compat: 2048, TF1 bilinear to 299x299"
    return Extractor("inception", 2048, dtype, weights, "fid", "kid", rule, network, device)


def _inception_network(state, dtype):
    """torch-fidelity's network with the weights `state`; called on uint8 images, it returns (2048 features, logits)."""
    kind = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    # Its constructor downloads, or unpickles a file without protection; here it reads back what we have just written.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = kind("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=buffer)
    except (RuntimeError, TypeError) as error:
        raise INCEPTION.foreign(error) from error
    return _in_precision(network, dtype)


def _dinov2(device, dtype):
    torch_fidelity_module()
    state, weights = DINOV2.read()
    network = _dinov2_network(state, dtype).to(device)
    # Not the resizing of Stein et al. (2023), PIL's bicubic: their FD-DINOv2 are comparable among themselves.
    rule = "dinov2-vit-l-14: class token, TF1 bilinear to 224x224"
    return Extractor("dinov2", 1024, dtype, weights, "fd_dinov2", "kid_dinov2", rule, network, device)


def _dinov2_network(state, dtype):
    """torch-fidelity's resizing and normalisation about our transformer; called on uint8 images, it returns (1024,)."""
    from .dinov2 import VisionTransformer

    kind = import_module("torch_fidelity.feature_extractor_dinov2").FeatureExtractorDinoV2
    # Its constructor would fetch a repository and execute it, so its parent's is called in its place.
    network = kind.__new__(kind)
    super(kind, network).__init__("dinov2-vit-l-14", ["dinov2"])
    with torch.device("meta"):  # 1.2 GB that `state` replaces
        network.model = VisionTransformer()
    try:
        network.model.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError) as error:
        raise DINOV2.foreign(error) from error
    return _in_precision(network, dtype)


def _in_precision(network, dtype):
    # torch-fidelity 0.4 takes feature_extractor_internal_dtype="float64" and computes in float32.
    network.feature_extractor_internal_dtype = getattr(torch, dtype)
    return network.to(getattr(torch, dtype)).eval().requires_grad_(False)


def torch_fidelity_module():
    """The module torch_fidelity; InputError, one line, where it is missing or torch and torchvision do not match."""
    try:
        return import_module("torch_fidelity")
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'debiaslib[lab]' (for torch-fidelity)") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # "operator torchvision::nms does not exist": torchvision's compiled part was built for another torch.
        raise InputError(
            f"torch-fidelity cannot be imported ({one_line(error)}): torch {torch.__version__} and torchvision do not"
            " match; install both from one index"
        ) from error


def main(arguments=None):
    """Fetch the weights of a feature network, once, on a machine with a network."""
    parser = Parser(prog="python -m debiaslib.metrics.features", description=main.__doc__)
    known = {weights.command: weights for weights in (INCEPTION, DINOV2)}
    sizes = "; ".join(f"{command}: {weights.size}" for command, weights in known.items())
    parser.add_argument("command", choices=known, help=f"download, verify and store the weights ({sizes})")
    command = parser.parse_args(arguments).command
    try:
        print(known[command].fetch())
    except (InputError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
