"""The configuration of one training (`TrainConfig`), checked at once. Imports no torch."""

import dataclasses
from dataclasses import dataclass

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.strategies import parse_strategy
from ..errors import InputError, check_choice, check_number, shown
from .arms import parse_arm
from .coercion import check_json, coerce

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
PRECISIONS = ("float32", "bfloat16", "auto")
MEMORY_FORMATS = ("contiguous", "channels_last")
COMPILATIONS = ("none", "default", "cuda_graphs")
LR_DECAYS = ("none", "cosine")
TIMESTEP_SAMPLINGS = ("uniform", "stratified", "weight")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of one training. Raises InputError for a value out of range."""

    dataset: str
    resolution: int
    network: dict
    images: int  # seen in training, counted with repetition
    batch_size: int
    lr: float
    preset: str = ""
    weighting: str = "debiased"
    variant: str = ""  # what an arm changes beside the weighting, "lr=0.0005": part of the folder's name
    seed: int = 0
    prediction_type: str = "epsilon"
    schedule: str = "linear"
    timesteps: int = 1000
    zero_terminal_snr: bool = False  # rescale the schedule so that SNR(T-1) = 0
    timestep_sampling: str = "uniform"  # "weight": t is drawn from the weight, which is then no factor of the loss
    learned_variance: bool = False  # the hybrid loss: the variational term, unweighted, trains the sampler's variance
    normalize_weight: bool = False
    max_weight: float | None = None
    lr_decay: str = "none"
    weight_decay: float = 0.0
    max_grad_norm: float | None = None  # clipping is off: at 1.0 it silently changes the comparison of weightings
    ema_decay: float = 0.9999  # upper limit; the n-th update uses min(ema_decay, n/(9+n)), the first copies
    horizontal_flip: bool = False
    precision: str = "float32"  # "auto": bfloat16 where the device has units for it; the run says which it was
    memory_format: str = "contiguous"
    compilation: str = "none"  # torch.compile: "default", or "cuda_graphs" for its mode that records them
    snapshots: tuple[int, ...] = ()  # EMA weights are kept when so many images were seen, and at the end
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self):
        coerce(self)
        object.__setattr__(self, "weighting", str(parse_strategy(self.weighting)))
        self._check_variant()
        check_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("lr_decay", self.lr_decay, LR_DECAYS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("memory_format", self.memory_format, MEMORY_FORMATS)
        check_choice("compilation", self.compilation, COMPILATIONS)
        check_choice("timestep_sampling", self.timestep_sampling, TIMESTEP_SAMPLINGS)
        check_number("resolution", self.resolution, minimum=4, maximum=1024, integer=True)
        self._check_network()
        check_number("batch_size", self.batch_size, minimum=1, integer=True)
        if self.classes is not None:
            check_number("num_class_embeds of the network", self.classes, minimum=1, integer=True)
        check_number("images", self.images, minimum=self.batch_size, integer=True)
        check_number("lr", self.lr, above=0)
        check_number("seed", self.seed, minimum=0, integer=True)
        check_number("timesteps", self.timesteps, minimum=1, maximum=1_000_000, integer=True)
        check_number("weight_decay", self.weight_decay, minimum=0)
        check_number("ema_decay", self.ema_decay, minimum=0, below=1)
        check_number("threads", self.threads, minimum=1, maximum=1024, integer=True)
        for name in ("max_weight", "max_grad_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        for count in self.snapshots:
            check_number("snapshots", count, minimum=1, maximum=self.images, integer=True)
        if self.learned_variance and self.timestep_sampling == "weight":
            raise InputError("learned_variance needs timesteps drawn evenly; timestep_sampling is 'weight'")
        self._check_device()

    def _check_network(self):
        check_json("network", self.network)
        channels = self.network.get("block_out_channels")
        if isinstance(channels, (list, tuple)) and channels and self.resolution % 2 ** (len(channels) - 1):
            raise InputError(
                f"resolution is {self.resolution}; it must be a multiple of {2 ** (len(channels) - 1)}, as the network "
                f"halves it {len(channels) - 1} times"
            )

    def _check_variant(self):
        arm = parse_arm(f"{self.weighting}; {self.variant}" if self.variant else self.weighting)
        object.__setattr__(self, "variant", arm.variant)
        for name, value in arm.settings:
            if value == "auto":
                raise InputError(f"variant is {shown(self.variant)}; an arm must say which {name} it is")
            if getattr(self, name) != value:
                raise InputError(f"variant is {shown(self.variant)}, but {name} is {getattr(self, name)!r}")

    def _check_device(self):
        kind, _, index = self.device.partition(":")
        check_choice("device", kind, ("cpu", "cuda", "mps"))
        if ":" in self.device and not index.isdecimal():
            raise InputError(f"device is {self.device!r}; write it as 'cpu', 'cuda', 'cuda:0' or 'mps'")
        if self.compilation == "cuda_graphs" and kind != "cuda":
            raise InputError(
                f"compilation is 'cuda_graphs', which device {self.device!r} lacks; use 'none' or 'default'"
            )

    @property
    def steps(self):
        """Optimiser steps: the last one completes `images`, rounded up to whole batches."""
        return -(-self.images // self.batch_size)

    @property
    def classes(self):
        """The number of classes of a network that is told the class of its image, or None."""
        return self.network.get("num_class_embeds")

    @property
    def arm(self):
        """The arm of an experiment that this is a training of: `debiased; lr=0.0005`."""
        return f"{self.weighting}; {self.variant}" if self.variant else self.weighting

    @property
    def name(self):
        """The run's folder: `debiased-s0`."""
        return run_name(self.arm, self.seed)

    def to_dict(self):
        """The configuration as JSON-native values."""
        return {**dataclasses.asdict(self), "snapshots": list(self.snapshots)}


def run_name(arm, seed):
    """The folder of an (arm, seed): `p2-k1-gamma1-s0`, `debiased--lr-0.0005-s0`."""
    return f"{parse_arm(arm).slug}-s{seed}"


__all__ = ["TrainConfig", "run_name"]
