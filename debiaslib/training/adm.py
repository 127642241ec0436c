"""Checkpoints of ADM's code: guided-diffusion, P2-weighting and Debias. What they do not say is known, given or named.

A wrong head size, attention order or schedule makes no error, only a bad network.
"""

import sys

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, check_number
from .convert import convert_adm, infer_network
from .safe_weights import read_weights

# What a checkpoint does not say, and what is taken where it is neither recognised nor given. The network is given t
# itself: a checkpoint trained with rescale_timesteps=True fits with 1000 timesteps alone.
ADM_SETTINGS = {
    "resolution": None,  # that of the published networks with the same multipliers
    "num_head_channels": None,  # 64, unless num_heads is given
    "num_heads": None,
    "new_attention_order": False,
    "schedule": "linear",
    "timesteps": 1000,
    "prediction_type": "epsilon",
}
_SHAPE = ("resolution", "num_head_channels", "num_heads", "new_attention_order")
_HEADS = ("num_heads", "num_head_channels")
_USUAL = {"num_head_channels": 64, "new_attention_order": False, "schedule": "linear"}
# (channels of the first level, multipliers, residual blocks of a level): of published networks.
_PUBLISHED = {
    (192, (1, 2, 3, 4), 3): {"num_head_channels": 64, "new_attention_order": True, "schedule": "cosine"},  # OpenAI, 64
    (256, (1, 1, 2, 3, 4), 2): {"num_heads": 4, "new_attention_order": False, "schedule": "linear"},  # OpenAI, 128
    (256, (1, 1, 2, 2, 4, 4), 2): _USUAL,  # OpenAI, 256
    (128, (1, 1, 2, 2, 4, 4), 1): _USUAL,  # the paper's and P2's, 256
    (128, (1, 2, 2, 2), 1): _USUAL,  # the paper's, CIFAR-10
}
_AMBIGUOUS = ((1, 2, 3, 4), (1, 1, 2, 3, 4))  # multipliers that were published with several kinds of attention


def read_adm(path, given):
    """(network, schedule, settings) of a checkpoint's file; `given` replaces some of `ADM_SETTINGS`.

    Settings that are neither given nor in the file are named in a line on stderr. Raises InputError, naming the file,
    for what is no such network, does not take images of 3 channels, or needs a setting that is not given.
    """
    settings = {**ADM_SETTINGS, **given}
    check_choice("prediction_type", settings["prediction_type"], PREDICTION_TYPES)
    check_choice("schedule", settings["schedule"], ("linear", "cosine"))  # those that ADM has
    check_choice("new_attention_order", settings["new_attention_order"], (True, False))
    steps = check_number("timesteps", settings["timesteps"], minimum=2, integer=True)
    state = read_weights(path)
    try:
        published = published_settings({name: tensor.shape for name, tensor in state.items()}, given)
        settings = {**settings, **published, **given}
        network = convert_adm(state, **{name: settings[name] for name in _SHAPE})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    _say_assumed(path, settings, given, published)
    ends = scaled_betas(steps) if settings["schedule"] == "linear" else {}
    return network, getattr(Schedule, settings["schedule"])(T=steps, **ends), settings


def scaled_betas(timesteps):
    """ADM's ends of the linear schedule: those of 1000 timesteps times 1000 / T."""
    return {"beta_start": 0.1 / timesteps, "beta_end": 20 / timesteps}


def published_settings(shapes, given):
    """The settings of the published network that has these shapes, without those that `given` replaces; else {}.

    Raises InputError for what is no network of ADM with 3 channels, and for multipliers that were published with
    several kinds of attention, if the network is unknown and its heads and their order are not given.
    """
    network = infer_network(shapes, resolution=1024, num_heads=1)
    check_channels(network)
    channels, layers = network["block_out_channels"], network["layers_per_block"]
    multipliers, heads_given = tuple(width // channels[0] for width in channels), any(name in given for name in _HEADS)
    known = _PUBLISHED.get((channels[0], multipliers, layers), {})
    if multipliers in _AMBIGUOUS and not known and not (heads_given and "new_attention_order" in given):
        raise InputError(
            f"multipliers {multipliers} with {channels[0]} channels are of no known network; give num_heads or"
            " num_head_channels, and new_attention_order, as it was trained with"
        )
    return {name: value for name, value in known.items() if not (heads_given and name in _HEADS)}


def check_channels(config):
    """Raise InputError for a network that does not take images of 3 channels and answer 3 or, with variance, 6."""
    takes, answers = config["in_channels"], config["out_channels"]
    if takes != 3 or answers not in (3, 6):
        hint = " (6: a super-resolution network, which is also given the small image)" if takes == 6 else ""
        raise InputError(f"the network takes {takes} channels{hint} and answers {answers}; it must take 3")


def _say_assumed(path, settings, given, published):
    heads = "num_head_channels" if settings["num_heads"] is None else "num_heads"
    values = {**settings, "num_head_channels": settings["num_head_channels"] or 64}
    names = (heads, "new_attention_order", "schedule", "timesteps", "prediction_type")
    assumed = ", ".join(f"{name}={str(values[name]).lower()}" for name in names if name not in given)
    if assumed:
        why = "as of the published network with these shapes" if published else "which the file does not say"
        print(f"{path.name}: assumed {assumed}, {why}; give others after ';'", file=sys.stderr)
