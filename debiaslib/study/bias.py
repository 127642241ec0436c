"""The signed error of an experiment's one-step estimates as a table, tables/bias.csv: is it a bias or a variance?"""

import pandas as pd
import torch

from ..diffusion.bias import channel_bias, decompose_seeds, frequency_bands, spectrum
from ..diffusion.one_step import curve_noise, one_step_estimate
from ..diffusion.prediction import network_output
from .common import measured_images, optimal_denoiser, trained

COLUMNS = ["quantity", "split", "model", "seed", "t", "channel", "frequency", "weight", "value", "se", "seed_se", "n"]


def bias(study):
    """The bias of one-step estimates by timestep, channel and spatial frequency: a DataFrame, its columns `COLUMNS`.

    On the images, timesteps and noise of mse.csv, where there is an optimum. quantity is one of

        x0_bias, excess_bias     mean of x0_hat - x0, or of x0_hat - optimum, over images: of a channel, in [-1, 1]
        x0_mse, excess           their mean square over images
        x0_bias2, excess_bias2   the square of their mean over images, without bias (`bias.spectrum`)
        excess_common            the excess that the networks of all training seeds share,
        excess_between           and its variance over training seeds (`bias.decompose_seeds`); seed is empty

    channel: 0, 1, 2. frequency: the lowest of the band in cycles per image, where 0 is the mean colour alone; empty for
    all together. weight: the band's share of the coefficients, so that a sum of value x weight over the bands is the
    row of all. se is over the n images; seed_se over the training seeds, from three on. model: a weighting, or
    "optimum", whose own bias is 0 up to its standard error. One seed has no rows over seeds.
    """
    e = study.experiment
    inputs = {**trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images}
    inputs |= {"optimum": e.optimum_images, "quantities": "signed, octaves, seeds"}

    def rows():
        optimal, everywhere = optimal_denoiser(study)
        models = {w: [study.model(w, seed) for seed in e.seeds] for w in e.weightings}
        found = []
        for noise_seed, split in enumerate(("train", "heldout") if everywhere else ("train",)):
            x0, labels = measured_images(study, e.curve_images, split)
            for t in e.curve_timesteps:
                at = _at(study, models, optimal, x0, t, noise_seed, labels)
                found += [{**row, "split": split, "t": t} for row in at]
        return pd.DataFrame(found, columns=COLUMNS)

    return study.csv("bias.csv", inputs, rows, digits=6)


def _at(study, models, optimal, x0, t, noise_seed, labels):
    """The rows of one timestep, without split and t."""
    noise, bands = curve_noise(x0, t, noise_seed), frequency_bands(*x0.shape[2:])
    best = network_output(optimal, study.schedule.add_noise(x0, noise, t), t, labels).to(x0)
    rows = [{"model": "optimum", **row} for row in _signed(best - x0, "x0", bands)]
    for weighting, networks in models.items():
        given = (x0, t, noise, study.schedule, study.prediction_type)
        estimates = torch.stack([one_step_estimate(one, *given, labels=labels).x0_hat for one in networks])
        for seed, x0_hat in zip(study.experiment.seeds, estimates, strict=True):
            found = _signed(x0_hat - x0, "x0", bands) + _signed(x0_hat - best, "excess", bands)
            rows += [{"model": weighting, "seed": seed, **row} for row in found]
        if len(networks) > 1:
            rows += [{"model": weighting, **row} for row in _over_seeds(estimates, best, bands)]
    return [{**row, "n": len(x0)} for row in rows]


def _signed(difference, name, bands):
    """Rows of the signed mean by channel, and of the mean square and the squared mean by band."""
    rows = [
        {"quantity": f"{name}_bias", "channel": channel, "value": value, "se": se}
        for channel, (value, se) in enumerate(_numbers(*channel_bias(difference)))
    ]
    found = spectrum(difference)
    rows += _by_band("x0_mse" if name == "x0" else name, bands, value=found.power, se=found.power_se)
    return rows + _by_band(f"{name}_bias2", bands, value=found.bias2, se=found.bias2_se)


def _over_seeds(estimates, best, bands):
    found = decompose_seeds(estimates, best)
    columns = {"value": found.common, "se": found.common_se, "seed_se": found.common_seed_se}
    rows = _by_band("excess_common", bands, **columns)
    columns = {"value": found.between, "se": found.between_se, "seed_se": found.between_seed_se}
    return rows + _by_band("excess_between", bands, **columns)


def _by_band(quantity, bands, **columns):
    """A row for all frequencies and one for each band; `columns` are tensors (1 + B,)."""
    places = [(None, 1.0), *_numbers(bands.frequency, bands.weight)]
    return [
        {"quantity": quantity, "frequency": frequency, "weight": weight, **dict(zip(columns, values, strict=True))}
        for (frequency, weight), values in zip(places, _numbers(*columns.values()), strict=True)
    ]


def _numbers(*tensors):
    return list(zip(*(tensor.tolist() for tensor in tensors), strict=True))
