"""The looks that are fixed for every figure, the tiles of images, and the statistics that intervals show."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib.diffusion.strategies import KNOWN
from debiaslib.figures import grids, lines, style
from debiaslib.figures.lines import number_range, preferred, spread


def test_every_weighting_has_its_own_colour_marker_and_dashes():
    looks = [style.look(name) for name in [*KNOWN, "optimum", "initial"]]
    for field in ("colour", "marker"):
        assert len({getattr(look, field) for look in looks}) == len(looks), field
    assert len({str(style.look(name).dashes) for name in KNOWN}) == len(KNOWN)


def test_variants_share_the_marker_but_not_shade_dashes_or_face():
    usual, low, high = (style.look(f"min_snr(gamma={gamma})") for gamma in (5, 1, 20))
    assert style.look("min_snr") == usual
    assert usual.marker == low.marker == high.marker
    assert len({usual.colour, low.colour, high.colour}) == len({str(x.dashes) for x in (usual, low, high)}) == 3
    assert (usual.hollow, low.hollow, high.hollow) == (False, True, True)


def test_type_is_eight_pixels_high_on_a_telephone():
    smallest = min(value for name, value in style._RC.items() if name.endswith("size") and "major" not in name)
    assert smallest / 72 * 390 / style.WIDTH >= 8


def test_an_interval_over_seeds_is_students_and_one_seed_falls_back_to_the_standard_error():
    table = pd.DataFrame({"x": [1, 1, 1, 2], "value": [2.0, 3.0, 7.0, 5.0], "se": [9.0, 9.0, 9.0, 0.5]})
    found = lines.summarise(table, ["x"]).set_index("x")
    low, high = stats.t.interval(0.95, 2, 4.0, stats.sem([2.0, 3.0, 7.0]))
    np.testing.assert_allclose(found.loc[1, ["mean", "low", "high"]].astype(float), [4.0, low, high])
    np.testing.assert_allclose(found.loc[2, ["mean", "low", "high"]].astype(float), [5.0, 5 - 0.98, 5 + 0.98])
    logs = lines.summarise(table, ["x"], scale="log").set_index("x")
    assert logs.loc[1, "mean"] == pytest.approx(42 ** (1 / 3)) and (logs.low > 0).all()
    assert lines.summarise(table[table.x == 2].drop(columns="se"), ["x"]).low.isna().all()


def test_words_of_captions():
    assert preferred(["p2(k=1,gamma=1)", "debiased", "constant"]) == ["constant", "debiased"]
    assert preferred(["p2(k=1,gamma=1)", "edm"]) == ["p2(k=1,gamma=1)", "edm"]
    assert preferred(["p2(k=1,gamma=1)", "edm", "constant"], ("constant", "p2")) == ["constant", "p2(k=1,gamma=1)"]
    assert [number_range(pd.Series(v)) for v in ([500, 500], [500, 1000], [None])] == ["500", "500 to 1,000", "?"]
    table = pd.DataFrame({"model": ["constant", "constant", "debiased"], "seed": [0, 1, 0]})
    assert spread(table, "; alone", "model").endswith("debiased (1)")
    assert spread(table[:2], "; alone", "model") == (
        "mean (geometric on a logarithmic axis) over seeds 0, 1; intervals: 95 % t-intervals over them"
    )
    assert spread(table[2:], "; alone", "model") == "seed 0; alone"


def test_images_stand_in_rows_and_columns_and_floats_are_clipped():
    image = np.zeros((3, 2, 2), np.float32)
    image[0] = 5.0
    figure = grids.image_grid([grids.Row([image, None], "a"), grids.Row([-image, image], "b", gap=True)], ["x", "y"])
    [ax] = figure.axes
    (x, end, bottom, top), *others = [tuple(shown.get_extent()) for shown in ax.images]
    assert end - x == pytest.approx(bottom - top) == pytest.approx(grids._LARGEST)  # a square, and its upper edge is up
    assert others[0][:2] == (x, end) and others[1][0] > end and others[0][3] - bottom > grids._BREAK
    colours = [shown.get_array()[0, 0].tolist() for shown in ax.images]
    assert colours == [[255, 128, 128], [0, 128, 128], [255, 128, 128]]


def test_a_swatch_is_the_mean_colour_before_clipping():
    image = np.full((3, 2, 2), 3.0, np.float32)
    image[:, 0] = -3.0
    shown, swatch = grids.image_grid([grids.Row([image], notes=["3"])], [""]).axes[0].images
    assert swatch.get_array().tolist() == [[[128] * 3]] and set(shown.get_array().ravel()) == {0, 255}
    assert swatch.get_extent()[3] == shown.get_extent()[2]  # below the image


def test_style_is_left_behind_nowhere(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)
    before = dict(matplotlib.rcParams)
    with style.style():
        assert matplotlib.rcParams["lines.linewidth"] != 7.0
    assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_a_figure_that_is_a_cells_value():
    picture, size = style.new_figure(height=1)[0]._repr_png_()
    assert picture.startswith(b"\x89PNG") and size["width"] == 600
