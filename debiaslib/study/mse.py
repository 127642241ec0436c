"""The errors of one-step estimates as tables: on a few images, and by timestep."""

import numpy as np
import pandas as pd
import torch

from ..diffusion.one_step import QUANTITIES, one_step_estimate
from ..diffusion.randomness import stream
from ..training.arms import parse_arm
from .common import cached_by_t, errors_of, measured_images, optimal_denoiser, trained


def one_step(study):
    """One-step estimates of a few training images, by each weighting's network and the exact optimum: a dict of arrays.

    x0 (N, 3, R, R); x_t (K, N, ...); x0_hat and amplified_error (M, K, N, ...); residual (M, K), the largest
    difference between x0 and x0_hat + amplified error; t (K,); names (M,), the last of them "optimum".
    """
    e, seed = study.experiment, study.experiment.seeds[0]
    inputs = {**trained(study, [seed]), "t": e.shown_timesteps, "images": e.shown_images, "optimum": e.optimum_images}

    def make():
        x0, labels = measured_images(study, e.shown_images)
        models = {w: (study.model(w, seed), study.config.prediction_type) for w in e.weightings}
        models["optimum"] = optimal_denoiser(study)[0], "sample"
        found = [[_shown(m, x0, t, study.schedule, p, labels) for t in e.shown_timesteps] for m, p in models.values()]
        arrays = {key: np.array([[one[key] for one in row] for row in found]) for key in found[0][0]}
        arrays |= {"x_t": arrays["x_t"][0], "x0": x0.cpu().numpy()}
        return {"names": np.array(list(models)), "t": np.array(e.shown_timesteps), **arrays}

    return study.arrays("one_step.npz", inputs, make)


def _shown(model, x0, t, schedule, prediction_type, labels):
    noise = torch.randn(x0.shape, generator=stream(0, "one step", t)).to(x0)
    one = one_step_estimate(model, x0, t, noise, schedule, prediction_type, labels=labels)
    residual = (x0 - one.x0_hat - one.amplified_error).abs().max().item()
    arrays = {name: getattr(one, name).cpu().numpy() for name in ("x_t", "x0_hat", "amplified_error")}
    return {**arrays, "residual": residual}


def mse(study):
    """Mean squared errors by timestep, and paired differences from the constant weight: a DataFrame.

    Columns: split (train, heldout), seed, model (a weighting, "initial", "optimum"), t, quantity (of
    `one_step.QUANTITIES`, and the optimum's own error as "floor"), mean, se, n (images), difference and difference_se
    (paired over images, against the first weighting). Held-out images have no optimum, unless it is that of the data's
    true law (`common.optimal_denoiser`).
    """
    e, heldout = study.experiment, study.images("heldout")
    inputs = {**trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images, "quantities": QUANTITIES}
    inputs |= {"optimum": e.optimum_images, "heldout": None if heldout is None else heldout.fingerprint}
    if e.weightings[0] != "constant":  # as in all tables of before
        inputs["baseline"] = e.weightings[0]
    if heldout is not None and heldout.labels is not None:
        inputs["heldout_labels"] = heldout.labels_fingerprint

    def rows():
        optimal, everywhere = optimal_denoiser(study)
        tables = []
        for split, noise_seed in (("train", 0), ("heldout", 1)):
            best = cached_by_t(optimal) if everywhere or split == "train" else None
            images = measured_images(study, e.curve_images, split)
            for seed in e.seeds if images[0] is not None else ():
                found = errors_of(study, e.weightings, seed, e.curve_timesteps, images, best, noise_seed=noise_seed)
                tables.append(_summary(found, e.weightings[0]).assign(split=split, seed=seed))
        return pd.concat(tables)

    return study.csv("mse.csv", inputs, rows, digits=8)


def _summary(rows, baseline):
    """Mean and standard error over images, and the same of the paired difference from the baseline's rows."""
    base = rows[rows.model == baseline].set_index(["t", "quantity", "image"]).value
    keys = pd.MultiIndex.from_frame(rows[["t", "quantity", "image"]])
    rows = rows.assign(difference=rows.value.to_numpy() - base.reindex(keys).to_numpy())
    parts = {"mean": ("value", "mean"), "se": ("value", "sem"), "n": ("value", "size")}
    parts |= {"difference": ("difference", "mean"), "difference_se": ("difference", "sem")}
    table = rows.groupby(["model", "t", "quantity"], sort=False).agg(**parts).reset_index()
    own = (table.model == "optimum") & (table.quantity == "x0_mse")
    trivial = (table.model == "optimum") & table.quantity.isin(QUANTITIES[3:])  # zero by definition
    return pd.concat([table[~trivial], table[own].assign(quantity="floor")])


def arm_errors(study):
    """Mean errors of the one-step estimates of every arm's networks, on the same images and noise: a DataFrame.

    Columns: weighting and variant (together the arm), seed, network ("ema", or "raw" for the weights of the last step),
    t, quantity as in `one_step.mse_by_timestep`, value (mean over the images) and n (images).
    """
    e = study.experiment
    inputs = {"runs": {name: one for seed in e.seeds for name, one in trained(study, [seed], e.arms)["runs"].items()}}
    inputs |= {"t": e.shown_timesteps, "images": e.curve_images, "optimum": e.optimum_images, "raw": e.raw_weights}

    def rows():
        images, best = measured_images(study, e.curve_images), cached_by_t(optimal_denoiser(study)[0])
        networks = ("ema", "raw") if e.raw_weights else ("ema",)
        return pd.concat([_of_arms(study, seed, network, images, best) for seed in e.seeds for network in networks])

    return study.csv("arm_errors.csv", inputs, rows, digits=8)


def _of_arms(study, seed, network, images, best):
    e, raw = study.experiment, network == "raw"
    arms = e.weightings if raw else e.arms
    found = errors_of(study, arms, seed, e.shown_timesteps, images, best, raw=raw)
    groups = found[found.model.isin(arms)].groupby(["model", "t", "quantity"], sort=False)
    table = groups.value.agg(value="mean", n="size").reset_index()
    parsed = [parse_arm(arm) for arm in table.pop("model")]
    weighting, variant = zip(*((arm.weighting, arm.variant) for arm in parsed), strict=True)
    facts = pd.DataFrame({"weighting": weighting, "variant": variant, "seed": seed, "network": network})
    return pd.concat([facts, table], axis=1)
