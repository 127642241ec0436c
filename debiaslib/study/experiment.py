"""An experiment: which trainings to compare and what to measure on them, checked at once. Imports no torch.

An experiment is a YAML file in config/: a preset, weightings, seeds, and what to measure. Every mistake in it is one
line that names the field, its value and what is allowed, before any work starts.
"""

import dataclasses
import os
from dataclasses import dataclass, field

import yaml

from ..diffusion.strategies import parse_strategy
from ..errors import InputError, check_choice, check_number, shown
from ..paths import checkout, user_path
from ..training.arms import parse_arm
from ..training.coercion import coerce
from ..training.config import TrainConfig
from ..training.stages import staged_runs
from .presets import PRESETS, get_preset

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
    # samples by the exact optimum above a timestep and by a network below it, and the reverse (notebook 07)
    swap_timesteps: tuple[int, ...] = ()  # none: not measured
    swap_steps: tuple[int, ...] = (10, 50)
    swap_images: int = 500
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
        for t in self.swap_timesteps:
            check_number("swap_timesteps", t, minimum=0, below=T, integer=True)
        for name in ("grid_steps", "distance_steps", "snapshot_steps", "swap_steps"):
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
    settings = _read_settings(path)
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


_LARGEST = 100_000  # bytes: an experiment is a page


class _Strict(yaml.SafeLoader):
    """YAML's plain values, without a key given twice (the last would win) and without aliases.

    A few lines of aliases of aliases stand for more than any memory holds.
    """

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, f"*{event.anchor}: aliases are not taken", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        given = []
        for where, _ in node.value:
            key = self.construct_object(where, deep=True)
            if key in given:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} is given twice", where.start_mark)
            given.append(key)
        return super().construct_mapping(node, deep)


def _read_settings(path):
    """The mapping that a YAML file holds. Raises InputError, naming the file, if it holds anything else."""
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST:
            raise ValueError(f"it has {len(content):,} bytes; {_LARGEST:,} are allowed")
        settings = yaml.load(content.decode("utf-8"), _Strict)
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise InputError(f"experiment file {path} cannot be read: {error.problem}{where}") from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # ValueError: not UTF-8, or what looks like a date and is none; TypeError: a key that is a list
        raise InputError(f"experiment file {path} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"experiment file {path} holds {shown(settings, 40)}; it must hold 'name: value' lines")
    return settings


__all__ = ["Experiment", "known_experiments", "load_experiment"]
