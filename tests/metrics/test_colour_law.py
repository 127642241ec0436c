"""MiniFaces' law of colours: closed forms against draws of the factors, and rendered faces against the law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from debiaslib.data.minifaces import FACTORS, factors, render
from debiaslib.errors import InputError
from debiaslib.metrics.colour_law import (
    Background,
    background_law,
    background_of,
    evaluate_law,
    impossible,
    kuiper,
    shade_law,
)


def channels(f, height):
    """The documented law, unclipped: float64 (N, 3) in [0, 1]."""
    f = {name: value.astype(np.float64) for name, value in f.items()}
    reach = f["background_chroma"] * np.minimum(f["background_shade"], 1 - f["background_shade"])
    slope = f["background_slope"] * (height - 0.5)
    turns = f["background_hue"][:, None] - np.arange(3) / 3
    return (f["background_shade"] + slope)[:, None] + reach[:, None] * np.cos(2 * np.pi * turns)


def values(images):
    return {row["metric"]: row["value"] for row in evaluate_law(images)}


@pytest.fixture(scope="module")
def faces():
    return render(range(4096))


@pytest.fixture(scope="module")
def many():
    return factors(range(65536), seed=3)


# The law


@pytest.mark.parametrize("height", [0.0, 0.0625, 0.5, 1.0])
def test_closed_forms_are_those_of_the_factors(many, height):
    drawn = channels(many, height)
    mean, sd = background_law(height)
    assert drawn.mean(0) == pytest.approx([mean] * 3, abs=4 * sd / 256)
    assert drawn.std(0) == pytest.approx([sd] * 3, rel=0.01)
    law = shade_law(height)
    # Kolmogorov-Smirnov: exceeds 2.2 / sqrt(N) with probability 1e-4.
    assert stats.ks_1samp(drawn.mean(1), law.cdf).statistic < 2.2 / 256
    assert drawn.mean(1).std() == pytest.approx(law.std(), rel=0.01)


def test_the_shade_is_uniform_at_mid_height():
    at = np.linspace(0, 1, 101)
    assert shade_law(0.5).cdf(at) == pytest.approx(stats.uniform(0.15, 0.7).cdf(at), abs=1e-12)
    assert (shade_law(0).support(), shade_law(1).support()) == (pytest.approx((0.09, 0.91)),) * 2


def test_the_moments_by_quadrature():
    """Means over each factor's interval by the midpoint rule, nothing else taken from the formula."""
    grids = [
        FACTORS[f"background_{name}"].low + (np.arange(n) + 0.5) / n * np.ptp(FACTORS[f"background_{name}"][:2])
        for name, n in (("shade", 200), ("chroma", 40), ("slope", 40), ("hue", 24))
    ]
    shade, chroma, slope, hue = np.meshgrid(*grids, indexing="ij", sparse=True)
    level = shade + chroma * np.minimum(shade, 1 - shade) * np.cos(2 * np.pi * hue) + slope * (0.2 - 0.5)
    assert background_law(0.2) == pytest.approx((level.mean(), level.std()), abs=2e-4)


# The background of an image


@pytest.mark.parametrize("resolution", [8, 9, 16, 17, 23, 32, 64, 128])
def test_the_corners_hold_nothing_but_background(resolution):
    n = 4096 if resolution <= 32 else 512
    images, k = render(range(n), resolution, seed=2), resolution // 8
    f = factors(range(n), seed=2)
    for row in range(k):
        law = np.clip(255 * channels(f, (row + 0.5) / resolution), 0, 255)[:, :, None]
        corners = np.concatenate([images[:, :, row, :k], images[:, :, row, -k:]], -1)
        # Half a level of rounding, and where a sub-pixel is clipped and its neighbour not, a little more.
        assert np.abs(corners - law).max() < 0.51 + 30.6 / resolution


