"""What an experiment's arms have to say: their errors by timestep, their contrasts, and the sweep of learning rates."""

import pandas as pd

from ..diffusion.one_step import mse_by_timestep
from ..files import sha256_file
from ..training.arms import parse_arm
from ..training.config import run_name
from . import controls
from .common import cached_by_t, measured_images, measured_labels, optimal_denoiser, trained
from .distances import distances
from .saved_tables import read_rows


def arm_errors(study):
    """Mean errors of the one-step estimates of every arm's networks, on the same images and noise: a DataFrame.

    Columns: weighting and variant (together the arm), seed, network ("ema", or "raw" for the weights of the last step),
    t, quantity as in `analysis.mse_by_timestep`, value (mean over the images) and n (images).
    """
    e = study.experiment
    runs = {name: identity for seed in e.seeds for name, identity in _trained_arms(study, seed).items()}
    inputs = {"runs": runs, "t": e.shown_timesteps, "images": e.curve_images}
    inputs |= {"optimum": e.optimum_images, "raw": e.raw_weights}

    def make(path):
        x0, optimal = measured_images(study, e.curve_images), optimal_denoiser(study)[0]
        optimal = cached_by_t(optimal)
        networks = ("ema", "raw") if e.raw_weights else ("ema",)
        labels = measured_labels(study, e.curve_images)
        rows = [_rows(study, seed, network, x0, optimal, labels) for seed in e.seeds for network in networks]
        pd.concat(rows).to_csv(path, index=False, float_format="%.8g")

    return read_rows(study.table("arm_errors.csv", inputs, make))


def arm_outcomes(study):
    """The outcomes of every training of the experiment: a DataFrame, see `controls.outcomes`."""
    return controls.outcomes(pd.concat([distances(study, *run) for run in study.experiment.runs]), arm_errors(study))


def control_ratios(study):
    """The contrasts between the arms, tables/controls.csv: a DataFrame, see `controls.contrasts`."""
    outcomes = arm_outcomes(study)

    def make(path):
        controls.contrasts(outcomes).to_csv(path, index=False, float_format="%.6g")

    return pd.read_csv(study.table("controls.csv", _sources(study), make))


def learning_rates(study):
    """Every outcome by learning rate, tables/learning_rates.csv: a DataFrame, see `controls.sweep`."""
    outcomes, default = arm_outcomes(study), study.experiment.train_config("debiased", study.experiment.seeds[0]).lr

    def make(path):
        controls.sweep(outcomes, default).to_csv(path, index=False, float_format="%.6g")

    return pd.read_csv(study.table("learning_rates.csv", _sources(study), make))


def _sources(study):
    names = [f"distances-{run_name(*run)}.csv" for run in study.experiment.runs]
    tables = [study.folder / "tables" / name for name in (*sorted(names), "arm_errors.csv")]
    return {
        "outcomes": controls.OUTCOMES,
        "base": controls.BASE,
        "tables": {path.name: sha256_file(path) for path in tables},
    }


def _trained_arms(study, seed):
    return trained(study, [seed], [arm for arm in study.experiment.arms if (arm, seed) in study.experiment.runs])[
        "runs"
    ]


def _rows(study, seed, network, x0, optimal, labels):
    e = study.experiment
    arms, timesteps = (e.weightings if network == "raw" else e.arms), e.shown_timesteps
    arms = [arm for arm in arms if (arm, seed) in e.runs]
    models = {arm: study.model(arm, seed, raw=network == "raw") for arm in arms}
    kinds = {arm: study.prediction_type_of(arm) for arm in arms}
    errors = mse_by_timestep(
        models, x0, timesteps, study.schedule, prediction_type=kinds, optimal=optimal, labels=labels
    )
    errors = errors[errors.model.isin(arms)]
    table = errors.groupby(["model", "t", "quantity"], sort=False).value.agg(["mean", "size"]).reset_index()
    return pd.DataFrame(
        {
            "weighting": [parse_arm(arm).weighting for arm in table.model],
            "variant": [parse_arm(arm).variant for arm in table.model],
            "seed": seed,
            "network": network,
            "t": table.t,
            "quantity": table.quantity,
            "value": table["mean"],
            "n": table["size"],
        }
    )
