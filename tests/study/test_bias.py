"""The excess over training seeds on Gaussian images at the smallest size: its sums, and mse.csv beside it."""

import dataclasses

import numpy as np
import pytest
import torch

from debiaslib.data.gaussian import gaussian_law
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.randomness import stream
from debiaslib.study import measurements
from debiaslib.study.bias import COLUMNS, bias, decompose_seeds
from debiaslib.study.common import measured_images, optimal_denoiser, subset
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


def test_the_parts_add_up_to_what_mse_says_of_the_whole_and_of_the_mean_colour(table, mse):
    """The same images, timesteps and noise."""
    assert len(table) == 2 * 2 * 4 * 2 and list(table.columns) == COLUMNS
    for frequency, quantity in ((None, "excess"), (0, "colour_excess")):
        found = rows(table, frequency=frequency)
        assert set(found.weight.round(8)) == {1.0 if frequency is None else round(1 / 256, 8)}
        parts = found.assign(part=found.value * found.weight).groupby(["split", "model", "t"]).part.sum()
        excess = rows(mse, quantity=quantity).groupby(["split", "model", "t"])["mean"].mean().reindex(parts.index)
        assert np.allclose(parts, excess, rtol=1e-4, atol=1e-9)


def test_common_and_between_by_their_definitions():
    distances = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3, 12)))
    common, between = decompose_seeds(distances)
    assert torch.allclose(between, distances.var(dim=1).mean(dim=1))
    assert torch.allclose(common, distances.mean(dim=1).square().mean(dim=1) - between / 3)
    pairs = [(distances[:, i] * distances[:, j]).mean(dim=1) for i in range(3) for j in range(3) if i != j]
    assert torch.allclose(common, torch.stack(pairs).mean(dim=0))


def test_the_table_by_hand(study, table):
    x0, t = measured_images(study, 24)[0], 999
    x_t = study.schedule.add_noise(x0, torch.randn(x0.shape, generator=stream(0, "mse", t)), t)
    alpha_bar = float(study.schedule.alpha_bar[t])
    with torch.no_grad():
        outputs = [study.model("debiased", seed)(x_t, t).sample for seed in (0, 1, 2)]
    estimates = [((x_t - (1 - alpha_bar) ** 0.5 * output) / alpha_bar**0.5).double() for output in outputs]
    best = GaussianDenoiser(*gaussian_law(16), study.schedule)(x_t.double(), t)
    common, between = decompose_seeds((torch.stack(estimates, dim=1) - best[:, None]).flatten(2))
    for quantity, part in (("excess_common", common), ("excess_between", between)):
        where = {"split": "train", "model": "debiased", "t": t, "frequency": None, "quantity": quantity}
        assert value(table, **where) == pytest.approx(part.mean().item(), rel=1e-3)
        assert value(table, "se", **where) == pytest.approx(part.std().item() / 24**0.5, rel=1e-2)


def test_one_seed_has_no_rows(study):
    one = dataclasses.replace(study, experiment=dataclasses.replace(study.experiment, name="one", seeds=(0,)))
    assert bias(one).empty and list(bias(one).columns) == COLUMNS


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


def test_the_optimum_of_other_images_is_over_so_many_from_all_over_the_files(tmp_path):
    """Files may lie sorted by class, and the first ones would be of one class."""
    (tmp_path / "faces.yaml").write_text("preset: minifaces16\noptimum_images: 40\ncurve_images: 30\n")
    faces = open_study(tmp_path / "faces.yaml", "", tmp_path)
    denoiser, everywhere = optimal_denoiser(faces)
    assert not everywhere and isinstance(denoiser, OptimalDenoiser) and len(denoiser.images) == 40
    every = faces.images().images.reshape(len(faces.images().images), -1)
    pool = subset(faces.images().images, 40).reshape(40, -1)
    assert (pool != every[:40]).any() and len(denoiser.images) == 40
    chosen = ((measured_images(faces, 30)[0].numpy() + 1) * 127.5).round().astype(np.uint8).reshape(30, -1)
    where = [int(np.flatnonzero((pool == image).all(axis=1))[0]) for image in chosen]
    assert len(set(where)) == 30  # without repetition, from the denoiser's own
    assert measured_images(faces, 30, "heldout")[0].shape == (30, 3, 16, 16)
