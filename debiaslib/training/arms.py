"""An arm of an experiment: a weighting, and what else its trainings change. Imports no torch.

    "debiased"      "debiased; lr=0.0005"      "constant; max_grad_norm=1, prediction_type=sample"

An arm is a string, like the weighting alone, so that YAML, a command line and a table can carry it. The settings are
fields of `config.TrainConfig`, which checks their values.
"""

from contextlib import suppress
from dataclasses import dataclass

from ..diffusion.strategies import Strategy, digits, parse_strategy
from ..errors import InputError, shown
from .settings import check_name

# What an arm may change: everything in the training that leaves data, network and schedule as they are.
SETTINGS = ("batch_size", "ema_decay", "images", "learned_variance", "lr", "lr_decay", "max_grad_norm", "max_weight",
            "normalize_weight", "precision", "prediction_type", "timestep_sampling", "weight_decay")  # fmt: skip
PRETRAINED = "pretrained"  # the one arm of a study of a network that was trained elsewhere; no experiment can name it


@dataclass(frozen=True)
class Arm:
    """A parsed arm. `str(arm)` is canonical: equal strings are equal trainings."""

    strategy: Strategy
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def weighting(self):
        """The weighting in its canonical form: `p2(k=1,gamma=1)`."""
        return str(self.strategy)

    @property
    def variant(self):
        """The settings in their canonical form, sorted by name: `lr=0.0005, normalize_weight=true`; empty for none."""
        return ", ".join(f"{key}={_text(value)}" for key, value in self.settings)

    def __str__(self):
        return f"{self.weighting}; {self.variant}" if self.settings else self.weighting

    @property
    def slug(self):
        """The arm as part of a file name: `p2-k1-gamma1--lr-0.0005`."""
        return "--".join([self.strategy.slug, *(f"{key}-{_text(value)}" for key, value in self.settings)])

    @property
    def label(self):
        """The arm in a figure: `debiased, lr 0.0005`."""
        return ", ".join([self.strategy.label, *(f"{key} {_text(value)}" for key, value in self.settings)])


def parse_arm(text):
    """Parse `"weighting"` or `"weighting; name=value, ..."` into an `Arm`.

    Raises InputError for an unknown weighting or setting (naming the nearest known one) and a setting given twice; the
    values are checked by `TrainConfig`. `PRETRAINED` is an arm without a weighting that `loss_weight` knows.
    """
    if isinstance(text, Arm):
        return text
    if isinstance(text, Strategy) or not isinstance(text, str) or ";" not in text:
        return Arm(Strategy(PRETRAINED) if text == PRETRAINED else parse_strategy(text))
    weighting, settings = split_settings("arm", text)
    for name in settings:
        check_name("setting of a variant", name, SETTINGS)
    arm = Arm(parse_strategy(weighting), tuple(sorted(settings.items())))
    if len(arm.slug) > 150:
        raise InputError(f"arm {shown(text)} gives names of files of {len(arm.slug)} characters; 150 are allowed")
    return arm


def split_settings(what, text):
    """(head, {name: number, true, false or word}) of `"head"` or `"head; name=value, ..."`.

    Raises InputError, naming `what` it is, for what cannot be read.
    """
    head, _, rest = (part.strip() for part in text.partition(";"))
    settings = {}
    for part in rest.split(",") if rest else []:
        name, _, value = (word.strip() for word in part.partition("="))
        if not value or name in settings:
            raise InputError(f"{what} {shown(text)} cannot be read; write it as 'name; setting=value, ...'")
        settings[name] = {"true": True, "false": False}.get(value.lower(), value)
        for kind in (float, int):  # in every spelling of Python's, so that equal arms have equal names
            with suppress(ValueError):
                settings[name] = kind(value)
    return head, settings


def _text(value):
    if isinstance(value, float):
        return digits(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
