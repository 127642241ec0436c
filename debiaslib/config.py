"""Configuration: one training (`TrainConfig`) and one experiment (`Experiment`), checked at once. Imports no torch.

An experiment is a YAML file in config/: a preset, weightings, seeds, and what to measure. Every mistake in it is one
line that names the field, its value and what is allowed, before any work starts.
"""

import dataclasses
import os
from dataclasses import dataclass, field

from .arms import parse_arm
from .coercion import check_json, coerce
from .errors import InputError, check_choice, check_number, shown
from .experiment_file import read_settings
from .paths import checkout, user_path
from .prediction import PREDICTION_TYPES
from .presets import PRESETS, Preset, get_preset
from .stages import staged_runs
from .strategies import parse_strategy

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
PRECISIONS = ("float32", "bfloat16", "auto")
MEMORY_FORMATS = ("contiguous", "channels_last")
COMPILATIONS = ("none", "default", "cuda_graphs")
LR_DECAYS = ("none", "cosine")
TIMESTEP_SAMPLINGS = ("uniform", "stratified", "weight")
SAMPLERS = ("ddim", "ddpm", "ddpm-large", "dpm-solver++2", "dpm-solver++3", "unipc", "heun")
_DIMENSIONS = {"minifaces": 64, "cifar10": 256, "pooled": 48, "inception": 2048, "dinov2": 1024}
FEATURES = tuple(_DIMENSIONS)
NOTEBOOKS = (
    "01_bias_existence",
    "02_one_step_estimation",
    "03_mse_step_curves",
    "04_weighting_comparison",
    "05_training",
    "06_fid_evaluation",
)


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


