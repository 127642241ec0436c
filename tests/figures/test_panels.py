"""What single figures draw: which rows, each weighting once, in which scale, with which interval."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from scipy import stats

from debiaslib.data.minifaces import render
from debiaslib.figures.controls import control_ratios, learning_rates, load_learning_rates
from debiaslib.figures.distances import distance_by_images, dot_panels, load_by_images
from debiaslib.figures.existence import samples_by_steps
from debiaslib.figures.mse_curves import bias_or_variance, error_and_ratio, load_bias
from debiaslib.figures.paper import load_paper, paper_fid
from debiaslib.figures.registry import NothingToDraw
from debiaslib.figures.style import look, style
from debiaslib.figures.swap import load_swap, oracle_swap
from debiaslib.study.saved_tables import Tables
from tests.synthetic_results import write_swap, write_synthetic_results

TWO = ["constant", "debiased"]


@pytest.fixture(autouse=True)
def in_our_style():
    with style():
        yield


def line(ax, name):
    (found,) = [one for one in ax.get_lines() if one.get_label() == name]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic_results(tmp_path_factory.mktemp("results") / "seeds", (0, 1, 2))


@pytest.mark.parametrize("kept", [TWO, ["debiased"], ["debiased", "max_snr", "constant"]])
def test_a_missing_weighting_shifts_no_colour(kept):
    rows = [{"split": "train", "seed": 0, "model": who, "t": t, "quantity": "x0_mse", "mean": 1.0 + t, "se": 0.1,
             "difference": float(who != kept[0]), "difference_se": 0.1} for who in kept for t in (0, 500)]  # fmt: skip
    figure = error_and_ratio(pd.DataFrame(rows))
    drawn = line(figure.axes[0], "debiased")
    assert (drawn.get_color(), drawn.get_marker()) == ("#0072B2", "s")
    assert len(figure.axes) == (2 if len(kept) > 1 else 1)


def test_the_ratio_is_that_of_the_errors_of_x0_to_the_baselines():
    rows = [{"split": "train", "seed": 0, "model": who, "t": t, "quantity": "x0_mse", "mean": mean, "se": 0.1,
             "difference": mean - base, "difference_se": 0.1}
            for t, base, ours in ((0, 2.0, 3.0), (500, 8.0, 2.0))
            for who, mean in (("constant", base), ("debiased", ours))]  # fmt: skip
    above, below = error_and_ratio(pd.DataFrame(rows)).axes
    assert line(above, "debiased").get_ydata() == pytest.approx([3, 2])
    assert line(below, "debiased").get_ydata() == pytest.approx([1.5, 0.25])


def distances(metrics, seeds=(0, 1, 2), steps=(5, 10, 20, 50, 100), **values):
    """value = floor + (3 for constant, 1 for debiased) / steps + seed / 100."""
    return pd.DataFrame(
        {"weighting": who, "seed": seed, "sampler": "ddim", "steps": s, "images_seen": 64, "metric": metric,
         "value": floor + worse / s + seed / 100, "se": None, "features": "colour", "n": 500, "n_reference": 500}
        for who, worse in (("debiased", 1), ("constant", 3))
        for seed in seeds for s in steps for metric, floor in metrics.items()
    )  # fmt: skip


def test_dots_are_means_over_seeds_with_their_intervals_at_a_few_steps():
    real = pd.DataFrame({"metric": ["colour_w1"], "features": "colour", "value": 5.3, "se": 0.1})
    figure = dot_panels(distances({"colour_w1": 5.3, "layout_energy": 0.05}), real)
    w1, energy = figure.axes
    assert w1.get_xscale() == energy.get_xscale() == "log"
    assert [text.get_text() for text in w1.get_yticklabels()] == ["5 steps", "20 steps", "100 steps"]
    for i, (who, worse) in enumerate((("constant", 3), ("debiased", 1))):
        drawn, values = line(w1, who), [np.log(5.3 + worse / s + np.arange(3) / 100) for s in (5, 20, 100)]
        assert drawn.get_xdata() == pytest.approx(np.exp(np.mean(values, axis=1)))
        assert (drawn.get_color(), drawn.get_marker()) == (look(who).colour, look(who).marker)
        ends = np.array(w1.collections[i].get_segments())[:, :, 0]
        assert ends[0] == pytest.approx(np.exp(stats.t.interval(0.95, 2, values[0].mean(), stats.sem(values[0]))))
    assert set(line(w1, "real images").get_xdata()) == {5.3}
    assert "real images" not in [one.get_label() for one in energy.get_lines()]


def test_an_unbiased_distance_below_zero_is_drawn_on_a_linear_axis():
    table = distances({"colour_w1": 5.3, "layout_energy": -0.1})
    real = pd.DataFrame({"metric": ["layout_energy"], "features": "colour", "value": -0.02, "se": None})
    w1, energy = dot_panels(table, real).axes
    assert (w1.get_xscale(), energy.get_xscale()) == ("log", "linear")
    assert set(line(energy, "real images").get_xdata()) == {-0.02}
    real["metric"] = "colour_w1"
    assert "real images" not in [one.get_label() for one in dot_panels(table, real).axes[0].get_lines()]


def test_common_part_and_variance(folder):
    _, table = load_bias(Tables(folder))
    every, colour = bias_or_variance(table).axes
    for ax, frequency in ((every, None), (colour, 0)):
        for quantity, part in (("excess_common", "common part"), ("excess_between", "variance")):
            rows = table[(table.model == "debiased") & (table.quantity == quantity)]
            rows = rows[rows.frequency.isna() if frequency is None else rows.frequency == 0].sort_values("t")
            drawn = line(ax, f"debiased: {part}")
            assert drawn.get_ydata() == pytest.approx((rows["value"] * rows.weight).to_numpy())
            assert (drawn.get_linestyle() == "-") == (part == "common part")
    where = (table.model == "constant") & (table.quantity == "excess_between") & (table.t == 500)
    table.loc[where, "value"] = -1.0  # an unbiased estimate below zero has no point on a logarithmic axis
    assert 500 not in line(bias_or_variance(table).axes[0], "constant: variance").get_xdata()


def test_samples_have_a_real_row_eight_columns_and_a_row_for_each_number_of_steps():
    samples = {
        who: {"steps": np.array([2, 3, 5, 10, 50]), "images": np.zeros((5, 9, 3, 16, 16), np.uint8)} for who in TWO
    }
    figure = samples_by_steps(samples, render(range(9), 16))
    texts = [text.get_text() for text in figure.axes[0].texts]
    rows = [name for who in TWO for name in (f"{who}  3", "5", "10", "50")]
    assert [text for text in texts if text] == ["steps", "real", *rows]
    samples["constant"]["steps"] = np.array([20, 21, 22, 23, 24])
    with pytest.raises(NothingToDraw, match="no number of steps in common"):
        samples_by_steps(samples, render(range(9), 16))


def test_the_ratios_beside_the_papers_are_paired_by_seed(folder):
    facts, table, ratios = load_paper(Tables(folder))
    assert "fd_minifaces" not in facts["ours"] and "MiniFaces features" in facts["ours"]
    rows = ratios[(ratios.weighting == "debiased") & (ratios.steps == 20)]
    saved = [pd.read_csv(folder / f"tables/distances-{who}-s1.csv") for who in ("debiased", "constant")]
    values = [
        one[(one.metric == "fd_minifaces") & (one.steps == 20) & (one.images_seen == 128_000)].value for one in saved
    ]
    assert rows[rows.seed == 1].ratio.item() == pytest.approx(values[0].item() / values[1].item())
    paper, ours = paper_fid(table, ratios).axes[2:]
    assert line(paper, "debiased").get_ydata()[0] == pytest.approx(29.35 / 41.2)
    assert line(ours, "debiased").get_xdata().tolist() == [5, 10, 20, 50, 100]
    assert paper.get_ylim() == ours.get_ylim() and len(paper_fid(table, ratios[:0]).axes) == 3


def test_controls_are_in_words():
    conditions = ["baseline", "lr 0.0005", "each at its best learning rate",
                  "max_grad_norm 1, normalize_weight true", "against constant with prediction_type sample",
                  "learned_variance true", "weights of the last step, no EMA", "something new"]  # fmt: skip
    table = pd.DataFrame({"condition": conditions, "outcome": "colour error, 5 steps", "ratio": 0.5, "low": np.nan,
                          "high": np.nan, "n": 1})  # fmt: skip
    [ax] = control_ratios(table).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[:2] == ["baseline", "rate 0.0005"] and len(names) == len(conditions)
    assert not any("_" in name.replace("$x_0$", "") for name in names)
    dots = [one for one in ax.get_lines() if one.get_marker() == "s"]
    assert len(dots) == 1 and sorted(dots[0].get_ydata()) == list(range(len(conditions)))


@pytest.fixture
def swapped(tmp_path):
    return write_swap(tmp_path)


def test_the_course_of_training_has_the_distance_and_the_shift_of_colours_but_no_kernel_distance(folder):
    _, *arguments = load_by_images(Tables(folder))
    titles = [ax.get_title("left") for ax in distance_by_images(*arguments).axes]
    assert len(titles) == 2 and titles[0].startswith("Fréchet distance") and titles[1].startswith("4x4 layout")


def test_the_oracle_swap_has_a_line_for_each_pair_and_the_interval_over_seeds(swapped):
    facts, table = load_swap(Tables(swapped))
    assert facts["steps"] == 50 and facts["n"] == "500" and "seeds 0, 1" in facts["spread"] and table.value.max() == 3
    figure = oracle_swap(table)
    colour, features = figure.axes
    assert [ax.get_title("left")[:10] for ax in figure.axes] == ["4x4 layout", "Fréchet di"]
    named = [one.get_label() for one in colour.get_lines()]
    assert sorted(named[:6]) == ["constant above, debiased below", "constant above, optimum below",
                                 "debiased above, constant below", "debiased above, optimum below",
                                 "optimum above, constant below", "optimum above, debiased below"]  # fmt: skip
    assert named[6:] == ["constant alone", "debiased alone", "optimum alone"]
    drawn = line(colour, "optimum above, constant below")
    assert drawn.get_xdata().tolist() == [300, 700] and drawn.get_color() == look("constant").colour
    assert drawn.get_ydata() == pytest.approx([6**0.5] * 2) and len(colour.collections) == 6
    crossed = line(colour, "constant above, debiased below")
    assert crossed.get_color() == look("constant").colour
    assert crossed.get_markerfacecolor() == look("debiased").colour
    one = load_swap(Tables(swapped))[1].query("seed == 0")
    assert not any(ax.collections for ax in oracle_swap(one).axes)


def test_the_oracle_swap_at_one_timestep_has_bars_side_by_side(swapped):
    _, table = load_swap(Tables(swapped))
    colour = oracle_swap(table[table.t_star.isin((-1, 300))]).axes[0]
    markers = [one for one in colour.get_lines() if "alone" not in one.get_label()]
    assert len({one.get_xdata()[0] for one in markers}) == 6
    bars = [one for one in colour.collections if isinstance(one, LineCollection)]
    assert len(bars) == 6 and all(len(bar.get_segments()) == 1 for bar in bars)
    assert colour.get_xticks().tolist() == [300]


def test_the_course_of_training_is_by_one_sampler(tmp_path):
    """A second sampler of the last networks is no second seed."""
    folder = write_synthetic_results(tmp_path, (0, 1))
    _, before, _ = load_by_images(Tables(folder))
    for path in (folder / "tables").glob("distances-*-s*.csv"):
        rows = pd.read_csv(path)
        last = rows[rows.images_seen == rows.images_seen.max()].assign(sampler="ddpm", value=100.0)
        pd.concat([rows, last]).to_csv(path, index=False)
    _, after, _ = load_by_images(Tables(folder))
    pd.testing.assert_frame_equal(before.reset_index(drop=True), after.reset_index(drop=True))


def test_an_arm_with_one_rate_has_a_bar(tmp_path):
    rows = [{"weighting": arm, "lr": lr, "outcome": "fd_pooled, 20 steps", "mean": 1.0, "low": 0.5, "high": 2.0, "n": 3}
            for arm, lr in (("constant", 1e-3), ("constant", 2e-3), ("inverse_snr", 2e-3))]  # fmt: skip
    (tmp_path / "tables").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "tables" / "learning_rates.csv", index=False)
    facts, table = load_learning_rates(Tables(tmp_path))
    [ax] = learning_rates(table).axes
    assert facts["weightings"] == "constant, 1/SNR"
    [bar] = [one for one in ax.collections if isinstance(one, LineCollection)]
    assert np.array(bar.get_segments()).tolist() == [[[2e-3, 0.5], [2e-3, 2.0]]]
