"""The excess of one-step estimates, split over training seeds: is it a bias or a variance? tables/bias.csv.

With d_s the distance from E[x0 | x_t] of the network of training seed s = 1..S, all at the same x_t,

    excess = common + between,    common = mean over s != s' of <d_s, d_s'>,    between = the variance over seeds.

common is |mean over seeds - E[x0 | x_t]|^2 - between / S, without bias: what every training of this kind leaves. As an
unbiased estimate of a square it may fall below zero.
"""

import pandas as pd
import torch

from ..diffusion.one_step import curve_noise, one_step_estimate
from ..diffusion.prediction import network_output
from .common import measured_images, optimal_denoiser, trained

COLUMNS = ["quantity", "split", "model", "t", "frequency", "weight", "value", "se", "n"]


def bias(study):
    """The excess by timestep as common + between: a DataFrame, its columns `COLUMNS`; without rows for one seed.

    On the training images, timesteps and noise of mse.csv. quantity: excess_common, excess_between,
    per pixel in units of [-1, 1]^2. model: a weighting. frequency: empty for the whole image; 0 for its mean colour
    alone, the lowest of its H W spatial frequencies. weight: 1, or 1 / (H W); value x weight is a part of the excess.
    se is over the n images, for these networks.
    """
    e = study.experiment
    inputs = {**trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images}
    inputs |= {"optimum": e.optimum_images, "quantities": "common and between, of all and of the mean colour"}

    def rows():
        if len(e.seeds) < 2:
            return pd.DataFrame(columns=COLUMNS)
        optimal, (x0, labels) = optimal_denoiser(study)[0], measured_images(study, e.curve_images)
        models = {w: [study.model(w, seed) for seed in e.seeds] for w in e.weightings}
        found = []
        for t in e.curve_timesteps:
            noise = curve_noise(x0, t)
            best = network_output(optimal, study.schedule.add_noise(x0, noise, t), t, labels).to(x0)
            given = (x0, t, noise, study.schedule, study.config.prediction_type)
            for model, networks in models.items():
                estimates = [one_step_estimate(one, *given, labels=labels).x0_hat for one in networks]
                parts = _rows((torch.stack(estimates) - best).cpu())  # where there is float64
                found += [{"split": "train", "model": model, "t": t, **row} for row in parts]
        return pd.DataFrame(found, columns=COLUMNS)

    return study.csv("bias.csv", inputs, rows, digits=6)


def decompose_seeds(distances):
    """(common, between) of each image, float64 (N,) each, from distances (N, S, D) of S >= 2 networks."""
    seeds, distances = distances.shape[1], distances.double()
    excess = distances.square().mean(dim=(1, 2))
    common = (seeds * distances.mean(dim=1).square().mean(dim=1) - excess) / (seeds - 1)
    return common, excess - common


def _rows(distances):
    """Rows without split, model and t, from distances (S, N, C, H, W)."""
    pixels = distances.shape[3] * distances.shape[4]
    by_image = distances.transpose(0, 1).flatten(3)  # (N, S, C, H W)
    whole = [decompose_seeds(one[None].flatten(2)) for one in by_image]  # one by one: they may be large
    colour = decompose_seeds(by_image.mean(dim=3, dtype=torch.float64))
    for frequency, weight, parts in (
        (None, 1.0, [torch.cat(part) for part in zip(*whole, strict=True)]),
        (0, 1 / pixels, [pixels * part for part in colour]),
    ):
        for name, part in zip(("excess_common", "excess_between"), parts, strict=True):
            numbers = {"value": part.mean().item(), "se": part.std().item() / len(part) ** 0.5, "n": len(part)}
            yield {"quantity": name, "frequency": frequency, "weight": weight, **numbers}
