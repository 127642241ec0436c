"""The weight as a density on the axis of log SNR, and the noise of a batch's gradient."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.figures.registry import NothingToDraw
from debiaslib.figures.weights import gradient_noise as draw_gradient_noise
from debiaslib.figures.weights import logsnr_density
from debiaslib.study import measurements
from debiaslib.study.gradient_noise import BATCHES, WAYS, Moments, gradient_moments, ways_to_apply

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"


@pytest.mark.parametrize("weighting", ["constant", "debiased", "min_snr", "edm", "sigmoid", "vlb"])
@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(), Schedule.linear(T=50)])
def test_a_density_integrates_to_one(weighting, schedule):
    x, density = logsnr_density(loss_weight(weighting, schedule), schedule.snr)
    assert (np.diff(x) > 0).all() and (density >= 0).all()
    assert np.trapezoid(density, x) == pytest.approx(1)


def test_the_sigmoid_weight_is_one_curve_on_any_schedule():
    """Its definition holds the slope of log SNR; the other weights follow the schedule's own density."""
    shapes = {}
    for weighting in ("sigmoid(bias=-1)", "debiased"):
        for schedule in (Schedule.linear(), Schedule.cosine(), Schedule.scaled_linear()):
            x, density = logsnr_density(loss_weight(weighting, schedule), schedule.snr)
            at = np.interp([-3, 0, 3], x, density)
            shapes.setdefault(weighting, []).append(at / at[1])
    wanted = 1 / (1 + np.exp(1 + np.array([-3, 0, 3])))
    assert np.allclose(shapes["sigmoid(bias=-1)"], wanted / wanted[1], rtol=1e-3)
    assert not np.allclose(shapes["debiased"][0], shapes["debiased"][1], rtol=0.2)


def test_moments_are_those_of_the_stacked_vectors():
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    covariance = np.cov(vectors.numpy().T)
    assert torch.allclose(moments.mean, vectors.mean(0))
    assert moments.variance == pytest.approx(np.trace(covariance))
    assert moments.norm2 == pytest.approx(float(vectors.mean(0).square().sum()) - np.trace(covariance) / 7)


class Line(torch.nn.Module):
    """A network whose gradient has a large mean: one number for each channel, times x_t."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((3, 1, 1), 0.3))

    def forward(self, x, t):
        return self.scale * x


@pytest.fixture(scope="module")
def study(smoke):
    return smoke


@pytest.mark.parametrize("weighting", ["constant", "debiased", "inverse_snr"])
def test_the_ways_have_one_expected_gradient(study, weighting):
    objectives = ways_to_apply(study.experiment.train_config(weighting, 0))
    assert list(objectives) == list(WAYS)
    found = gradient_moments(Line(), objectives, study.images().images[:256], 60)
    for way in ("factor, stratified", "density"):
        apart = (found[way].mean - found["factor"].mean).double().square().sum().item()
        assert apart < 6 * (found[way].variance + found["factor"].variance) / 60, way
    if weighting == "inverse_snr":
        assert found["density"].variance < found["factor"].variance / 2


def test_with_learned_variance_there_is_no_density(study):
    config = dataclasses.replace(study.experiment.train_config("debiased", 0), learned_variance=True)
    assert list(ways_to_apply(config)) == ["factor", "factor, stratified"]


def test_the_table_of_a_study(study):
    table = measurements.gradient_noise(study)
    assert list(table.columns) == ["weighting", "way", "images_seen", "batches", "batch_size", "effective_sample_size",
                                   "gradient_norm2", "variance", "variance_se", "noise_to_signal"]  # fmt: skip
    assert table.way.tolist() == list(WAYS) * 2
    assert table.weighting.tolist() == ["constant"] * 3 + ["debiased"] * 3
    assert set(table.batches) == {BATCHES} and set(table.batch_size) == {16} and set(table.images_seen) == {80}
    assert (table.variance > 0).all() and (table.groupby("weighting").gradient_norm2.nunique() == 1).all()
    weight = loss_weight("debiased", study.schedule)
    share = (weight.mean() ** 2 / weight.square().mean()).item()
    assert np.allclose(table.effective_sample_size, [1, 1, 1, share, share, 1], rtol=1e-5)
    known = table.gradient_norm2 > 0
    assert np.allclose(table.noise_to_signal[known], (table.variance / table.gradient_norm2)[known], rtol=1e-5)
    assert table.noise_to_signal[~known].isna().all()
    pd.testing.assert_frame_equal(table, measurements.gradient_noise(study))
    if known.any():
        assert draw_gradient_noise(table).axes
    else:
        with pytest.raises(NothingToDraw):
            draw_gradient_noise(table)
