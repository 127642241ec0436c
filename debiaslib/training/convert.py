"""ADM checkpoints -> diffusers' `UNet2DModel`: the state dicts of guided-diffusion, P2-weighting and Debias.

Channels, multipliers, residual blocks, attention, classes, learned variance, scale-shift norm and residual resampling
are read off names and shapes. Three things are not in a state dict and are given: how many channels a head of the
attention has, in which order q, k and v lie, and the resolution: see `adm.py`.

What lies otherwise in ADM: q, k and v are one convolution whose rows are ordered head by head (head, q|k|v, channel),
or with `use_new_attention_order` as (q|k|v, head, channel); a residual block that halves or doubles the resolution
looks like any other and is told by its place.
"""

import re

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention

from ..errors import InputError, check_number

__all__ = ["convert_adm", "infer_network", "is_adm"]

_RESOLUTIONS = {  # multipliers: resolution of the published networks and of ADM's own defaults
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
    (1, 2, 2, 2): 32,
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def is_adm(names):
    """Whether the names are those of an ADM network's state dict."""
    return {"input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight"} <= set(names)


def infer_network(shapes, *, resolution=None, num_head_channels=None, num_heads=None, num_heads_upsample=None):
    """The arguments of the `UNet2DModel` that an ADM state dict describes.

    shapes: {name: shape}. resolution: None for that of the published network with these multipliers.
    num_head_channels: 64 if neither it nor num_heads is given. num_heads_upsample: of the output blocks, if it is not
    num_heads. Where heads are of several sizes, attention_head_dim is the list of them by level, which stock diffusers
    refuses: `convert_adm` sets them itself.
    Raises InputError for a state dict that is no such network, or that contradicts itself or what is given.
    """
    shapes = {name: tuple(shape) for name, shape in shapes.items()}
    if not is_adm(shapes):
        raise InputError("the state dict is not of an ADM network: it has no input_blocks, middle_block and out")
    levels, layers, resamplers = _levels(shapes)
    width, classes = _size(shapes, "time_embed.0.weight", 1), shapes.get("label_emb.weight")
    channels = [_size(shapes, f"input_blocks.{1 + i * (layers + 1)}.0.in_layers.2.weight", 0) for i in range(levels)]
    if _size(shapes, "input_blocks.0.0.weight", 0) != width or channels[0] != width:
        raise InputError(
            f"the network begins with {channels[0]} channels and embeds t in {width}; UNet2DModel has one number"
        )
    attended = [f"input_blocks.{1 + i * (layers + 1)}.1.qkv.weight" in shapes for i in range(levels)]
    residual = bool(resamplers) and "conv" not in resamplers
    down, up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if residual else ("DownBlock2D", "UpBlock2D")
    attention = [width for width, here in zip(channels, attended, strict=True) if here] + channels[-1:]  # the middle's
    return {
        "sample_size": _resolution(resolution, channels),
        "in_channels": _size(shapes, "input_blocks.0.0.weight", 1),
        "out_channels": _size(shapes, "out.2.weight", 0),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["AttnDownBlock2D" if here else down for here in attended],
        "up_block_types": ["AttnUpBlock2D" if here else up for here in reversed(attended)],
        "downsample_type": "resnet" if residual else "conv",
        "upsample_type": "resnet" if residual else "conv",
        "resnet_time_scale_shift": "scale_shift" if _scales_and_shifts(shapes) else "default",
        "attention_head_dim": _head_size(attention, num_head_channels, num_heads, num_heads_upsample),
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "dropout": 0.0,
        **({"num_class_embeds": classes[0]} if classes else {}),
    }


def convert_adm(
    state,
    *,
    resolution=None,
    num_head_channels=None,
    num_heads=None,
    num_heads_upsample=None,
    new_attention_order=False,
):
    """The `UNet2DModel` of an ADM state dict, float32, with equal output: {name: tensor} -> network on their device.

    Arguments as of `infer_network`; new_attention_order: ADM's flag use_new_attention_order. It takes timesteps as ADM
    does, and labels as `class_labels`. Raises InputError as `infer_network` does, and naming the first tensor that is
    missing, left over, or of another shape.
    """
    settings = infer_network(
        {name: tensor.shape for name, tensor in state.items()},
        resolution=resolution,
        num_head_channels=num_head_channels,
        num_heads=num_heads,
        num_heads_upsample=num_heads_upsample,
    )
    sizes = settings["attention_head_dim"]
    uniform = sizes if isinstance(sizes, int) else 1
    try:
        with torch.device("meta"):
            network = UNet2DModel(**{**settings, "attention_head_dim": uniform})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the state dict's network is refused by diffusers: {' '.join(str(error).split())}") from None
    network.register_to_config(attention_head_dim=sizes)
    _set_heads(network, num_head_channels or 64, num_heads, num_heads_upsample or num_heads)
    places = _places(settings)
    converted = {}
    for name, tensor in state.items():
        converted.update(_renamed(name, tensor.detach().float(), places, network, new_attention_order))
    _check_equal(converted, network.state_dict())
    network.load_state_dict(converted, assign=True)
    return network


def _levels(shapes):
    """(levels, residual blocks of a level, kinds of resampling) from the output blocks, whose ends of levels show."""
    count = {side: _count(shapes, side) for side in ("input_blocks", "output_blocks")}
    found = {}
    for name in shapes:
        match = re.fullmatch(r"output_blocks\.(\d+)\.(\d+)\.(conv|in_layers\.2)\.weight", name)
        if match and match[2] != "0":
            found[int(match[1])] = match[3].partition(".")[0]
    levels, kinds = len(found) + 1, set(found.values())
    size, rest = divmod(count["output_blocks"], levels)
    ends = [size * (i + 1) - 1 for i in range(levels - 1)]
    if rest or size < 2 or sorted(found) != ends or len(kinds) > 1 or count["input_blocks"] != levels * size:
        raise InputError(
            f"the state dict's blocks are no U-Net of UNet2DModel's kind: {count['input_blocks']} input blocks,"
            f" {count['output_blocks']} output blocks, resolution doubled after {sorted(found)}"
        )
    return levels, size - 1, kinds


def _count(shapes, side):
    """The number of blocks of a side. A gap is a resampling without weights (conv_resample=False)."""
    numbers = {int(name.split(".")[1]) for name in shapes if name.startswith(f"{side}.")}
    if numbers != set(range(len(numbers))):
        missing = min(set(range(max(numbers))) - numbers)
        raise InputError(f"the state dict has no {side}.{missing}; resampling without a convolution is not supported")
    return len(numbers)


def _size(shapes, name, axis):
    if len(shapes.get(name, ())) <= axis:
        raise InputError(f"the state dict has no {name!r}, or of another shape, where its other names put it")
    return shapes[name][axis]


def _scales_and_shifts(shapes):
    rows = _size(shapes, "middle_block.0.emb_layers.1.weight", 0)
    return rows == 2 * _size(shapes, "middle_block.0.out_layers.3.weight", 0)


def _resolution(given, channels):
    multipliers = tuple(width // channels[0] for width in channels)
    if given is None:
        if multipliers not in _RESOLUTIONS:
            raise InputError(f"the resolution cannot be told from the multipliers {multipliers}; give resolution")
        return _RESOLUTIONS[multipliers]
    check_number("resolution", given, minimum=4, integer=True)
    if given % 2 ** (len(channels) - 1):
        raise InputError(f"resolution is {given}; it must be a multiple of {2 ** (len(channels) - 1)}")
    return given


def _head_size(attention, num_head_channels, num_heads, num_heads_upsample):
    """Channels of a head: one number, or a list where fixed numbers of heads make them differ."""
    if num_head_channels is not None and num_heads is not None:
        raise InputError(f"num_head_channels is {num_head_channels} and num_heads is {num_heads}; give one of them")
    if num_heads_upsample is not None and num_heads is None:
        raise InputError(f"num_heads_upsample is {num_heads_upsample}, which goes with num_heads; give that too")
    if num_heads is None:
        return _divided("num_head_channels", num_head_channels or 64, attention) and (num_head_channels or 64)
    sizes = _divided("num_heads", num_heads, attention)
    if num_heads_upsample is not None:
        sizes += _divided("num_heads_upsample", num_heads_upsample, attention[:-1])  # the last is of the middle
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _divided(name, number, attention):
    """attention / number; raises InputError where that is no whole number."""
    check_number(name, number, minimum=1, integer=True)
    for width in attention:
        if width % number:
            raise InputError(
                f"{name} is {number}, which does not divide an attention of {width} channels; give num_heads or"
                " num_head_channels as the network was trained with"
            )
    return [width // number for width in attention]


def _set_heads(network, num_head_channels, num_heads, num_heads_upsample):
    """The heads of each attention: `UNet2DModel` has one size for all of them."""
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            width = module.to_q.out_features
            heads = num_heads_upsample if name.startswith("up_blocks") else num_heads
            module.heads = heads or width // num_head_channels
            module.scale = (width // module.heads) ** -0.5


def _places(settings):
    """{ADM's name of a layer: ours}, for the layers of the input and output blocks."""
    levels, layers = len(settings["block_out_channels"]), settings["layers_per_block"]
    residual = settings["downsample_type"] == "resnet"
    places = dict(_OUTER)
    for level in range(levels):
        first, block = 1 + level * (layers + 1), f"down_blocks.{level}"
        for i in range(layers):
            places[f"input_blocks.{first + i}.0"] = f"{block}.resnets.{i}"
            places[f"input_blocks.{first + i}.1"] = f"{block}.attentions.{i}"
        places[f"input_blocks.{first + layers}.0"] = f"{block}.downsamplers.0"
        first, block = level * (layers + 1), f"up_blocks.{level}"
        attended = settings["up_block_types"][level] == "AttnUpBlock2D"
        for i in range(layers + 1):
            places[f"output_blocks.{first + i}.0"] = f"{block}.resnets.{i}"
            if attended:
                places[f"output_blocks.{first + i}.1"] = f"{block}.attentions.{i}"
        places[f"output_blocks.{first + layers}.{2 if attended else 1}"] = f"{block}.upsamplers.0"
    if not residual:  # the convolution has a name of its own within the layer
        places |= {f"{key}.{part}": f"{value}.conv" for key, value in list(places.items()) if "samplers" in value
                   for part in ("op", "conv")}  # fmt: skip
    return places


def _renamed(name, tensor, places, network, new_order):
    """{our name: tensor} of one of ADM's: three for q, k and v."""
    layer, _, kind = name.rpartition(".")
    if layer in places:
        return {f"{places[layer]}.{kind}": tensor}
    inner = next((part for part in (*_RESNET, "norm", "qkv", "proj_out") if layer.endswith(f".{part}")), None)
    place = places.get(layer.removesuffix(f".{inner}"))
    if inner is None or place is None:
        raise InputError(f"the state dict holds {name!r}, which has no place in the network that its other names make")
    if inner in _RESNET:
        return {f"{place}.{_RESNET[inner]}.{kind}": tensor}
    if inner == "norm":
        return {f"{place}.group_norm.{kind}": tensor}
    tensor = tensor.squeeze(-1) if kind == "weight" else tensor  # a convolution over one axis with a kernel of 1
    if inner == "proj_out":
        return {f"{place}.to_out.0.{kind}": tensor}
    parts = _split_qkv(tensor, network.get_submodule(place).heads, new_order)
    return {f"{place}.to_{letter}.{kind}": part for letter, part in zip("qkv", parts, strict=True)}


def _split_qkv(tensor, heads, new_order):
    """(q, k, v), each with rows (head, channel), from rows (head, q|k|v, channel) or (q|k|v, head, channel)."""
    if len(tensor) % (3 * heads):
        raise InputError(f"an attention's qkv has {len(tensor)} rows, which are not three for each of {heads} heads")
    if new_order:
        return tensor.chunk(3)
    rows = tensor.unflatten(0, (heads, 3, -1))
    return [rows[:, i].flatten(0, 1).contiguous() for i in range(3)]


def _check_equal(converted, wanted):
    """Raise InputError, naming the first tensor, unless the names and shapes are those of the network."""
    for name, tensor in wanted.items():
        if name not in converted:
            raise InputError(f"the state dict lacks what becomes {name!r}")
        if converted[name].shape != tensor.shape:
            made, must = tuple(converted[name].shape), tuple(tensor.shape)
            raise InputError(f"the state dict's tensor for {name!r} has shape {made}; the network's is {must}")
    left = next((name for name in converted if name not in wanted), None)
    if left is not None:
        raise InputError(f"the state dict holds a tensor for {left!r}, which the network does not have")