@dataclass(frozen=True)
class Experiment:
    """Which trainings to compare and what to measure on them. Raises InputError for a value out of range."""

    name: str
    preset: str
    weightings: tuple[str, ...] = ("constant", "debiased")
    variants: tuple[str, ...] = ()  # further arms, each a weighting and what else it changes: "debiased; lr=5e-4"
    seeds: tuple[int, ...] = (0,)
    stages: tuple[dict, ...] = ()  # which trainings, the most valuable first (`stages`); none: every arm, every seed
    then: str = ""  # an experiment of config/ that follows when this one is complete
    notebooks: tuple[str, ...] = NOTEBOOKS
    dataset: str = ""  # empty: the preset's
    training: dict = field(default_factory=dict)  # overrides of the preset and of TrainConfig's defaults
    # one-step estimates (notebooks 01 and 02)
    shown_timesteps: tuple[int, ...] = (50, 200, 400, 600, 700, 800, 900, 999)
    shown_images: int = 8
    # error by timestep (notebooks 02 and 03)
    curve_timesteps: tuple[int, ...] = (0, 10, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 850, 900, 950, 999)
    curve_images: int = 256
    optimum_images: int = 50_000  # the exact optimum is over the first so many training images
    # samples (notebooks 01, 04 and 05)
    sampler: str = "ddim"
    further_samplers: tuple[str, ...] = ()  # for the distances by sampling steps alone
    clip_x0: bool = True
    sampling_batch_size: int = 64
    grid_steps: tuple[int, ...] = (2, 3, 4, 5, 10, 50, 100)
    grid_images: int = 8
    # distances (notebook 06)
    features: tuple[str, ...] = ("pooled",)
    distance_steps: tuple[int, ...] = (5, 10, 20, 50, 100)
    distance_images: int = 500
    snapshot_steps: tuple[int, ...] = (20,)  # sampling steps for the distance against images seen in training
    reference_images: int = 2_048
    allow_singular: bool = False  # a Frechet distance of fewer images than features, which is mostly bias
    raw_weights: bool = False  # judge the weightings' weights of the last step too, beside their moving average
    further_features: tuple[str, ...] = ()  # where their weights are at hand on this machine; never fetched
    # distances at many steps, of the first seed's networks alone: fewer images, a table of their own
    long_steps: tuple[int, ...] = ()
    long_samplers: tuple[str, ...] = ("ddim", "ddpm")
    long_images: int = 500
    published_weights: tuple[str, ...] = ()  # arms whose EMA weights of the first seed are published

    def __post_init__(self):
        coerce(self)
        if self.name in ("", ".", "..") or "/" in self.name or "\0" in self.name or len(self.name) > 200:
            raise InputError(f"name is {shown(self.name)}; it must be the name of a folder, of 200 characters at most")
        get_preset(self.preset)
        self._check_choices()
        self._check_numbers()
        self._check_long()
        for arm in self.arms:
            self.train_config(arm, self.seeds[0])

    def _check_choices(self):
        for name in (
            "weightings",
            "seeds",
            "features",
            "distance_steps",
            "grid_steps",
            "snapshot_steps",
            "shown_timesteps",
            "curve_timesteps",
            "notebooks",
        ):
            values = getattr(self, name)
            if not values:
                raise InputError(f"{name} is empty; it must list at least one")
            _check_distinct(name, values)
        object.__setattr__(self, "weightings", tuple(str(parse_strategy(w)) for w in self.weightings))
        _check_distinct("weightings", self.weightings)
        object.__setattr__(self, "variants", tuple(str(parse_arm(arm)) for arm in self.variants))
        _check_distinct("variants", self.arms)
        for name in self.samplers:
            check_choice("sampler", name, SAMPLERS)
        _check_distinct("further_samplers", self.samplers)
        for name in (*self.features, *self.further_features):
            check_choice("features", name, FEATURES)
        _check_distinct("further_features", self.features + self.further_features)
        for arm in self.published_weights:
            check_choice("arm in published_weights", arm, self.arms)
        if self.stages:
            staged_runs(self.stages, self.arms, self.seeds)
        fields = {f.name for f in dataclasses.fields(TrainConfig)}
        fields -= {"weighting", "variant", "seed", "preset", "dataset"}
        for key in self.training:
            check_choice("training setting", key, sorted(fields))

    def _check_numbers(self):
        T = self.train_config(self.weightings[0], self.seeds[0]).timesteps
        for name in ("shown_timesteps", "curve_timesteps"):
            for t in getattr(self, name):
                check_number(name, t, minimum=0, below=T, integer=True)
        for name in ("grid_steps", "distance_steps", "snapshot_steps"):
            for steps in getattr(self, name):
                check_number(name, steps, minimum=1, maximum=T, integer=True)
        for seed in self.seeds:
            check_number("seeds", seed, minimum=0, integer=True)
        # for a covariance that is not singular
        enough = 2 if self.allow_singular else 1 + max(_DIMENSIONS[name] for name in self.features)
        smallest = {"distance_images": enough, "reference_images": enough, "curve_images": 2}
        for name in ("shown_images", "curve_images", "optimum_images", "sampling_batch_size", "grid_images",
                     "distance_images", "reference_images"):  # fmt: skip
            check_number(name, getattr(self, name), minimum=smallest.get(name, 1), integer=True)

    def _check_long(self):
        for steps in self.long_steps:
            T = self.train_config(self.weightings[0], self.seeds[0]).timesteps
            check_number("long_steps", steps, minimum=1, maximum=T, integer=True)
        for name in self.long_samplers:
            check_choice("long_samplers", name, SAMPLERS)
        for name in ("long_steps", "long_samplers"):
            _check_distinct(name, getattr(self, name))
        if self.long_steps and not self.long_samplers:
            raise InputError("long_samplers is empty; it must list at least one")
        enough = 1 + max(_DIMENSIONS[name] for name in self.features) if self.long_steps else 1
        check_number("long_images", self.long_images, minimum=enough, integer=True)

    def train_config(self, arm, seed):
        """The `TrainConfig` of one (arm, seed) of this experiment; a weighting alone is an arm."""
        arm, preset = parse_arm(arm), dataclasses.asdict(get_preset(self.preset))
        named = {"preset": self.preset, "weighting": arm.weighting, "variant": arm.variant, "seed": seed}
        settings = {**preset, **self.training, **dict(arm.settings), **named}
        if self.dataset:
            settings["dataset"] = self.dataset
        if isinstance(settings["network"], dict):  # samples and exported pipelines take their size from the network
            settings["network"] = {**settings["network"], "sample_size": settings["resolution"]}
        return TrainConfig(**settings)

    @property
    def measured(self):
        """What is measured and how, without what decides the trainings: JSON-native."""
        training = ("name", "preset", "dataset", "training", "weightings", "variants", "seeds", "notebooks")
        training += ("stages", "then", "published_weights")
        return {key: value for key, value in self.to_dict().items() if key not in training}

    @property
    def arms(self):
        """Every arm: the weightings, then the variants."""
        return (*self.weightings, *self.variants)

    @property
    def samplers(self):
        """The samplers of the distances by sampling steps; all else is drawn by the first."""
        return (self.sampler, *self.further_samplers)

    @property
    def runs(self):
        """Every (arm, seed): as the stages list them, or else seed by seed."""
        if self.stages:
            return staged_runs(self.stages, self.arms, self.seeds)
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def seeds_of(self, arm):
        """The seeds that an arm is trained with."""
        return [seed for seed in self.seeds if (arm, seed) in self.runs]

    def weightings_of(self, seed):
        """The weightings that are trained with a seed."""
        return [weighting for weighting in self.weightings if (weighting, seed) in self.runs]

    @property
    def long_runs(self):
        """The (weighting, seed) whose samples at many steps are judged: of the first seed."""
        first = self.seeds[0]
        return [(who, first) for who in self.weightings_of(first)] if self.long_steps else []

    def to_dict(self):
        """The experiment as JSON-native values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _check_distinct(name, values):
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise InputError(f"{name} lists {shown(twice)} twice; each must be there once")


def load_experiment(name, dataset=""):
    """The experiment of that name in config/, or of a YAML file's path; `dataset` replaces its own if given.

    Raises InputError if there is no such file, it cannot be read, or it says something that is not allowed.
    """
    path = _experiment_file(name)
    settings = read_settings(path)
    known = [f.name for f in dataclasses.fields(Experiment) if f.name != "name"]
    for key in settings:
        check_choice(f"setting in {path.name}", key, known)
    if "preset" not in settings:
        raise InputError(f"experiment file {path} names no preset; known: {', '.join(PRESETS)}")
    if dataset:
        settings["dataset"] = str(dataset)
    return Experiment(name=path.stem, **settings)


def known_experiments():
    """Names of the experiments in config/ of this checkout, sorted."""
    return sorted(path.stem for path in (checkout() / "config").glob("*.yaml"))


def _experiment_file(name):
    path = user_path(name)
    if path.suffix in (".yaml", ".yml"):
        if not os.path.isfile(path):
            raise InputError(f"experiment file {shown(str(name))} does not exist; it must be a YAML file")
        return path
    return checkout() / "config" / f"{check_choice('experiment', str(name), known_experiments())}.yaml"


__all__ = ["Experiment", "Preset", "TrainConfig", "known_experiments", "load_experiment", "run_name"]
