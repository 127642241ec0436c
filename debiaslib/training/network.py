"""The network of a configuration: diffusers' U-Net or transformer, with an input skip if asked, and made fast."""

import copy
import functools

import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DOutput

from ..diffusion.prediction import network_output
from ..diffusion.randomness import stream_seed
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice

_COMPILE_MODES = {"default": "default", "cuda_graphs": "reduce-overhead"}  # as torch.compile calls them


class InputSkipUNet(UNet2DModel):
    """`UNet2DModel` f with an input skip: scale[t] x_t + f(x_t, t). Its weights have the names of f's.

    At large t, epsilon is nearly x_t, which a small network without the skip copies with an error that 1/sqrt(SNR)
    amplifies. diffusers' own class would load the weights and leave the skip out: `load_model` is there for them.
    """

    skip = None  # scale: float32 (T,), no weight and no buffer; `build_network` sets it

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The output (B, C, H, W); with learned variance (B, 2C, H, W), whose second half gets no skip."""
        output = super().forward(sample, timestep, class_labels, return_dict=False)[0]
        output = _with_skip(output, sample, timestep, self.skip)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def _with_skip(output, x_t, t, scale):
    """`output` plus scale[t] x_t in its first C channels, C being x_t's. t: int or (B,)."""
    scale = scale.to(x_t.device)[torch.as_tensor(t, device=x_t.device).round().long()].view(-1, 1, 1, 1)
    prediction, *values = output.split(x_t.shape[1], dim=1)
    return torch.cat([(prediction + scale * x_t).to(output), *values], dim=1)


class Transformer(DiTTransformer2DModel):
    """diffusers' `DiTTransformer2DModel`, called as a U-Net is, with one class; with or without the input skip."""

    skip = None

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The output (B, C, H, W) or (B, 2C, H, W), as `InputSkipUNet`'s."""
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        output = super().forward(sample, timestep, torch.zeros_like(timestep).long(), return_dict=False)[0]
        if self.skip is not None:
            output = _with_skip(output, sample, timestep, self.skip)
        return UNet2DOutput(sample=output) if return_dict else (output,)


_CLASSES = {"UNet2DModel": (UNet2DModel, InputSkipUNet), "DiTTransformer2DModel": (Transformer, Transformer)}


def build_network(config, *, initialise=True):
    """The network of a `TrainConfig`, float32 on the CPU, initialised from (seed, "init").

    `config.network` holds the arguments of diffusers' class `_class_name` (UNet2DModel or DiTTransformer2DModel), and
    input_skip: whether scale[t] x_t is added to the output (`skip_scale`)
    zero_init: whether each residual block and attention, and the network, begins with an output of 0

    Weightings of one seed start from equal weights. The output layer runs in float32 also under autocast: rounding
    epsilon alone to bfloat16 costs an x0-MSE of 0.07 at t = 999, which is of the size of the effect that is measured.
    Raises InputError for what diffusers refuses.
    """
    settings = dict(config.network)
    kind = check_choice("_class_name of the network", settings.pop("_class_name", "UNet2DModel"), _CLASSES)
    skips = check_choice("input_skip of the network", settings.pop("input_skip", False), (True, False))
    zero = check_choice("zero_init of the network", settings.pop("zero_init", False), (True, False))
    if config.learned_variance:
        settings["out_channels"] = 2 * settings.get("out_channels", 3)
    settings = {"num_embeds_ada_norm": 1, **settings} if kind == "DiTTransformer2DModel" else settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init") if initialise else 0)
        try:
            network = _CLASSES[kind][skips](**settings)
        except Exception as error:  # also an IndexError or a ZeroDivisionError, for an empty list or a 0
            raise InputError(f"the network's settings are refused by diffusers: {error}") from None
    last = network.conv_out if kind == "UNet2DModel" else network.proj_out_2
    if zero:  # as ADM starts
        layers = [module.conv2 for module in network.modules() if isinstance(module, ResnetBlock2D)]
        layers += [module.to_out[0] for module in network.modules() if isinstance(module, Attention)]
        for layer in [*layers, last]:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    network.skip = skip_scale(config) if skips else None
    for block in getattr(network, "transformer_blocks", ()):
        block.norm1.emb.class_embedder.dropout_prob = 0  # diffusers' 0.1 would draw a second class in training
    last.forward = functools.partial(_float32_forward, last)
    return network


def check_network(network, size, channels, classes):
    """Raise InputError for a network that does not fit its images: one call of a copy, on shapes alone.

    size: pixels of a side; channels: of the answer, 3 or with learned variance 6; classes: how many, or None.
    """
    on_meta = copy.deepcopy(network).to("meta").eval()
    with torch.device("meta"), torch.no_grad():
        x_t, t = torch.empty(1, 3, size, size), torch.zeros(1, dtype=torch.int64)
        try:
            answer = tuple(network_output(on_meta, x_t, t, None if classes is None else t).shape[1:])
        except Exception as error:  # whatever a layer says of a shape that it cannot take
            raise InputError(f"the network cannot take images of 3x{size}x{size}: {error}") from None
    if answer != (channels, size, size):
        raise InputError(f"the network answers {answer} to an image; it must be {(channels, size, size)}")
    if (said := network.config.sample_size) not in (None, size):
        raise InputError(f"sample_size of the network is {said}; it must be the resolution, {size}")


def skip_scale(config):
    """scale[t] of a network with `input_skip`: float32 (T,).

    It is the best linear guess of the target from x_t = a x0 + s epsilon for images of mean 0 and variance 1: s for
    epsilon, a for x0, and 0 for v.
    """
    with torch.device("cpu"):  # the network itself may be built on the meta device
        a, s = build_schedule(config).scales(torch.arange(config.timesteps), torch.zeros(config.timesteps))
    return {"epsilon": s, "sample": a, "v_prediction": torch.zeros_like(a)}[config.prediction_type].float()


def _float32_forward(layer, x):
    with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # it knows no meta device
        return type(layer).forward(layer, x.to(layer.weight.dtype))


def build_schedule(config):
    """The `Schedule` of a `TrainConfig`."""
    schedule = getattr(Schedule, config.schedule)(T=config.timesteps)
    return schedule.rescale_zero_terminal_snr() if config.zero_terminal_snr else schedule


def prepare_network(network, config):
    """The same network, laid out and compiled in place as `config` says; its weights keep their names and values."""
    if config.memory_format == "channels_last":
        network.to(memory_format=torch.channels_last)
    if config.compilation != "none":
        network.compile(mode=_COMPILE_MODES[config.compilation])
    return network
