"""MiniFaces: an image is a function of (seed, index, resolution) alone, and its factors follow the documented law."""

import hashlib

import numpy as np
import pytest

from debiaslib.data.minifaces import FACTORS, _cos_turns, factors, render
from debiaslib.errors import InputError

GOLDEN_SHA256 = "bfab90f3ecb924117eddbf7fa0fc93f66cb71e6c30556b5e747b787bdbcc62b0"
# (index, resolution, seed): mean R, G, B in grey levels
GOLDEN_MEANS = {
    (0, 16, 0): (199.64, 172.61, 147.30),
    (1, 16, 0): (161.29, 149.18, 95.16),
    (4095, 16, 0): (174.68, 180.41, 164.98),
    (0, 16, 1): (146.49, 134.27, 124.97),
    (7, 32, 0): (80.29, 55.66, 65.50),
    (7, 64, 0): (80.26, 55.64, 65.47),
    (123456789, 128, 5): (197.67, 154.52, 107.57),
}


@pytest.fixture(scope="module")
def many():
    return render(range(4096))


@pytest.fixture(scope="module")
def law():
    return factors(range(65536))


def test_an_image_does_not_depend_on_its_company(many):
    # 1,024 images of 16x16 make a chunk, so these cross its borders.
    wanted = [4095, 0, 1023, 1024, 1025, 7, 7]
    assert np.array_equal(render(wanted), many[wanted])
    assert np.array_equal(render(range(1000, 1100)), many[1000:1100])
    assert np.array_equal(render(np.array([2077], np.int32))[0], many[2077])
    every = factors(range(100))
    assert all(np.array_equal(value, every[name][[99, 5]]) for name, value in factors([99, 5]).items())


def test_golden_bits():
    # +, -, *, / and sqrt in IEEE arithmetic: the same everywhere. If this fails, every MiniFaces result changes.
    images = np.ascontiguousarray(render(range(64), 16, 0))
    assert hashlib.sha256(images.tobytes()).hexdigest() == GOLDEN_SHA256


def test_golden_means():
    # Should a platform's arithmetic differ in the last bit after all, the pictures are still the same ones.
    for (index, resolution, seed), mean in GOLDEN_MEANS.items():
        assert np.abs(render([index], resolution, seed)[0].mean((1, 2)) - mean).max() < 0.5


def test_no_image_is_shared_between_or_within_seeds(many):
    held_out = render(range(4096), seed=1)
    images = np.concatenate([many, held_out]).reshape(8192, -1)
    assert len(np.unique(images, axis=0)) == 8192


def test_factors_are_uniform_on_their_intervals_and_independent(law):
    assert list(law) == list(FACTORS)
    unit = []
    for name, factor in FACTORS.items():
        assert law[name].dtype == np.float32
        u = (law[name].astype(np.float64) - factor.low) / (factor.high - factor.low)
        assert u.min() >= -1e-6 and u.max() <= 1 + 1e-6
        # Kolmogorov-Smirnov: exceeds 2.2 / sqrt(n) with probability 1e-4.
        assert np.abs(np.sort(u) - (np.arange(u.size) + 0.5) / u.size).max() < 2.2 / u.size**0.5, name
        # Neighbouring indices and seeds are unrelated.
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / u.size**0.5
        unit.append(u)
    correlation = np.corrcoef(unit) - np.eye(len(unit))
    assert np.abs(correlation).max() < 5 / 65536**0.5
    other = factors(range(65536), seed=1)
    assert max(abs(np.corrcoef(law[name], other[name])[0, 1]) for name in FACTORS) < 5 / 65536**0.5


def test_background_has_the_documented_colour(many):
    f = {name: value.astype(np.float64) for name, value in factors(range(4096)).items()}
    reach = f["background_chroma"] * np.minimum(f["background_shade"], 1 - f["background_shade"])
    # Pixel row 0 has its centre at y = 1/32; hair never reaches the two corners.
    slope = f["background_slope"] * (1 / 32 - 0.5)
    for c in range(3):
        level = f["background_shade"] + reach * np.cos(2 * np.pi * (f["background_hue"] - c / 3)) + slope
        for corner in (many[:, c, 0, 0], many[:, c, 0, 15]):
            assert np.abs(corner - np.clip(255 * level, 0, 255)).max() < 0.51


def test_cosine_is_a_cosine():
    turns = np.linspace(-2, 2, 10001, dtype=np.float32)
    assert np.abs(_cos_turns(turns) - np.cos(2 * np.pi * turns.astype(np.float64))).max() < 2e-6


@pytest.mark.parametrize("resolution", [7, 257, 16.0])
def test_resolutions_outside(resolution):
    with pytest.raises(InputError, match="resolution is .*; it must be a whole number >= 8 and <= 256"):
        render([0], resolution)
