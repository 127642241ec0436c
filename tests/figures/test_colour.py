"""The colour figures: which rows are drawn, in what look, and what is said when there are none."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib.figures.colour import colour_by_steps, colour_spread
from debiaslib.figures.style import look

STEPS = (5, 10, 50)
FLOORS = {"colour_w1": 5.3, "layout_energy": 0.05, **{f"mean_{c}": 0.1 for c in ("red", "green", "blue")},
          **{f"spread_{c}": 0.28 for c in ("red", "green", "blue")}}  # fmt: skip


def row(weighting, seed, steps, metric, value, se=None):
    return {"weighting": weighting, "seed": seed, "sampler": "ddim", "steps": steps, "images_seen": 64,
            "metric": metric, "value": value, "se": se, "features": "colour", "n": 500, "n_reference": 500}  # fmt: skip


@pytest.fixture
def table():
    """Three seeds: value = floor + 1 / steps + seed / 100, larger for constant."""
    return pd.DataFrame(
        row(who, seed, steps, metric, floor + worse / steps + seed / 100, 0.01)
        for who, worse in (("debiased", 1), ("constant", 3))
        for seed in range(3)
        for steps in STEPS
        for metric, floor in FLOORS.items()
    )


@pytest.fixture
def real():
    return pd.DataFrame(row("real", None, None, metric, value, 0.005) for metric, value in FLOORS.items())


def line(ax, name):
    (found,) = [one for one in ax.get_lines() if one.get_label() == name]
    return found


def test_the_two_distances(table, real):
    figure = colour_by_steps(table, real)
    assert [ax.get_ylabel().split(" ")[0] for ax in figure.axes] == ["$W_1$", "energy"]
    for ax, metric in zip(figure.axes, ("colour_w1", "layout_energy"), strict=True):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        labels = [one.get_label() for one in ax.get_lines()]
        assert labels == ["constant", "debiased", "real images"]
        for who, worse in (("constant", 3), ("debiased", 1)):
            drawn, expected = (
                line(ax, who),
                [stats.gmean([FLOORS[metric] + worse / steps + seed / 100 for seed in range(3)]) for steps in STEPS],
            )
            assert drawn.get_xdata().tolist() == list(STEPS)
            assert drawn.get_ydata() == pytest.approx(expected)
            assert (drawn.get_color(), drawn.get_marker()) == (look(who).colour, look(who).marker)
        assert set(line(ax, "real images").get_ydata()) == {FLOORS[metric]}
        assert ax.get_xticks().tolist() == list(STEPS)


def test_means_and_spreads_by_channel(table, real):
    figure = colour_spread(table, real)
    assert len(figure.axes) == 6
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Red", "Green", "Blue", "", "", ""]
    for i, ax in enumerate(figure.axes):
        floor = FLOORS["mean_red" if i < 3 else "spread_red"]
        assert ax.get_yscale() == "linear"
        assert line(ax, "debiased").get_ydata() == pytest.approx([floor + 1 / steps + 0.01 for steps in STEPS])
        assert set(line(ax, "real images").get_ydata()) == {floor}
        # The t-interval over three seeds at 5 steps of constant, drawn first.
        half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
        ys = ax.collections[0].get_paths()[0].vertices
        band = ys[ys[:, 0] == 5, 1]
        assert (band.min(), band.max()) == pytest.approx((floor + 3 / 5 + 0.01 - half, floor + 3 / 5 + 0.01 + half))


def test_channels_are_not_exchanged(table):
    table.loc[table.metric == "mean_blue", "value"] = -0.5
    table.loc[table.metric == "spread_green", "value"] = 0.9
    axes = colour_spread(table).axes
    drawn = [line(ax, "debiased").get_ydata()[0] for ax in axes]
    assert (drawn[2], drawn[4]) == (-0.5, 0.9) and np.allclose(
        drawn[:2] + drawn[3:4] + drawn[5:], [0.31, 0.31, 0.49, 0.49]
    )


def test_one_seed_without_errors_has_no_band(table):
    one = table[table.seed == 0].assign(se=None)
    for figure in (colour_by_steps(one), colour_spread(one)):
        assert not any(ax.collections for ax in figure.axes)
        assert "real images" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_energy_below_zero_is_drawn_on_a_linear_axis(table, real):
    table.loc[(table.metric == "layout_energy") & (table.steps == 50), "value"] = -0.01
    real.loc[real.metric == "layout_energy", "value"] = -0.02
    w1, energy = colour_by_steps(table, real).axes
    assert (w1.get_yscale(), energy.get_yscale()) == ("log", "linear")
    assert set(line(energy, "real images").get_ydata()) == {-0.02}


def test_a_real_energy_below_zero_is_left_out_of_a_logarithmic_axis(table, real):
    real.loc[real.metric == "layout_energy", "value"] = -0.02
    energy = colour_by_steps(table, real).axes[1]
    assert [one.get_label() for one in energy.get_lines()] == ["constant", "debiased"]


def test_what_was_not_measured_is_said(table):
    others = table.assign(metric="fd_pooled")
    for draw in (colour_by_steps, colour_spread):
        assert draw(others).axes[0].texts[0].get_text().startswith("Not measured in this experiment")
    assert len(colour_by_steps(table[table.metric != "colour_w1"]).axes) == 1
    assert len(colour_spread(table[~table.metric.str.startswith("mean")]).axes) == 3