def test_no_face_can_reach_the_corners():
    """The hair's capsule about the head comes nearest with the widest, tallest, leftmost, highest head."""
    low, high = ({name: factor[i] for name, factor in FACTORS.items()} for i in (0, 1))
    width = high["head_size"]
    centre = np.array([low["head_x"], low["head_y"] - width * high["head_length"] + width])
    radius = width + high["hair_volume"]
    nearest = np.linalg.norm(centre - 1 / 8) - radius  # of the corner's inner end, in sides
    assert nearest > 0.5 / 64  # half a sub-pixel of 16x16 is 1/64; the ramp ends there
    random = np.random.default_rng(0)
    drawn = {name: random.uniform(low[name], high[name], 10**5) for name in FACTORS}
    top = drawn["head_y"] - drawn["head_size"] * (drawn["head_length"] - 1)
    distance = np.hypot(drawn["head_x"] - 1 / 8, top - 1 / 8) - drawn["head_size"] - drawn["hair_volume"]
    assert distance.min() > nearest


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_background_gives_back_the_factors(resolution):
    background = background_of(render(range(1000), resolution))
    f, height = factors(range(1000)), background.height
    expected = channels(f, height)
    inside = ((expected > 0.01) & (expected < 0.99)).all(1)
    assert inside.mean() > 0.95
    reach = f["background_chroma"] * np.minimum(f["background_shade"], 1 - f["background_shade"])
    assert height == pytest.approx(1 / 16)
    assert np.abs(background.shade - expected.mean(1))[inside].max() < 0.5 / 255
    assert np.abs(background.amplitude - reach)[inside].max() < 1 / 255
    # An error of half a level in a channel turns the hue by at most 2 / 3 of it over the amplitude, in radians.
    turned = np.abs((background.hue - f["background_hue"] + 0.5) % 1 - 0.5)
    assert (turned * 2 * np.pi * reach)[inside].max() < 2 / 3 * 1 / 255
    assert background.hue.min() >= 0 and background.hue.max() <= 1


def test_pure_hues():
    images = np.zeros((3, 3, 8, 8), np.uint8)
    for c in range(3):
        images[c, c] = 255
    background = background_of(images)
    assert background.hue % 1 == pytest.approx([0, 1 / 3, 2 / 3])
    assert background.shade == pytest.approx([1 / 3] * 3) and background.amplitude == pytest.approx([2 / 3] * 3)


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (2, 3, 8, 16)])
def test_images_of_no_minifaces(shape):
    with pytest.raises(InputError, match="MiniFaces are square, at least 8x8"):
        background_of(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="must be uint8"):
        background_of(np.zeros((2, 3, 8, 8)))


# Impossible colours


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_every_face_is_possible(resolution):
    assert not impossible(background_of(render(range(8192), resolution, seed=4))).any()


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.02))
def test_impossible_by_search(shade, amplitude, height, tolerance):
    slack = 0.12 * abs(height - 0.5) + tolerance
    wide = np.linspace(0.15, 0.85, 20001)
    wide = wide[np.abs(wide - shade) <= slack]
    fits = (amplitude >= 0.15 * np.minimum(wide, 1 - wide) - tolerance) & (
        amplitude <= 0.95 * np.minimum(wide, 1 - wide) + tolerance
    )
    background = Background(np.array([shade]), np.array([amplitude]), np.zeros(1), height)
    if fits.any():
        assert not impossible(background, tolerance)[0]
    else:  # the grid may miss a sliver
        assert impossible(background, max(tolerance - 1e-4, 0))[0] or impossible(background, tolerance)[0]


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((128, 128, 128), True),  # grey: the chroma is at least 0.15
        ((10, 10, 10), True),
        ((250, 245, 250), True),
        ((255, 0, 0), True),  # amplitude 2/3 about 1/3
        ((255, 128, 0), True),  # more colourful than 0.95 of what fits
        ((160, 128, 96), False),
        ((60, 40, 20), False),
    ],
)
def test_impossible_colours(rgb, expected):
    images = np.broadcast_to(np.array(rgb, np.uint8)[:, None, None], (2, 3, 16, 16))
    assert impossible(background_of(images)).all() == impossible(background_of(images)).any() == expected


