"""The looks that are fixed for every figure, the tiles of images, and the statistics that intervals show."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit

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
    below, above, opposite = (style.look(f"sigmoid(bias={bias})") for bias in (-3, 0, 1))
    assert below.hollow and above.hollow and opposite.hollow and below.colour != above.colour


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


def test_an_interval_of_shares_stays_between_zero_and_one():
    table = pd.DataFrame({"x": 1, "value": [0.9, 0.97, 0.999], "se": [None] * 3})
    found = lines.summarise(table, ["x"], scale="logit").iloc[0]
    odds = logit(table["value"])
    low, high = stats.t.interval(0.95, 2, odds.mean(), stats.sem(odds))
    assert [found["mean"], found.low, found.high] == pytest.approx(expit([odds.mean(), low, high]))
    assert 0 < found.low < found.high < 1


def test_words_of_captions():
    assert preferred(["p2(k=1,gamma=1)", "debiased", "constant"]) == ["constant", "debiased"]
    assert preferred(["p2(k=1,gamma=1)", "edm"]) == ["p2(k=1,gamma=1)", "edm"]
    assert preferred(["p2(k=1,gamma=1)", "edm", "constant"], ("constant", "p2")) == ["constant", "p2(k=1,gamma=1)"]
    assert [number_range(pd.Series(v)) for v in ([500, 500], [500, 1000], [None])] == ["500", "500 to 1,000", "?"]
    table = pd.DataFrame({"model": ["constant", "constant", "debiased"], "seed": [0, 1, 0]})
    assert spread(table, "; alone", "model").endswith("debiased (1)")
    assert spread(table[:2], "; alone", "model") == "mean over seeds 0, 1; intervals: 95 % t-intervals over them"
    assert spread(table[2:], "; alone", "model") == "seed 0; alone"


def test_images_are_tiled_exactly_and_floats_are_clipped():
    image = np.zeros((3, 2, 2), np.float32)
    image[0] = 5.0
    rows = [grids.Row([image, None]), grids.Row([-image, image])]
    canvas, *_ = grids._tile(rows, side=grids._side(rows))
    assert canvas.shape == (196, 196, 3)
    assert canvas[0, 0].tolist() == [255, 128, 128] and canvas[100, 0].tolist() == [0, 128, 128]
    assert (canvas[:96, 100:] == 255).all()
    large = [grids.Row([np.full((3, 512, 512), 7, np.uint8)])]
    assert grids._tile(large, side=grids._side(large))[0].shape == (256, 256, 3)


def test_a_swatch_is_the_mean_colour_before_clipping():
    image = np.full((3, 2, 2), 3.0, np.float32)
    image[:, 0] = -3.0
    canvas, _, _, [end] = grids._tile([grids.Row([image], notes=["3"])])
    assert end == 96 + 14 and (canvas[96:110] == 128).all() and {0, 255} == set(canvas[:96].ravel())


def test_style_is_left_behind_nowhere(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)
    before = dict(matplotlib.rcParams)
    with style.style():
        assert matplotlib.rcParams["lines.linewidth"] != 7.0
    assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_a_figure_that_is_a_cells_value():
    picture, size = style.new_figure(height=1)[0]._repr_png_()
    assert picture.startswith(b"\x89PNG") and size["width"] == 600
