"""An experiment: which trainings to compare and what to measure on them, checked at once. Imports no torch.

An experiment is a YAML file in config/: a preset, weightings, seeds, and what to measure. Every mistake in it is one
line that names the field, its value and what is allowed, before any work starts.
"""

import dataclasses
import os
from dataclasses import field
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator

from ..diffusion.strategies import parse_strategy
from ..errors import InputError, check_choice, check_number, shown
from ..paths import checkout, user_path
from ..training.arms import parse_arm
from ..training.config import TrainConfig
from ..training.settings import Flag, Several, Text, Whole, check_distinct, check_name, settings
from .presets import get_preset

SAMPLERS = ("ddim", "ddpm")
DIMENSIONS = {"minifaces": 64, "cifar10": 256, "pooled": 48, "inception": 2048}
FEATURES = tuple(DIMENSIONS)
NOTEBOOKS = ("01_bias_existence", "02_one_step_estimation", "03_mse_step_curves", "04_weighting_comparison",
             "05_training", "06_fid_evaluation")  # fmt: skip

Weighting = Annotated[str, AfterValidator(lambda text: str(parse_strategy(text)))]
Arm = Annotated[str, AfterValidator(lambda text: str(parse_arm(text)))]
_OF_THE_RUN = ("weighting", "variant", "seed", "preset", "dataset")
_SETTINGS = sorted({field.name for field in dataclasses.fields(TrainConfig)} - {*_OF_THE_RUN})  # of `training`


@settings
class Experiment:
    """Which trainings to compare and what to measure on them. Raises InputError for a value out of range."""

    name: Text
    preset: Text
    weightings: Several(Weighting) = ("constant", "debiased")
    variants: tuple[Arm, ...] = ()  # further arms, each a weighting and what else it changes: "debiased; lr=5e-4"
    seeds: Several(Whole(0)) = (0,)
    notebooks: Several(Text) = NOTEBOOKS
    dataset: Text = ""  # empty: the preset's
    training: dict = field(default_factory=dict)  # overrides of the preset and of TrainConfig's defaults
    # {arm: learning rate}, chosen on other seeds: "constant" is for each of its variants that no longer key matches
    rates: dict = field(default_factory=dict)
    # one-step estimates (notebooks 01 and 02)
    shown_timesteps: Several(Whole(0)) = (50, 200, 400, 600, 700, 800, 900, 999)
    shown_images: Whole(1) = 8
    # error by timestep (notebooks 02 and 03)
    curve_timesteps: Several(Whole(0)) = (
        0, 10, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 850, 900, 950, 999,
    )  # fmt: skip
    curve_images: Whole(2) = 256
    optimum_images: Whole(1) = 50_000  # the exact optimum is over so many of the training images
    # samples (notebooks 01, 04 and 05)
    sampler: Literal[SAMPLERS] = "ddim"
    further_samplers: tuple[Literal[SAMPLERS], ...] = ()  # for the distances by sampling steps alone
    clip_x0: Flag = True
    sampling_batch_size: Whole(1) = 64
    grid_steps: Several(Whole(1)) = (2, 3, 4, 5, 10, 50, 100)
    grid_images: Whole(1) = 8
    # distances (notebook 06)
    features: Several(Literal[FEATURES]) = ("pooled",)
    distance_steps: Several(Whole(1)) = (5, 10, 20, 50, 100)
    distance_images: Whole(1) = 500
    snapshot_steps: Several(Whole(1)) = (20,)  # sampling steps for the distance against images seen in training
    reference_images: Whole(1) = 2_048
    allow_singular: Flag = False  # a Frechet distance of fewer images than features, which is mostly bias
    raw_weights: Flag = False  # judge the weightings' weights of the last step too, beside their moving average
    further_features: tuple[Literal[FEATURES], ...] = ()  # where their weights are at hand; never fetched
    # samples by the exact optimum above a timestep and by a network below it, and the reverse (notebook 03)
    swap_timesteps: tuple[Whole(0), ...] = ()  # none: not measured
    swap_steps: Several(Whole(1)) = (10, 50)
    swap_images: Whole(1) = 500
    weights: Text = ""  # a published folder of weights, below the checkout: its networks stand in for trainings
    longer: Text = ""  # the experiment that the report offers next, for more time on the same images
    published_weights: tuple[Text, ...] = ()  # arms whose EMA weights are published
    published_seeds: Whole(1) = 1  # of the first so many seeds

    def __post_init__(self):
        if self.name in ("", ".", "..") or "/" in self.name or "\0" in self.name or len(self.name) > 200:
            raise InputError(f"name is {shown(self.name)}; it must be the name of a folder, of 200 characters at most")
        get_preset(self.preset)
        check_distinct("variants", self.arms)
        check_distinct("swap_timesteps", self.swap_timesteps)
        check_distinct("further_samplers", self.samplers)
        check_distinct("further_features", self.features + self.further_features)
        if self.longer:
            check_choice("longer", self.longer, known_experiments())
        for arm in self.published_weights:
            check_choice("arm in published_weights", arm, self.arms)
        keys = check_distinct("rates", [str(parse_arm(key)) for key in self.rates])
        object.__setattr__(self, "rates", dict(zip(keys, self.rates.values(), strict=True)))
        for key in self.rates:
            if not any(_matches(key, arm) for arm in self.arms):
                check_choice("arm in rates", key, self.arms)
        for key in self.training:
            check_name("training setting", key, _SETTINGS)
        self._check_numbers()
        configs = [self.train_config(arm, self.seeds[0]) for arm in self.arms]
        if self.swap_timesteps and (len(self.weightings) < 2 or any(config.classes for config in configs)):
            raise InputError("swap_timesteps are given; they need two weightings, and networks that are told no class")
        chapters = [name for name in self.notebooks if name.startswith(("01", "04", "05"))]
        terminal = {config.prediction_type for config in configs if config.zero_terminal_snr}
        if "epsilon" in terminal:
            raise InputError("prediction_type is 'epsilon'; zero_terminal_snr needs 'v_prediction' or 'sample'")
        if chapters and terminal:
            why = "zero_terminal_snr makes 1/SNR and weights of the epsilon loss infinite, which these chapters show"
            raise InputError(f"notebooks have {', '.join(chapters)}; leave them out, as {why}")
        if "07_controls" in self.notebooks and not {"constant", "debiased"} <= set(self.arms):
            raise InputError(f"07_controls compares constant and debiased; weightings are {', '.join(self.weightings)}")
        if self.weights and "05_training" in self.notebooks:
            raise InputError("notebooks have 05_training, which shows the log of a training; with weights leave it out")
        if self.weights and self.raw_weights:
            raise InputError("raw_weights is True; a published folder of weights has their moving average alone")
        if self.weights and not (checkout() / self.weights).is_dir():
            raise InputError(f"weights is {shown(self.weights)}; it must be a folder below {checkout()}")

    def _check_numbers(self):
        T = self.train_config(self.weightings[0], self.seeds[0]).timesteps
        timesteps = ("shown_timesteps", "curve_timesteps", "swap_timesteps")
        steps = ("grid_steps", "distance_steps", "snapshot_steps", "swap_steps")
        for names, bounds in ((timesteps, {"minimum": 0, "below": T}), (steps, {"minimum": 1, "maximum": T})):
            for name in names:
                for value in getattr(self, name):
                    check_number(name, value, **bounds, integer=True)
        for name in ("distance_images", "reference_images", *["swap_images"] * bool(self.swap_timesteps)):
            check_number(name, getattr(self, name), minimum=self.enough_images, integer=True)

    @property
    def enough_images(self):
        """How many images the distances need: more than the features have dimensions; 20 for the kernel distance."""
        return 20 if self.allow_singular else 1 + max(DIMENSIONS[name] for name in self.features)

    def train_config(self, arm, seed):
        """The `TrainConfig` of one (arm, seed) of this experiment; a weighting alone is an arm."""
        arm, preset = parse_arm(arm), vars(get_preset(self.preset))
        named = {"preset": self.preset, "weighting": arm.weighting, "variant": arm.variant, "seed": seed}
        keys = [key for key in self.rates if _matches(key, arm)]
        own = {"lr": self.rates[max(keys, key=lambda key: len(parse_arm(key).settings))]} if keys else {}
        given = {**preset, **self.training, **own, **dict(arm.settings), **named}
        if self.dataset:
            given["dataset"] = self.dataset
        changes = self.training.get("network", {})
        if isinstance(changes, dict):  # they replace a network of another class, and change one of the same
            base = {} if "_class_name" in changes else preset["network"]
            given["network"] = {**base, **changes, "sample_size": given["resolution"]}  # samples take their size here
        return TrainConfig(**given)

    @property
    def measured(self):
        """What is measured and how, without what decides the trainings: JSON-native."""
        training = ("name", "preset", "dataset", "training", "weightings", "variants", "seeds", "notebooks")
        training += ("rates", "weights", "longer", "published_weights", "published_seeds")
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
        """Every (arm, seed), seed by seed: what is listed first is trained first."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def to_dict(self):
        """The experiment as JSON-native values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _matches(key, arm):
    """Whether an arm has the weighting and all the settings of a key of `rates`."""
    key, arm = parse_arm(key), parse_arm(arm)
    return key.weighting == arm.weighting and set(key.settings) <= set(arm.settings)


