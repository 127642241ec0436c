"""Checkpoints of ADM's code: guided-diffusion, P2-weighting and Debias. What a file does not say is given, or assumed.

A wrong head size, attention order or schedule makes no error, only a bad network. OpenAI's ImageNet 64x64 needs
num_head_channels=64, new_attention_order=true, schedule=cosine, and its 128x128 num_heads=4, new_attention_order=false.
"""

import sys

import torch

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, check_number, shown
from .convert import convert_adm

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