# Kuiper


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50), st.floats(-3, 3))
def test_kuiper_does_not_depend_on_the_cut(seed, n, turn):
    turns = np.random.default_rng(seed).random(n)
    assert kuiper(turns) == pytest.approx(kuiper(turns + turn), abs=1e-9)
    assert kuiper(turns) == pytest.approx(kuiper(-turns), abs=1e-9)
    assert 1 / n - 1e-12 <= kuiper(turns) <= 1 + 1e-12


def test_kuiper_of_known_sets():
    assert kuiper((np.arange(10) + 0.3) / 10) == pytest.approx(0.1)
    assert kuiper(np.full(7, 0.4)) == pytest.approx(1)
    assert kuiper([0.0, 0.5]) == pytest.approx(0.5)
    u = np.sort(np.random.default_rng(0).random(40))
    brute = max((u <= x).mean() - x for x in u) + max(x - (u < x).mean() for x in u)
    assert kuiper(u) == pytest.approx(brute, rel=1e-12)


def test_kuipers_critical_value():
    draws = np.random.default_rng(1).random((1500, 400))
    exceeding = np.mean([kuiper(one) * 400**0.5 > 1.747 for one in draws])
    assert 0.03 < exceeding < 0.065  # 0.05 in the limit, a little less at N = 400


# Rows


def test_faces_follow_the_law(faces):
    rows = evaluate_law(faces)
    names = ["law_shade_ks", "law_hue_kuiper", "law_impossible", "law_shade_bias", "law_shade_spread"]
    assert [row["metric"] for row in rows] == names
    for row in rows:
        assert (row["features"], row["n"], row["n_reference"], row["library"]) == ("colour", 4096, 0, "scipy")
    ks, hue, never, bias, spread = rows
    # Both exceed this with probability 1e-4.
    assert ks["value"] < 2.23 / 64 and hue["value"] < 2.6 / 64
    assert never["value"] == 0 and 0 < never["se"] < 1e-3
    assert abs(bias["value"]) < 4 * bias["se"] and bias["se"] == pytest.approx(shade_law(1 / 16).std() / 64, rel=0.05)
    assert abs(spread["value"] - 1) < 4 * spread["se"] < 0.05


def test_means_over_draws_are_as_documented():
    sets = [values(render(range(i * 200, (i + 1) * 200), 8, seed=5)) for i in range(60)]
    assert np.mean([one["law_shade_ks"] for one in sets]) == pytest.approx(0.87 / 200**0.5, rel=0.12)
    assert np.mean([one["law_hue_kuiper"] for one in sets]) == pytest.approx(1.24 / 200**0.5, rel=0.12)
    assert np.mean([one["law_shade_ks"] > 1.358 / 200**0.5 for one in sets]) < 0.2


def test_what_departs_from_the_law_is_seen(faces):
    some = faces[:500]
    own, critical = values(some), 1.358 / 500**0.5
    assert own["law_shade_ks"] < critical
    darker = values(np.maximum(some, 30) - np.uint8(30))
    assert darker["law_shade_ks"] > critical and darker["law_shade_bias"] < -0.1 and darker["law_impossible"] > 0.05
    tinted = some.copy()
    tinted[:, 0] = np.minimum(some[:, 0], 205) + np.uint8(50)
    assert values(tinted)["law_hue_kuiper"] > 1.5 * 1.747 / 500**0.5
    flat = (some.astype(np.float64) * 0.5 + 64).round().astype(np.uint8)
    assert values(flat)["law_shade_spread"] == pytest.approx(own["law_shade_spread"] / 2, rel=0.01)
    assert values(flat)["law_shade_ks"] > 2 * critical
    grey = np.broadcast_to(some.mean(1, keepdims=True).round().astype(np.uint8), some.shape)
    assert values(grey)["law_impossible"] == 1
    assert values(grey)["law_shade_ks"] < critical
    with pytest.raises(InputError, match="at least 2"):
        evaluate_law(some[:1])