def load_experiment(name, dataset=""):
    """The experiment of that name in config/, or of a YAML file's path; `dataset` replaces its own if given.

    Raises InputError if there is no such file, it cannot be read, or it says something that is not allowed.
    """
    path = user_path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = checkout() / "config" / f"{check_choice('experiment', str(name), known_experiments())}.yaml"
    elif not os.path.isfile(path):
        raise InputError(f"experiment file {shown(str(name))} does not exist; it must be a YAML file")
    given = _read_settings(path)
    for key in given:
        check_name(f"setting in {path.name}", key, [f.name for f in dataclasses.fields(Experiment) if f.name != "name"])
    return Experiment(**{**given, "name": path.stem, **({"dataset": str(dataset)} if dataset else {})})


def known_experiments():
    """Names of the experiments in config/ of this checkout, sorted."""
    return sorted(path.stem for path in (checkout() / "config").glob("*.yaml"))


class _Strict(yaml.SafeLoader):
    """YAML's plain values, without a key given twice, of which the last would win."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(where, deep=True) for where, _ in node.value]
        for number, (where, _) in enumerate(node.value):
            if keys[number] in keys[:number]:
                problem = f"{shown(keys[number])} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, where.start_mark)
        return super().construct_mapping(node, deep)


def _read_settings(path):
    """The mapping that a YAML file holds. Raises InputError, naming the file, if it holds anything else."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Strict)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # ValueError: not UTF-8, or what looks like a date and is none; TypeError: a key that is a list
        mark = getattr(error, "problem_mark", None)
        said = f"{error.problem} (line {mark.line + 1})" if mark else error
        raise InputError(f"experiment file {path} cannot be read: {said}") from None
    if not isinstance(settings, dict):
        raise InputError(f"experiment file {path} holds {shown(settings, 40)}; it must hold 'name: value' lines")
    return settings
