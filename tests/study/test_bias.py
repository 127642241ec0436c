"""The table of biases on Gaussian images at the smallest size: its rows, its sums, and mse.csv beside it."""

import dataclasses

import numpy as np
import pytest
import torch

from debiaslib.data.gaussian import gaussian_law
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.randomness import stream
from debiaslib.study import measurements
from debiaslib.study.bias import bias
from debiaslib.study.common import measured_images, optimal_denoiser
from debiaslib.study.study import open_study

EXPERIMENT = """
preset: gaussian16
weightings: [constant, debiased]
seeds: [0, 1, 2]
features: [pooled]
training: {images: 48, batch_size: 16, network: {block_out_channels: [8, 8, 8], norm_num_groups: 4}}
optimum_images: 512
curve_timesteps: [0, 100, 500, 999]
curve_images: 24
"""
TIMES = (0, 100, 500, 999)
ARMS = ("constant", "debiased")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaussian")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return open_study(folder / "tiny.yaml", "", folder)


@pytest.fixture(scope="module")
def table(study):
    return bias(study)


@pytest.fixture(scope="module")
def mse(study):
    return measurements.mse(study)


def rows(table, **where):
    for key, wanted in where.items():
        table = table[table[key].isna() if wanted is None else table[key] == wanted]
    assert len(table), where
    return table


def value(table, column="value", **where):
    found = rows(table, **where)
    assert len(found) == 1, where
    return found[column].iloc[0]


def test_the_sum_over_bands_is_all_and_what_mse_says(table, mse):
    """The same images, timesteps and noise; band 0 is the mean colour."""
    banded = table[table.frequency.notna()]
    for split in ("train", "heldout"):
        for t in TIMES:
            for seed in (0, 1, 2):
                for quantity, colour in (("x0_mse", "colour_mse"), ("excess", "colour_excess")):
                    where = {"split": split, "t": t, "seed": seed, "model": "debiased"}
                    other = rows(mse, quantity=quantity, **where)
                    parts = rows(banded, quantity=quantity, **where)
                    every = {"quantity": quantity, "frequency": None, **where}
                    assert (parts.value * parts.weight).sum() == pytest.approx(other["mean"].iloc[0], rel=1e-4)
                    assert value(table, **every) == pytest.approx(other["mean"].iloc[0], rel=1e-4)
                    assert value(table, "se", **every) == pytest.approx(other["se"].iloc[0], rel=1e-4)
                    first = rows(parts, frequency=0)
                    expected = rows(mse, quantity=colour, **where)["mean"].iloc[0]
                    assert (first.value * first.weight).iloc[0] == pytest.approx(expected, rel=1e-4)


def test_common_and_between_add_to_the_mean_excess(table):
    keys = ["split", "model", "t", "frequency"]
    filled = table.fillna({"frequency": -1})
    parts = filled[filled.quantity.isin(["excess_common", "excess_between"])].groupby(keys).value.sum()
    excess = filled[filled.quantity == "excess"].groupby(keys).value.mean()
    assert len(parts) == 2 * 2 * 4 * 6
    assert np.allclose(parts, excess.reindex(parts.index), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("t", [100, 999])
def test_the_bias_of_a_channel_by_hand(study, table, t):
    x0 = measured_images(study, 24)[0]
    noise = torch.randn(x0.shape, generator=stream(0, "mse", t))
    x_t = study.schedule.add_noise(x0, noise, t)
    with torch.no_grad():
        output = study.model("debiased", 1)(x_t, t).sample
    alpha_bar = float(study.schedule.alpha_bar[t])
    x0_hat = ((x_t - (1 - alpha_bar) ** 0.5 * output) / alpha_bar**0.5).double()
    best = GaussianDenoiser(*gaussian_law(16), study.schedule)(x_t.double(), t)
    for name, reference in (("x0_bias", x0), ("excess_bias", best)):
        per_image = (x0_hat - reference).mean(dim=(2, 3))
        for channel in range(3):
            where = {"split": "train", "model": "debiased", "seed": 1, "t": t, "quantity": name, "channel": channel}
            expected = per_image[:, channel].mean().item()
            assert value(table, **where) == pytest.approx(expected, rel=1e-3, abs=2e-4)
            assert value(table, "se", **where) == pytest.approx(per_image[:, channel].std().item() / 24**0.5, rel=1e-2)


def test_the_optimum_has_no_bias(table):
    own = table[(table.model == "optimum") & table.quantity.isin(["x0_bias", "x0_bias2"])]
    error = own.value / own.se
    assert error.abs().max() < 4.5 and error.std() < 1.5
    trained = table[(table.model == "constant") & (table.quantity == "excess_bias")]
    assert ((trained.value / trained.se).abs() > 6).any()  # three steps of training do leave one


def test_the_optimum_of_gaussian_images_is_that_of_their_law_on_held_out_images_too(study, mse):
    denoiser, everywhere = optimal_denoiser(study)
    assert everywhere and isinstance(denoiser, GaussianDenoiser)
    for split in ("train", "heldout"):
        for t in TIMES:
            variances, ab = np.linalg.eigvalsh(gaussian_law(16)[1]), float(study.schedule.alpha_bar[t])
            left = variances * (1 - ab) / (ab * variances + 1 - ab)  # along each axis; of a Gaussian
            error = (2 * np.square(left).sum() / 768**2 / 24) ** 0.5
            assert abs(value(mse, "mean", split=split, quantity="floor", t=t, seed=0) - left.mean()) < 4 * error
            for model in ARMS:
                cross = rows(mse, split=split, quantity="cross", t=t, seed=0, model=model).iloc[0]
                assert abs(cross["mean"]) < 4.5 * cross["se"]
    one_step = measurements.one_step(dataclasses.replace(study, experiment=dataclasses.replace(
        study.experiment, shown_images=2, shown_timesteps=(500,), seeds=(0,))))  # fmt: skip
    x_t = torch.from_numpy(one_step["x_t"][0])
    assert np.abs(one_step["x0_hat"][-1, 0] - denoiser(x_t, 500).numpy()).max() < 1e-5


def test_the_optimum_of_other_images_is_over_the_first_ones(tmp_path):
    (tmp_path / "faces.yaml").write_text("preset: minifaces16\noptimum_images: 40\ncurve_images: 30\n")
    faces = open_study(tmp_path / "faces.yaml", "", tmp_path)
    denoiser, everywhere = optimal_denoiser(faces)
    assert not everywhere and isinstance(denoiser, OptimalDenoiser) and len(denoiser.images) == 40
    pool = faces.images().images[:40].reshape(40, -1)
    chosen = ((measured_images(faces, 30)[0].numpy() + 1) * 127.5).round().astype(np.uint8).reshape(30, -1)
    where = [int(np.flatnonzero((pool == image).all(axis=1))[0]) for image in chosen]
    assert len(set(where)) == 30  # without repetition, from the denoiser's own
    assert measured_images(faces, 30, "heldout")[0].shape == (30, 3, 16, 16)
