"""Colour distances: CIELAB against golden numbers, distances against closed forms, brute force and scipy's."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from debiaslib.data.minifaces import render
from debiaslib.diffusion.sampling import to_uint8
from debiaslib.errors import InputError
from debiaslib.metrics.colour import (
    energy_distance,
    evaluate_colour,
    layout_colours_lab,
    mean_colours_lab,
    to_lab,
    wasserstein,
)
from debiaslib.metrics.distances import evaluate
from debiaslib.metrics.features import load_extractor


def images_of(n, seed=0, low=0, high=256, side=8):
    return np.random.default_rng(seed).integers(low, high, (n, 3, side, side)).astype(np.uint8)


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def value_of(rows):
    return {row["metric"]: row["value"] for row in rows}


# CIELAB


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 0), (97.14, -21.55, 94.48)),
        ((0, 255, 255), (91.11, -48.09, -14.13)),
        ((255, 0, 255), (60.32, 98.23, -60.82)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((128, 128, 128), (53.59, 0, 0)),
        ((1, 1, 1), (0.2742, 0, 0)),  # on the linear pieces of both curves: 903.3 * (1/255) / 12.92
    ],
)
def test_golden_colours(rgb, lab):
    # The published values differ by up to 0.01, with the digits of the matrix and of the white point.
    assert to_lab(np.array(rgb, np.uint8)) == pytest.approx(lab, abs=0.012)
    assert to_lab(np.array(rgb) / 255) == pytest.approx(to_lab(np.array(rgb, np.uint8)), abs=1e-12)


# Images to colours


def test_the_mean_is_of_code_values():
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[:, :, :2] = 255
    assert mean_colours_lab(images) == pytest.approx(to_lab(np.full((1, 3), 0.5)), abs=1e-12)
    # The mean of linear light would be far lighter: Y = 1/2 is L* = 76.07.
    assert mean_colours_lab(images)[0, 0] == pytest.approx(53.39, abs=0.01)


@pytest.mark.parametrize("side", [4, 7, 16])
def test_layout_is_of_the_pooled_features(side):
    images = images_of(5, side=side)
    pooled = load_extractor("pooled").features(images)
    assert layout_colours_lab(images) == pytest.approx(to_lab(pooled.reshape(5, 3, 16).transpose(0, 2, 1)), abs=1e-9)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 3, 4, 4)), np.zeros((3, 4, 4), np.uint8), np.zeros((0, 3, 4, 4), np.uint8)]
)
def test_bad_images_are_refused(images):
    for function in (mean_colours_lab, layout_colours_lab):
        with pytest.raises(InputError, match="must be uint8"):
            function(images)
    with pytest.raises(InputError, match="^reference images are"):
        evaluate_colour(images_of(4), images)
    with pytest.raises(InputError, match="2 and 4 images are compared; each must be 3 at least"):
        evaluate_colour(images_of(2), images_of(4))


# Wasserstein


def test_wasserstein_by_brute_force():
    a, b = normal(6, 3), normal(6, 3, 1)
    distances = np.linalg.norm(a[:, None] - b, axis=-1)
    best = min(distances[range(6), order].mean() for order in itertools.permutations(range(6)))
    assert wasserstein(a, b) == pytest.approx(best, rel=1e-12)


# Energy distance


def test_energy_distance_in_one_dimension_is_scipys():
    # scipy's is the square root, and of all pairs, a point with itself too: n / (n - 1) of the within means apart.
    a, b = normal(60, 1), normal(90, 1, 1) + 0.7
    within = [np.abs(x - x.T).mean() for x in (a, b)]
    biased = energy_distance(a, b)[0] + within[0] / 59 + within[1] / 89
    assert biased == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-12)


def test_energy_distance_by_brute_force():
    a, b = normal(7, 3), normal(5, 3, 1)

    def mean(x, y, same):
        pairs = [
            math.dist(p, q) for (i, p), (j, q) in itertools.product(enumerate(x), enumerate(y)) if not same or i != j
        ]
        return math.fsum(pairs) / len(pairs)

    def brute(x, y):
        return 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)

    value, error = energy_distance(a, b)
    assert value == pytest.approx(brute(a, b), rel=1e-12)
    left = [brute(np.delete(a, i, 0), b) for i in range(7)], [brute(a, np.delete(b, j, 0)) for j in range(5)]
    assert error**2 == pytest.approx(6 * np.var(left[0]) + 4 * np.var(left[1]), rel=1e-9)


def test_energy_distance_of_normals_has_its_closed_form():
    # E|X - X'| of N(0, 1) is 2 / sqrt(pi); of a difference N(m, 2) it is the folded normal's mean.
    m, expected = 1.5, 2 * stats.foldnorm.mean(1.5 / 2**0.5, scale=2**0.5) - 4 / math.pi**0.5
    random = np.random.default_rng(0)
    results = [
        energy_distance(random.standard_normal((150, 1)), random.standard_normal((300, 1)) + m) for _ in range(200)
    ]
    values, errors = np.array(results).T
    assert abs(values.mean() - expected) < 4 * values.std(ddof=1) / 200**0.5
    assert 0.85 < values.std(ddof=1) / errors.mean() < 1.15


# Rows


def test_rows_have_the_keys_of_the_other_metrics():
    images, reference = images_of(60), images_of(70, 1)
    keys = evaluate(images, reference, load_extractor("pooled"))[0]
    rows = evaluate_colour(images, reference)
    assert all(set(row) == set(keys) for row in rows)
    assert len({row["metric"] for row in rows}) == len(rows) == 3
    for row in rows:
        assert (row["features"], row["dtype"], row["weights_sha256"]) == ("colour", "float64", None)
        assert isinstance(row["value"], float) and (row["se"] is None or isinstance(row["se"], float))
    counts = {row["metric"]: (row["n"], row["n_reference"]) for row in rows}
    assert counts["colour_w1"] == (60, 60)
    assert counts["colour_energy"] == counts["layout_energy"] == (60, 70)


def test_a_uniform_shift_is_measured_in_delta_e():
    """All images grey, one level apart: every distance is known in closed form."""
    grey = np.broadcast_to(np.arange(100, 140, dtype=np.uint8)[:, None, None, None], (40, 3, 8, 8))
    lighter = grey + np.uint8(20)
    values = value_of(evaluate_colour(lighter, grey))
    lightness = to_lab(np.stack([np.arange(256, dtype=np.uint8)] * 3, 1))[:, 0]
    moved = lightness[120:160].mean() - lightness[100:140].mean()
    assert values["colour_w1"] == pytest.approx(moved, rel=1e-9)
    # A flat image's layout is its mean colour, 16 times.
    assert values["layout_energy"] == pytest.approx(values["colour_energy"], rel=1e-9) and values["layout_energy"] > 1


def test_images_sorted_by_class_are_taken_from_all_over():
    reference = images_of(1500)
    reference[750:] //= 4  # a dark class, last
    rows = evaluate_colour(reference[np.random.default_rng(0).permutation(1500)[:600]], reference)
    mixed = value_of(rows)["colour_w1"]
    first = wasserstein(mean_colours_lab(reference[::5]), mean_colours_lab(reference[:300]))
    assert mixed < first / 4


# Rounding


@pytest.fixture(scope="module")
def smooth():
    """float32 images (400, 3, 16, 16) in [-1, 1] on no grid of levels: faces brought to a smooth range."""
    faces = torch.from_numpy(render(range(400))).float() / 127.5 - 1
    return faces * 0.7713 + 0.1 * torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)) - 0.05


def test_rounding_to_uint8_fakes_no_shift_and_flooring_does(smooth):
    level = (smooth.double() + 1) * 127.5
    exact = level.mean((2, 3)).numpy()
    rounded, floored = to_uint8(smooth).numpy(), level.floor().to(torch.uint8).numpy()
    assert abs((rounded.mean((2, 3)) - exact).mean()) < 0.02
    assert (floored.mean((2, 3)) - exact).mean() == pytest.approx(-0.5, abs=0.02)
    lab = to_lab(exact / 255)
    faked = np.linalg.norm((mean_colours_lab(rounded) - lab).mean(0))
    by_flooring = np.linalg.norm((mean_colours_lab(floored) - lab).mean(0))
    assert faked < 0.01
    assert 0.15 < by_flooring < 0.3  # half a level of 255, at about 0.4 Delta L* a level
    assert wasserstein(mean_colours_lab(floored), lab) > 10 * wasserstein(mean_colours_lab(rounded), lab)
