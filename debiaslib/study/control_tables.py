"""The outcomes of an experiment's arms, their contrasts and the sweep of learning rates, as tables."""

import pandas as pd

from ..files import sha256_file
from ..training.config import run_name
from . import controls
from .distances import distances
from .mse import arm_errors


def arm_outcomes(study):
    """The outcomes of every training of the experiment: a DataFrame, see `controls.outcomes`."""
    return controls.outcomes(pd.concat([distances(study, *run) for run in study.experiment.runs]), arm_errors(study))


def control_ratios(study):
    """The contrasts between the arms, tables/controls.csv: a DataFrame, see `controls.contrasts`."""
    outcomes = arm_outcomes(study)
    return study.csv("controls.csv", _sources(study), lambda: controls.contrasts(outcomes), digits=6)


def learning_rates(study):
    """Every outcome by learning rate, tables/learning_rates.csv: a DataFrame, see `controls.sweep`."""
    outcomes, default = arm_outcomes(study), study.experiment.train_config("debiased", study.experiment.seeds[0]).lr
    return study.csv("learning_rates.csv", _sources(study), lambda: controls.sweep(outcomes, default), digits=6)


def _sources(study):
    names = [*sorted(f"distances-{run_name(*run)}.csv" for run in study.experiment.runs), "arm_errors.csv"]
    tables = {name: sha256_file(study.folder / "tables" / name) for name in names}
    return {"outcomes": controls.OUTCOMES, "base": controls.BASE, "tables": tables}
