"""Checkpoints of ADM's code: guided-diffusion, P2-weighting and Debias. What a file does not say is given, or assumed.

A wrong head size, attention order or schedule makes no error, only a bad network. OpenAI's ImageNet 64x64 needs
num_head_channels=64, new_attention_order=true, schedule=cosine, and its 128x128 num_heads=4, new_attention_order=false.

`convert_adm` makes diffusers' `UNet2DModel` of the state dict. In ADM q, k and v are one convolution whose rows are
ordered as (head, q|k|v, channel), or with `use_new_attention_order` as (q|k|v, head, channel).
"""

import re
import sys

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, check_number, shown

# What a checkpoint does not say, and what is assumed: the paper's and P2's networks. The network is given t itself: a
# checkpoint trained with rescale_timesteps=True fits with 1000 timesteps alone.
ADM_SETTINGS = {
    "resolution": None,  # that of the published networks with the same multipliers
    "num_head_channels": 64,
    "num_heads": None,  # in place of num_head_channels
    "new_attention_order": False,
    "schedule": "linear",
    "timesteps": 1000,
    "prediction_type": "epsilon",
}
_SHAPE = ("resolution", "num_head_channels", "num_heads", "new_attention_order")
_AMBIGUOUS = ((1, 2, 3, 4), (1, 1, 2, 3, 4))  # multipliers that were published with several kinds of attention


