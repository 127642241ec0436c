"""The gate: its timesteps by SNR, its limits, and what is said of those that pass and those that do not."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib import Schedule
from debiaslib.diffusion.randomness import stream
from debiaslib.study.common import measured_images, optimal_denoiser
from debiaslib.study.gate import _rows, gate, gate_line, gate_timesteps

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"


def test_its_timesteps_are_600_and_900_of_the_linear_schedule_or_of_equal_snr():
    linear, cosine = Schedule.linear(T=1000), Schedule.cosine(T=1000)
    assert gate_timesteps(linear) == (600, 900)
    for found, t in zip(gate_timesteps(cosine), (600, 900), strict=True):
        assert float(cosine.snr[found].log()) == pytest.approx(float(linear.snr[t].log()), abs=0.1)
    assert gate_timesteps(linear.rescale_zero_terminal_snr())[1] < 1000


def test_the_table_holds_its_own_rule(smoke):
    study, table = smoke, gate(smoke)
    assert list(table.columns) == ["arm", "seed", "t", "error", "optimum", "x_t", "limit", "passes"]
    assert table.arm.drop_duplicates().tolist() == [arm for arm, _ in study.experiment.runs]
    early, late = table[table.t == 600], table[table.t == 900]
    assert np.allclose(early.limit, 1.25 * early.optimum, rtol=1e-5)
    assert np.allclose(late.limit, 2 * late.x_t, rtol=1e-5)
    assert (table.passes == (table.error <= table.limit)).all()
    assert (table.error > 0.99 * table.optimum).all()
    # A network's error by hand; after ten steps of training it has not learned its task.
    x0 = measured_images(study, study.experiment.curve_images)[0]
    a, s = float(study.schedule.alpha_bar[600]) ** 0.5, float(1 - study.schedule.alpha_bar[600]) ** 0.5
    x_t = a * x0 + s * torch.randn(x0.shape, generator=stream(0, "mse", 600))
    with torch.no_grad():
        estimate = (x_t - s * study.model("constant", 0)(x_t, 600).sample) / a
    of_constant = early[early.arm == "constant"].iloc[0]
    assert of_constant.error == pytest.approx((estimate - x0).square().mean().item(), rel=1e-3)
    assert not of_constant.passes
    # The input's own error by hand: (x_t - x0)^2 has mean (1 - a)^2 E x0^2 + s^2.
    a = float(study.schedule.alpha_bar[900].sqrt())
    x0 = torch.from_numpy(np.array(study.images().images[:256])).float() / 127.5 - 1
    assert late.x_t.iloc[0] == pytest.approx((1 - a) ** 2 * float(x0.square().mean()) + 1 - a**2, rel=0.1)


def test_nothing_is_asked_where_the_optimum_recognises_more_than_a_fifth_of_the_images(smoke):
    """An optimum over few or large images knows some of them at t = 600, and is no measure of a network then."""
    images = measured_images(smoke, 8)

    def knows(count):
        def optimal(x_t, t):
            return torch.cat([images[0][:count], optimal_denoiser(smoke)[0](x_t, t)[count:]])

        return optimal

    rows = {n: list(_rows(smoke, "constant", 0, (600, 900), images, knows(n), False)) for n in (1, 2)}
    assert rows[1][0]["limit"] == 1.25 * rows[1][0]["optimum"]
    assert rows[2][0]["limit"] == math.inf and rows[2][0]["passes"] and rows[2][1]["limit"] == 2 * rows[2][1]["x_t"]
    line = gate_line(pd.DataFrame(rows[2]), ["constant"])
    assert line.endswith("(At t = 600 the optimum recognises too many of the images, so nothing is asked.)")
    of_law = list(_rows(smoke, "constant", 0, (600, 900), images, knows(2), True))
    assert of_law[0]["limit"] == 1.25 * of_law[0]["optimum"]  # of a known law it recognises nothing


def test_a_line_for_each_verdict():
    row = {"arm": "constant", "seed": 0, "optimum": 0.2, "x_t": 1.2}
    good = [{**row, "t": 600, "error": 0.21, "limit": 0.25, "passes": True}]
    good += [{**row, "t": 900, "error": 2.0, "limit": 2.4, "passes": True}]
    line = gate_line(pd.DataFrame(good), ["constant"])
    assert line.startswith("This experiment has learned its task: 1 of 1") and "0.25 is allowed" in line
    bad = [{**good[1], "seed": 1, "error": 14.0, "passes": False}, {**good[0], "seed": 1}]
    line = gate_line(pd.DataFrame(good + bad), ["constant"])
    assert line.startswith("This experiment has NOT learned its task: 1 of 2")
    assert "constant with seed 1, has an error of x0 of 14 at t = 900; 2.4 is allowed, twice that of returning" in line
    other = pd.DataFrame(good + [{**bad[0], "arm": "control"}])
    assert "1 of 1 trainings pass the gate (all arms: 1 of 2)" in gate_line(
        other, ["constant"]
    )  # a control that is there to fail does not count
