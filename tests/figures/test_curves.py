"""The looks that are fixed for every figure, and the statistics that the bands show."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib.diffusion.strategies import KNOWN
from debiaslib.errors import InputError
from debiaslib.figures import curves as plotting
from debiaslib.figures import distances as distance_plots
from debiaslib.figures import grids as image_grids
from debiaslib.figures import style as figure_style

MODULES = "plotting, bias_plots, colour_plots, control_plots, distance_plots, image_grids, weight_plots, figures"


def test_every_weighting_has_its_own_colour_marker_and_dashes():
    looks = [figure_style.look(name) for name in [*KNOWN, "optimum", "initial"]]
    for field in ("colour", "marker"):
        assert len({getattr(look, field) for look in looks}) == len(looks), field
    dashes = [str(figure_style.look(name).dashes) for name in KNOWN]
    assert len(set(dashes)) == len(KNOWN)


def test_variants_share_the_marker_but_not_shade_dashes_or_face():
    usual, low, high = (figure_style.look(f"min_snr(gamma={gamma})") for gamma in (5, 1, 20))
    assert figure_style.look("min_snr") == usual
    assert usual.marker == low.marker == high.marker
    assert len({usual.colour, low.colour, high.colour}) == len({str(x.dashes) for x in (usual, low, high)}) == 3
    assert (usual.hollow, low.hollow, high.hollow) == (False, True, True)


def test_order_and_labels_do_not_depend_on_what_else_is_there():
    assert figure_style.ordered(["optimum", "p2", "debiased", "p2"]) == ["debiased", "p2", "optimum"]
    assert figure_style.label("min_snr(gamma=1)") == "Min-SNR-1"
    assert figure_style.label("real") == "real images"
    with pytest.raises(InputError, match="did you mean 'debiased'"):
        figure_style.look("debaised")


def test_an_argument_below_zero_is_a_variant_like_any_other():
    usual, low, high, opposite = (figure_style.look(f"sigmoid(bias={bias})") for bias in (-1, -3, 0, 1))
    assert not usual.hollow and low.hollow and high.hollow and opposite.hollow
    assert len({usual.colour, low.colour, high.colour}) == 3


@pytest.mark.parametrize("kept", [["constant", "debiased"], ["debiased"], ["debiased", "max_snr", "constant"]])
def test_a_missing_weighting_shifts_no_colour(kept):
    rows = [{"split": "train", "seed": 0, "model": who, "t": t, "quantity": "x0_mse", "mean": 1.0 + t, "se": 0.1,
             "difference": float(who != kept[0]), "difference_se": 0.1} for who in kept for t in (0, 500)]  # fmt: skip
    figure = plotting.mse(pd.DataFrame(rows), "x0_mse")
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert drawn["debiased"].get_color() == "#0072B2"
    assert drawn["debiased"].get_marker() == "s"
    assert len(figure.axes) == (2 if len(kept) > 1 else 1)


def test_band_over_seeds_is_the_t_interval_and_one_seed_falls_back_to_the_standard_error():
    table = pd.DataFrame({"x": [1, 1, 1, 2], "value": [2.0, 3.0, 7.0, 5.0], "se": [9.0, 9.0, 9.0, 0.5]})
    found = plotting.summarise(table, ["x"]).set_index("x")
    low, high = stats.t.interval(0.95, 2, 4.0, stats.sem([2.0, 3.0, 7.0]))
    np.testing.assert_allclose(found.loc[1, ["mean", "low", "high"]].astype(float), [4.0, low, high])
    np.testing.assert_allclose(found.loc[2, ["mean", "low", "high"]].astype(float), [5.0, 5 - 0.98, 5 + 0.98])
    logs = plotting.summarise(table, ["x"], log=True).set_index("x")
    assert logs.loc[1, "mean"] == pytest.approx(42 ** (1 / 3))
    assert (logs.low > 0).all()
    bare = plotting.summarise(table[table.x == 2].drop(columns="se"), ["x"])
    assert bare.low.isna().all()


def test_images_are_tiled_exactly_and_floats_are_clipped():
    image = np.zeros((3, 2, 2), np.float32)
    image[0] = 5.0
    canvas, xs, ys, side = image_grids._tile([image_grids.Row([image, None]), image_grids.Row([-image, image])])
    assert side == 96 and canvas.shape == (196, 196, 3)
    assert canvas[0, 0].tolist() == [255, 128, 128]
    assert canvas[100, 0].tolist() == [0, 128, 128]
    assert (canvas[:96, 100:] == 255).all()
    large = np.full((3, 512, 512), 7, np.uint8)
    assert image_grids._tile([image_grids.Row([large])])[0].shape == (256, 256, 3)


def test_style_is_left_behind_nowhere(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)
    before = dict(matplotlib.rcParams)
    figure = plotting.weight_share(_weights())
    assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].get_lines()[0].get_linewidth() != 7.0


def test_a_distance_below_zero_is_drawn_on_a_linear_axis():
    table = pd.DataFrame({"weighting": "debiased", "seed": 0, "steps": [5, 10], "images_seen": 64, "metric": "kid",
                          "features": "inception", "value": [0.01, -0.001], "se": [0.001, 0.001]})  # fmt: skip
    assert distance_plots.distance_by_steps(table).axes[0].get_yscale() == "linear"
    assert not distance_plots.precision_recall(table).axes[0].lines


def test_precision_of_two_feature_networks_is_never_mixed():
    table = pd.DataFrame({"weighting": "debiased", "seed": 0, "steps": [5, 5], "images_seen": 64, "metric": "precision",
                          "features": ["minifaces", "pooled"], "value": [0.2, 0.8], "se": None})  # fmt: skip
    axes = distance_plots.precision_recall(table).axes
    assert [ax.get_lines()[0].get_ydata()[0] for ax in axes] == [0.2, 0.8]


def test_a_notebook_shows_a_figure_that_is_a_cells_value():
    picture, size = figure_style.note("hello")._repr_png_()
    assert picture.startswith(b"\x89PNG") and size == {"width": 900, "height": 120}
    assert image_grids.image_grid([image_grids.Row([np.zeros((3, 8, 8))])], ["a"])._repr_png_()


def test_no_torch_and_no_open_pyplot_figure():
    code = f"""if True:
        import json, sys
        from debiaslib import {MODULES}
        from matplotlib import pyplot
        figures.note("hello")
        print(json.dumps(["torch" in sys.modules, pyplot.get_fignums()]))"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [False, []]


def _weights():
    t = np.arange(100)
    return pd.DataFrame({"t": t, "weighting": "debiased", "prediction_type": "epsilon", "share": t / 99})
