"""The configuration of one training (`TrainConfig`), checked at once. Imports no torch."""

import dataclasses
import math
from typing import Annotated, Literal

from pydantic import AfterValidator

from ..devices import check_device_name
from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.strategies import parse_strategy
from ..errors import InputError, check_number
from .arms import parse_arm
from .settings import Flag, Mapping, Number, Text, Whole, settings

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
_Variant = Annotated[str, AfterValidator(lambda text: text and parse_arm(f"constant; {text}").variant)]


@settings
class TrainConfig:
    """Everything that decides the result of one training. Raises InputError for a value out of range."""

    dataset: Text
    resolution: Whole(4, 1024)
    network: Mapping
    images: Whole(1)  # seen in training, counted with repetition
    batch_size: Whole(1)
    lr: Number(gt=0)
    preset: Text = ""
    weighting: Annotated[str, AfterValidator(lambda text: str(parse_strategy(text)))] = "debiased"  # of epsilon's error
    variant: _Variant = ""  # what an arm changes beside the weighting, "lr=0.0005": part of the folder's name
    seed: Whole(0) = 0
    prediction_type: Literal[PREDICTION_TYPES] = "epsilon"
    schedule: Literal[SCHEDULES] = "linear"
    timesteps: Whole(1, 1_000_000) = 1000
    zero_terminal_snr: Flag = False  # rescale the schedule so that SNR(T-1) = 0
    # "weight": t is drawn from the weight, which is then no factor of the loss
    timestep_sampling: Literal["uniform", "stratified", "weight"] = "uniform"
    learned_variance: Flag = False  # the hybrid loss: the variational term, unweighted, trains the sampler's variance
    normalize_weight: Flag = False
    max_weight: Number(gt=0) | None = None
    lr_decay: Literal["none", "cosine"] = "none"
    weight_decay: Number(ge=0) = 0.0
    max_grad_norm: Number(gt=0) | None = None  # None: no clipping; at 1.0 it changes the comparison of weightings
    # Upper limit: the n-th update uses min(ema_decay, n/(9+n)), and the first one copies.
    ema_decay: Number(ge=0, lt=1) = 0.9999
    horizontal_flip: Flag = False
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network's inside: its output is float32
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"  # of 4-D weights, and so of all activations
    # of torch.compile; "cuda_graphs" is its mode reduce-overhead
    compilation: Literal["none", "default", "cuda_graphs"] = "none"
    microbatch: Whole(1) | None = None  # images of one forward and backward pass; None: the whole batch at once
    snapshots: tuple[Whole(1), ...] = ()  # EMA weights are kept when so many images were seen, and at the end
    device: Annotated[str, AfterValidator(check_device_name)] = "cpu"
    threads: Whole(1, 1024) = 1

    def __post_init__(self):
        check_number("images", self.images, minimum=self.batch_size, integer=True)
        check_number("microbatch", self.microbatch or 1, minimum=1, maximum=self.batch_size, integer=True)
        for count in self.snapshots:
            check_number("snapshots", count, minimum=1, maximum=self.images, integer=True)
        channels = self.network.get("block_out_channels")
        factor = 2 ** (len(channels) - 1) if isinstance(channels, list) else 1
        if self.resolution % factor:
            why = "as the network halves it at each level but the last"
            raise InputError(f"resolution is {self.resolution}; it must be a multiple of {factor}, {why}")
        if self.classes is not None:
            check_number("num_class_embeds of the network", self.classes, minimum=1, integer=True)
        if self.learned_variance and self.timestep_sampling == "weight":
            raise InputError("learned_variance needs timesteps drawn evenly; timestep_sampling is 'weight'")

    @property
    def steps(self):
        """Optimiser steps: the last one completes `images`, rounded up to whole batches."""
        return -(-self.images // self.batch_size)

    @property
    def snapshot_images(self):
        """After how many images EMA weights are kept: `snapshots` and the end, in whole batches, sorted."""
        return sorted({-(-count // self.batch_size) * self.batch_size for count in (*self.snapshots, self.images)})

    def learning_rate(self, step):
        """The learning rate of a step, counted from 0."""
        if self.lr_decay == "none":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    @property
    def classes(self):
        """The number of classes of a network that is told the class of its image, or None."""
        return self.network.get("num_class_embeds")

    @property
    def arm(self):
        """The arm of an experiment that this is a training of: `debiased; lr=0.0005`."""
        return f"{self.weighting}; {self.variant}" if self.variant else self.weighting

    def to_dict(self):
        """The configuration as JSON-native values."""
        return {**dataclasses.asdict(self), "snapshots": list(self.snapshots)}


def run_name(arm, seed):
    """The folder of an (arm, seed): `p2-k1-gamma1-s0`, `debiased--lr-0.0005-s0`."""
    return f"{parse_arm(arm).slug}-s{seed}"