def read_adm(path, given):
    """(network, schedule, settings) of a checkpoint's file; `given` replaces some of `ADM_SETTINGS`.

    Settings that are assumed are named in a line on stderr. Raises InputError, naming the file, for what is no such
    network, does not take images of 3 channels, or needs a setting that is not given.
    """
    settings = {**ADM_SETTINGS, **given}
    if settings["num_heads"] is not None:
        settings["num_head_channels"] = None
    check_choice("prediction_type", settings["prediction_type"], PREDICTION_TYPES)
    check_choice("schedule", settings["schedule"], ("linear", "cosine"))  # those that ADM has
    check_choice("new_attention_order", settings["new_attention_order"], (True, False))
    steps = check_number("timesteps", settings["timesteps"], minimum=2, integer=True)
    for name in filter(given.__contains__, ("resolution", "num_head_channels", "num_heads")):
        check_number(name, given[name], minimum=1, integer=True)
    try:
        network = convert_adm(_read_state(path), **{name: settings[name] for name in _SHAPE})
        check_channels(network.config)
        channels = network.config.block_out_channels
        multipliers = tuple(width // channels[0] for width in channels)
        attention_given = {"num_heads", "num_head_channels"} & set(given) and "new_attention_order" in given
        if multipliers in _AMBIGUOUS and not attention_given:
            needed = "give num_heads or num_head_channels, and new_attention_order"
            raise InputError(f"networks of multipliers {multipliers} differ in their attention; {needed}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if assumed := {name: value for name, value in settings.items() if name not in given and value is not None}:
        print(f"{path.name}: assumed {assumed}, which the file does not say; give others after ';'", file=sys.stderr)
    if settings["schedule"] == "cosine":
        return network, Schedule.cosine(steps), settings
    # ADM scales the betas of 1000 timesteps by 1000 / T.
    return network, Schedule.linear(T=steps, beta_start=0.1 / steps, beta_end=20 / steps), settings


def check_channels(config):
    """Raise InputError for a network that does not take images of 3 channels and answer 3 or, with variance, 6."""
    takes, answers = config["in_channels"], config["out_channels"]
    if takes != 3 or answers not in (3, 6):
        raise InputError(f"the network takes {takes} channels and answers {answers}; it must take 3 and answer 3 or 6")


def _read_state(path):
    """{name: tensor} of a file that torch.save wrote. A pickle that would run code is refused, and its code not run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise InputError(f"it is damaged, or holds more than tensors ({shown(str(error), 60)})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError("it holds no state dict, {name: tensor}; give the state dict alone (its EMA)")
    return state


# By multipliers, of the published networks and of ADM's own defaults.
_RESOLUTIONS = {(1, 1, 2, 2, 4, 4): 256, (1, 1, 2, 3, 4): 128, (1, 2, 3, 4): 64, (1, 2, 2, 2): 32}
_OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_INNER = {  # of a residual block, an attention, and a resampling by a convolution
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "op": "conv",
    "conv": "conv",
}


def infer_network(shapes, *, resolution=None, num_head_channels=64, num_heads=None):
    """The arguments of the `UNet2DModel` that an ADM state dict describes.

    shapes: {name: shape}. resolution: None for that of the published network with these multipliers.
    num_heads: in place of num_head_channels. Where heads are then of several sizes, attention_head_dim is the list of
    them by level, which stock diffusers refuses: `convert_adm` sets them itself.
    Raises InputError for a state dict that is no such network, and for heads that do not divide an attention.
    """
    if not {"input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight"} <= set(shapes):
        raise InputError("the state dict is not of an ADM network: it has no input_blocks, middle_block and out")
    doubled = re.compile(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight")
    resamplers = [match[1] for match in map(doubled.fullmatch, shapes) if match]
    levels = len(resamplers) + 1
    layers = len({name.split(".")[1] for name in shapes if name.startswith("output_blocks.")}) // levels - 1
    firsts = [f"input_blocks.{1 + i * (layers + 1)}" for i in range(levels)]
    try:
        channels = [shapes[f"{first}.0.in_layers.2.weight"][0] for first in firsts]
        scaled = shapes["middle_block.0.emb_layers.1.weight"][0] == 2 * shapes["middle_block.0.out_layers.3.weight"][0]
    except KeyError as error:
        raise InputError(f"the state dict has no {error}, where its other names put it") from None
    multipliers = tuple(width // channels[0] for width in channels)
    if resolution is None and multipliers not in _RESOLUTIONS:
        raise InputError(f"the resolution cannot be told from the multipliers {multipliers}; give resolution")
    attended = [f"{first}.1.qkv.weight" in shapes for first in firsts]
    attentions = [width for width, here in zip(channels, attended, strict=True) if here] + channels[-1:]  # the middle's
    sizes = [width // _heads(width, num_head_channels, num_heads) for width in attentions]
    kind, block = ("resnet", "Resnet{}sampleBlock2D") if "in_layers.2" in resamplers else ("conv", "{}Block2D")
    return {
        "sample_size": resolution or _RESOLUTIONS[multipliers],
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["AttnDownBlock2D" if here else block.format("Down") for here in attended],
        "up_block_types": ["AttnUpBlock2D" if here else block.format("Up") for here in reversed(attended)],
        "downsample_type": kind,
        "upsample_type": kind,
        "resnet_time_scale_shift": "scale_shift" if scaled else "default",
        "attention_head_dim": sizes[0] if len(set(sizes)) == 1 else sizes,
        "attn_norm_num_groups": 32,
        **({"num_class_embeds": shapes["label_emb.weight"][0]} if "label_emb.weight" in shapes else {}),
    }


def _heads(width, size, number):
    """How many heads an attention of `width` channels has, from num_head_channels or num_heads."""
    name, divisor = ("num_heads", number) if number else ("num_head_channels", size)
    if width % divisor:
        raise InputError(f"{name} is {divisor}, which does not divide an attention of {width} channels")
    return number or width // divisor


def convert_adm(state, *, new_attention_order=False, resolution=None, num_head_channels=64, num_heads=None):
    """The `UNet2DModel` of an ADM state dict, float32, with equal output: {name: tensor} -> network on their device.

    Arguments as of `infer_network`; new_attention_order: ADM's flag use_new_attention_order. It takes timesteps as ADM
    does, and labels as `class_labels`. Raises InputError as `infer_network` does, and naming what is missing, left
    over, or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    settings = infer_network(shapes, resolution=resolution, num_head_channels=num_head_channels, num_heads=num_heads)
    blocks, converted = _blocks(settings), {}
    try:
        with torch.device("meta"):
            network = UNet2DModel(**{**settings, "attention_head_dim": 1})
        network.register_to_config(attention_head_dim=settings["attention_head_dim"])
        for module in network.modules():  # UNet2DModel has one size of heads for all
            if isinstance(module, Attention):
                module.heads = _heads(module.to_q.out_features, num_head_channels, num_heads)
                module.scale = (module.to_q.out_features // module.heads) ** -0.5
        for name, tensor in state.items():
            converted |= _renamed(name, tensor.detach().float(), blocks, network, new_attention_order)
        network.load_state_dict(converted, assign=True)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        lines = str(error).replace("Error(s) in loading state_dict for UNet2DModel:", "")
        raise InputError(f"the state dict is no U-Net of UNet2DModel's kind: {lines}") from None
    return network


def _blocks(settings):
    """{ADM's name of a block: ours}."""
    levels, layers = len(settings["block_out_channels"]), settings["layers_per_block"]
    blocks = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
              "middle_block.2": "mid_block.resnets.1"}  # fmt: skip
    for level in range(levels):
        first, block = 1 + level * (layers + 1), f"down_blocks.{level}"
        for i in range(layers):
            blocks[f"input_blocks.{first + i}.0"] = f"{block}.resnets.{i}"
            blocks[f"input_blocks.{first + i}.1"] = f"{block}.attentions.{i}"
        blocks[f"input_blocks.{first + layers}.0"] = f"{block}.downsamplers.0"
        first, block = level * (layers + 1), f"up_blocks.{level}"
        attended = settings["up_block_types"][level] == "AttnUpBlock2D"
        for i in range(layers + 1):
            blocks[f"output_blocks.{first + i}.0"] = f"{block}.resnets.{i}"
            if attended:
                blocks[f"output_blocks.{first + i}.1"] = f"{block}.attentions.{i}"
        blocks[f"output_blocks.{first + layers}.{2 if attended else 1}"] = f"{block}.upsamplers.0"
    return blocks


def _renamed(name, tensor, blocks, network, new_order):
    """{our name: tensor} of one of ADM's: three for q, k and v."""
    layer, _, kind = name.rpartition(".")
    if layer in _OUTER:
        return {f"{_OUTER[layer]}.{kind}": tensor}
    words = layer.split(".")
    depth = 2 if words[0] == "middle_block" else 3
    place, inner = blocks.get(".".join(words[:depth])), ".".join(words[depth:])
    if place is None or inner not in {*_INNER, "qkv"}:
        raise InputError(f"the state dict holds {name!r}, which has no place in the network that its other names make")
    if tensor.ndim == 3:  # a convolution over one axis with a kernel of 1
        tensor = tensor.squeeze(-1)
    if inner != "qkv":
        return {f"{place}.{_INNER[inner]}.{kind}": tensor}
    heads = network.get_submodule(place).heads
    rows = tensor.unflatten(0, (3, heads, -1) if new_order else (heads, 3, -1))
    parts = rows.unbind(0 if new_order else 1)
    return {f"{place}.to_{q}.{kind}": part.flatten(0, 1).contiguous() for q, part in zip("qkv", parts, strict=True)}
