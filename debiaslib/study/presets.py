"""Presets: data, network and optimiser, one for each row of the paper, and the small ones. Imports no torch.

`network` holds the arguments of diffusers' `UNet2DModel`. A departure from the paper's settings is said beside it.
"""

from types import SimpleNamespace

from ..errors import check_choice


def _preset(dataset, resolution, network, batch_size, lr, images, **more):
    """Settings of a `TrainConfig`, each of which an experiment can override. Sizes are counted in images seen."""
    sizes = {"batch_size": batch_size, "lr": lr, "images": images}
    return SimpleNamespace(dataset=dataset, resolution=resolution, network=network, **sizes, **more)


def _unet(resolution, channels, layers=1, attention=(), groups=8, **more):
    """Arguments of a `UNet2DModel` with attention in the middle and at the given levels (0 = full resolution)."""
    down = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(len(channels))]
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    sizes = {"sample_size": resolution, "in_channels": 3, "out_channels": 3, "block_out_channels": list(channels)}
    blocks = {"layers_per_block": layers, "down_block_types": down, "up_block_types": up, "norm_num_groups": groups}
    return {**sizes, **blocks, **more}


def _small(resolution, **more):
    """The network of the small presets: three levels of 16, 32 and 48 channels, one block each."""
    return _unet(resolution, (16, 32, 48), input_skip=True, **more)


def _adm(resolution, multiples, classes=None):
    """The paper's light ADM network: 128 channels x `multiples`, one residual block, attention where a side is 16.

    The middle's attention is normalised too, which `UNet2DModel` leaves out with scale_shift.
    """
    level = (resolution // 16).bit_length() - 1
    network = _unet(
        resolution, [128 * multiple for multiple in multiples], attention=(level,), groups=32,
        downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", attention_head_dim=64,
        attn_norm_num_groups=32, norm_eps=1e-5, dropout=0.0,
        flip_sin_to_cos=True, freq_shift=0,  # cosines first, and frequencies to 1 / 10,000^(63/64), as ADM has them
    )  # fmt: skip
    for side in ("down", "up"):
        kinds = network[f"{side}_block_types"]
        plain, resnet = f"{side.title()}Block2D", f"Resnet{side.title()}sampleBlock2D"
        network[f"{side}_block_types"] = [resnet if kind == plain else kind for kind in kinds]
    return network if classes is None else {**network, "num_class_embeds": classes}


def _paper(dataset, resolution, network, batch_size):
    """A row of the paper: 500,000 iterations of AdamW at 2e-5 without decay, flips, a learned variance, float32.

    Departures from the authors' training: the network starts from PyTorch's initialisation (ADM's is its key
    `zero_init`); the moving average forgets the start faster (`TrainConfig.ema_decay`); the images of a batch are
    drawn with replacement, where theirs come in shuffled epochs.
    """
    images = 500_000 * batch_size
    return _preset(dataset, resolution, network, batch_size, 2e-5, images, horizontal_flip=True, learned_variance=True)


def _ddpm(width, dropout=0.0):
    """The U-Net of Ho et al. (2020) for CIFAR-10, of `width` channels (theirs: 128), equal to the published network."""
    return _unet(32, (width, *[2 * width] * 3), layers=2, attention=(1,), groups=32, attention_head_dim=None,
                 downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
                 **({"dropout": dropout} if dropout else {}))  # fmt: skip


_LIGHT = _adm(256, (1, 1, 2, 2, 4, 4))  # 93,563,910 parameters
_CIFAR10 = "uoft-cs/cifar10"

# The small presets: 0.43 million parameters with the input skip, CIFAR-10's also with ADM's start, chosen by constant's
# arm alone (docs/recipe.md). The rate decays and the EMA is short: 5,000 steps are too few for the paper's values.
_SMALL = {"lr_decay": "cosine", "ema_decay": 0.995}
_FLIPS = {"horizontal_flip": True}
PRESETS = {
    "minifaces16": _preset("minifaces", 16, _small(16), 16, 2e-3, 80_000, **_SMALL),
    # The law of the images is known, so the optimum is exact at every t (`data.gaussian`).
    "gaussian16": _preset("gaussian", 16, _small(16), 16, 2e-3, 80_000, **_SMALL),
    "cifar10-16": _preset(_CIFAR10, 16, _small(16, zero_init=True), 16, 1e-3, 300_000, **_FLIPS, **_SMALL),
    "cifar10-32": _preset(_CIFAR10, 32, _small(32, zero_init=True), 16, 1e-3, 300_000, **_FLIPS, **_SMALL),
    # At half the width, without dropout: 8,952,067 parameters, 3.2 GFLOP a forward pass. The learning rate is that of
    # Ho et al. over the width; it decays and the EMA is short, as 8,000 steps are few.
    "cifar10-small": _preset(
        _CIFAR10, 32, _ddpm(64), 128, 4e-4, 1_024_000, lr_decay="cosine", ema_decay=0.999, **_FLIPS
    ),
    "cifar10-ddpm": _preset(_CIFAR10, 32, _ddpm(128, 0.1), 128, 2e-4, 102_400_000, **_FLIPS),  # 35,746,307 parameters
    # The paper's rows. Each row's network of the light ADM kind has 6 output channels, as its variance is learned.
    "ffhq256": _paper("merkol/ffhq-256", 256, _LIGHT, 8),
    "celebahq256": _paper("celebahq", 256, _LIGHT, 8),
    "afhqdog256": _paper("afhqdog", 256, _LIGHT, 8),
    "metfaces256": _paper("huggan/metfaces", 256, _LIGHT, 8),
    "cifar10": _paper(_CIFAR10, 32, _adm(32, (1, 2, 2, 2), classes=10), 32),
    "imagenet256": _paper("ILSVRC/imagenet-1k", 256, _adm(256, (1, 1, 2, 2, 4, 4), classes=1000), 8),
}


def get_preset(name):
    """The preset of that name. Raises InputError, naming the nearest, if there is none."""
    return PRESETS[check_choice("preset", name, PRESETS)]
