"""The figures of the signed bias: which rows are drawn, in which units, and what is said when there are none."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib.figures.bias import GREY_LEVEL, bias_or_variance, bias_spectrum, shown_timesteps, signed_bias
from debiaslib.figures.style import look

TWO = ["constant", "debiased"]
TIMES = (100, 500, 700, 999)
BANDS = {0: 1 / 16, 1: 8 / 16, 2: 7 / 16}
SCALE = {"constant": 1.0, "debiased": 0.5, "p2(k=1,gamma=1)": 0.1}
BIAS = {0: 0.5, 1: -0.2, 2: 0.003}  # of each channel


@pytest.fixture
def table():
    """Excess of band b at t: t (b + 1) scale (1 + seed / 10); three quarters common, one quarter between."""
    rows = []
    for t in TIMES:
        for band, weight in [(None, 1.0), *BANDS.items()]:
            power, facts = t * ((band or 0) + 1), {"t": t, "frequency": band, "weight": weight}
            rows.append({**facts, "model": "optimum", "quantity": "x0_mse", "value": power / 100})
            for who, scale in SCALE.items():
                row = {**facts, "model": who}
                for seed in range(3):
                    size = power * scale * (1 + seed / 10)
                    rows.append({**row, "quantity": "excess", "seed": seed, "value": size})
                for name, share in (("excess_common", 0.75), ("excess_between", 0.25)):
                    rows.append({**row, "quantity": name, "value": power * scale * share})
        for who, scale in SCALE.items():
            for seed in range(3):
                for channel, value in BIAS.items():
                    row = {"t": t, "model": who, "seed": seed, "quantity": "excess_bias", "channel": channel}
                    rows.append({**row, "value": value * scale * (1 + seed / 10)})
    table = pd.DataFrame(rows)
    return table.assign(split="train", se=table["value"].abs() * 0.1, n=64)


def line(ax, name):
    (found,) = [one for one in ax.get_lines() if one.get_label() == name]
    return found


def band_at(collection, x):
    vertices = collection.get_paths()[0].vertices
    return np.sort(vertices[vertices[:, 0] == x, 1])[[0, -1]]


def test_common_part_and_variance_of_all_and_of_the_mean_colour(table):
    figure = bias_or_variance(table, TWO)
    names = [f"{who}: {part}" for who in TWO for part in ("common part", "variance")]
    for ax, weight in zip(figure.axes, (1, BANDS[0]), strict=True):
        assert ax.get_yscale() == "log"
        assert [one.get_label() for one in ax.get_lines()] == names
        for who in TWO:
            for part, share in (("common part", 0.75), ("variance", 0.25)):
                drawn = line(ax, f"{who}: {part}")
                assert drawn.get_xdata().tolist() == list(TIMES)
                assert drawn.get_ydata() == pytest.approx([t * SCALE[who] * share * weight for t in TIMES])
                assert drawn.get_color() == look(who).colour
                assert (drawn.get_linestyle() == "-") == (part == "common part")
        assert band_at(ax.collections[0], 100) == pytest.approx(75 * weight * np.array([0.804, 1.196]))


def test_an_estimate_below_zero_has_no_point_and_a_band_ends_a_decade_below(table):
    where = (table.model == "constant") & (table.quantity == "excess_between") & (table.t == 500)
    table.loc[where, "value"] = -1.0
    common = (table.model == "constant") & (table.quantity == "excess_common") & (table.t == 100)
    table.loc[common, "se"] = 1e6
    left = bias_or_variance(table, TWO).axes[0]
    assert line(left, "constant: variance").get_xdata().tolist() == [100, 700, 999]
    assert band_at(left.collections[0], 100)[0] == pytest.approx(7.5)


def test_one_seed_is_said(table):
    one = table[~table.quantity.isin(["excess_common", "excess_between"])]
    assert "One training seed" in bias_or_variance(one, TWO).axes[0].texts[0].get_text()


def test_the_signed_bias_of_three_seeds(table):
    figure = signed_bias(table, TWO)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Red", "Green", "Blue"]
    for ax, value in zip(figure.axes, BIAS.values(), strict=True):
        assert ax.get_yscale() == "symlog"
        assert ax.yaxis.get_transform().linthresh == GREY_LEVEL == pytest.approx(1 / 127.5)
        assert line(ax, "debiased").get_ydata() == pytest.approx([value * 0.55] * 4)
        thin = [one for one in ax.get_lines() if one.get_color() == look("debiased").colour and one.get_linewidth() < 1]
        assert [one.get_ydata()[0] for one in thin] == pytest.approx([value * 0.5 * k for k in (1, 1.1, 1.2)])
        half = stats.t.ppf(0.975, 2) * abs(value) * 0.1 / 3**0.5
        bounds = np.sort([value * 1.1 - half, value * 1.1 + half])
        assert band_at(ax.collections[0], 100) == pytest.approx(bounds)  # constant's, drawn first


def test_the_signed_bias_of_one_seed_has_the_interval_over_images(table):
    one = table[(table.seed == 0) & (table.model == "constant")]
    ax = signed_bias(one, ["constant"]).axes[1]
    assert [drawn.get_label() for drawn in ax.get_lines()[1:]] == ["constant"]
    assert band_at(ax.collections[0], 999) == pytest.approx([-0.2 * 1.196, -0.2 * 0.804])


def test_the_points_of_a_spectrum_add_up_to_the_excess_and_the_floor(table):
    figure = bias_spectrum(table, TWO)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["t = 500", "t = 700", "t = 999"]
    total = sum((band + 1) * weight for band, weight in BANDS.items())
    seeds = stats.gmean([1, 1.1, 1.2])
    for ax, t in zip(figure.axes, (500, 700, 999), strict=True):
        for who in TWO:
            drawn = line(ax, who)
            assert drawn.get_xdata().tolist() == [0, 1, 2]
            assert drawn.get_ydata().sum() == pytest.approx(t * SCALE[who] * seeds * total)
        assert line(ax, r"floor $E\,\mathrm{Var}(x_0|x_t)$").get_ydata().sum() == pytest.approx(t * total / 100)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["0\n(mean colour)", "1", "2+"]


def test_the_shown_timesteps():
    assert shown_timesteps([0, 10, 500, 600, 700, 800, 900, 950, 999]) == [500, 700, 900, 999]
    assert shown_timesteps([0, 100, 500, 999]) == [500, 999]
    assert shown_timesteps([7]) == [7]


def test_what_was_not_measured_is_said(table):
    optimum = table[table.model == "optimum"]
    for draw in (signed_bias, bias_spectrum):
        assert draw(optimum, TWO).axes[0].texts[0].get_text().startswith("Not measured in this experiment")
