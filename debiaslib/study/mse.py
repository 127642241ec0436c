"""The errors of one-step estimates as tables: on a few images, and by timestep."""

import numpy as np
import pandas as pd
import torch

from ..diffusion.one_step import QUANTITIES, mse_by_timestep, one_step_estimate
from ..diffusion.randomness import stream
from .common import cached_by_t, load_arrays, measured_images, measured_labels, optimal_denoiser, save_arrays, trained

__all__ = ["mse", "one_step"]


def one_step(study):
    """One-step estimates of a few training images, by each weighting's network and the exact optimum: a dict of arrays.

    x0 (N, 3, R, R); x_t (K, N, ...); x0_hat and amplified_error (M, K, N, ...); residual (M, K), the largest
    difference between x0 and x0_hat + amplified error; t (K,); names (M,), the last of them "optimum".
    """
    e, seed = study.experiment, study.experiment.seeds[0]
    inputs = {**trained(study, [seed]), "t": e.shown_timesteps, "images": e.shown_images, "optimum": e.optimum_images}

    def make(path):
        x0, labels = measured_images(study, e.shown_images), measured_labels(study, e.shown_images)
        models = {w: (study.model(w, seed), study.prediction_type) for w in e.weightings}
        models["optimum"] = optimal_denoiser(study)[0], "sample"
        estimates = [
            [_shown(m, x0, t, study.schedule, p, labels) for t in e.shown_timesteps] for m, p in models.values()
        ]
        arrays = {key: np.array([[one[key] for one in row] for row in estimates]) for key in estimates[0][0]}
        arrays["x_t"] = arrays["x_t"][0]
        save_arrays(path, names=np.array(list(models)), t=np.array(e.shown_timesteps), x0=x0.cpu().numpy(), **arrays)

    return load_arrays(study.table("one_step.npz", inputs, make))


def _shown(model, x0, t, schedule, prediction_type, labels):
    noise = torch.randn(x0.shape, generator=stream(0, "one step", t)).to(x0)
    one = one_step_estimate(model, x0, t, noise, schedule, prediction_type, labels=labels)
    residual = (x0 - one.x0_hat - one.amplified_error).abs().max().item()
    return {
        "x_t": one.x_t.cpu().numpy(),
        "x0_hat": one.x0_hat.cpu().numpy(),
        "amplified_error": one.amplified_error.cpu().numpy(),
        "residual": residual,
    }


def mse(study):
    """Mean squared errors by timestep, and paired differences from the constant weight: a DataFrame.

    Columns: split (train, heldout), seed, model (a weighting, "initial", "optimum"), t, quantity (of
    `analysis.QUANTITIES`, and the optimum's own error as "floor"), mean, se, n, difference and difference_se (paired
    over images, against the first weighting). n counts images; every model sees the same noise. Held-out images have
    no optimum, unless it is that of the data's true law (`tables.optimal_denoiser`).
    """
    e, heldout = study.experiment, study.images("heldout")
    inputs = {**trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images}
    inputs |= {"optimum": e.optimum_images, "heldout": heldout.fingerprint if heldout is not None else None}
    inputs["quantities"] = QUANTITIES
    if heldout is not None and heldout.labels is not None:
        inputs["heldout_labels"] = heldout.labels_fingerprint

    def make(path):
        optimal, everywhere = optimal_denoiser(study)
        tables = []
        for split, noise_seed in (("train", 0), ("heldout", 1)):
            best = cached_by_t(optimal) if everywhere or split == "train" else None
            x0, labels = (take(study, e.curve_images, split) for take in (measured_images, measured_labels))
            for seed in e.seeds if x0 is not None else ():
                errors = _error_rows(study, seed, x0, best, noise_seed, labels)
                tables.append(_summary(errors, e.weightings[0]).assign(split=split, seed=seed))
        pd.concat(tables).to_csv(path, index=False, float_format="%.8g")

    return pd.read_csv(study.table("mse.csv", inputs, make))


def _error_rows(study, seed, x0, optimal, noise_seed, labels):
    models = {w: study.model(w, seed) for w in study.experiment.weightings}
    timesteps, kind = study.experiment.curve_timesteps, study.prediction_type
    return mse_by_timestep(
        models, x0, timesteps, study.schedule, prediction_type=kind, seed=noise_seed, optimal=optimal, labels=labels
    )


def _summary(rows, baseline):
    """Mean and standard error over images, and the same of the paired difference from the baseline's rows."""
    base = rows[rows.model == baseline].set_index(["t", "quantity", "image"]).value
    keys = pd.MultiIndex.from_frame(rows[["t", "quantity", "image"]])
    rows = rows.assign(difference=rows.value.to_numpy() - base.reindex(keys).to_numpy())
    groups = rows.groupby(["model", "t", "quantity"], sort=False)
    table = groups.agg(
        mean=("value", "mean"),
        se=("value", "sem"),
        n=("value", "size"),
        difference=("difference", "mean"),
        difference_se=("difference", "sem"),
    ).reset_index()
    own = (table.model == "optimum") & (table.quantity == "x0_mse")
    floor = table[own].assign(quantity="floor")
    trivial = (table.model == "optimum") & table.quantity.isin(QUANTITIES[3:])  # zero by definition
    return pd.concat([table[~trivial], floor])
