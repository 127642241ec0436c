"""Bias against brute force over pairs of images, planted biases, and what the standard errors promise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.diffusion.bias import channel_bias, decompose_seeds, frequency_bands, spectrum
from debiaslib.errors import InputError


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def by_hand(images):
    """{band: coefficients (N, C, K)} with a loop over frequencies; band b holds 2^(b-1) <= |f| < 2^b."""
    height, width = images.shape[2:]
    transform = np.fft.fft2(images) / (height * width) ** 0.5
    bands = {}
    for u in range(height):
        for v in range(width):
            squared = min(u, height - u) ** 2 + min(v, width - v) ** 2
            band = next(b for b in range(20) if squared < 4**b) if squared else 0
            bands.setdefault(band, []).append(transform[:, :, u, v])
    return {band: np.stack(bands[band], axis=2) for band in sorted(bands)}


def pairs_by_hand(coefficients):
    """sum over i != j of Re <d_i, d_j> / (n (n-1)), a mean over coefficients."""
    n = len(coefficients)
    products = [(coefficients[i] * coefficients[j].conj()).real.mean() for i in range(n) for j in range(n) if i != j]
    return np.mean(products)


# Bands


def test_the_bands_of_sixteen_pixels():
    bands = frequency_bands(16, 16)
    assert bands.frequency.tolist() == [0, 1, 2, 4, 8]
    assert (bands.weight * 256).tolist() == [1, 8, 36, 148, 63]


@given(st.integers(4, 20), st.integers(4, 20))
def test_every_coefficient_is_in_one_band_the_one_by_hand(height, width):
    bands, expected = frequency_bands(height, width), by_hand(np.zeros((1, 1, height, width)))
    assert (bands.members > 0).sum(dim=1).eq(1).all() and bands.members.sum(dim=0).sub(1).abs().max() < 1e-12
    assert bands.weight.sum() == pytest.approx(1)
    assert (bands.weight * height * width).round().tolist() == [expected[band].shape[2] for band in expected]


# The mean over images


def test_power_and_bias_by_pairs_of_images():
    images = normal(7, 3, 8, 8) + torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
    found, expected = spectrum(images), by_hand(images.numpy())
    for row, coefficients in zip(range(1, 5), expected.values(), strict=True):
        per_image = (np.abs(coefficients) ** 2).mean(axis=(1, 2))
        assert found.power[row].item() == pytest.approx(per_image.mean())
        assert found.power_se[row].item() == pytest.approx(per_image.std(ddof=1) / 7**0.5)
        assert found.bias2[row].item() == pytest.approx(pairs_by_hand(coefficients), abs=1e-12)
        left_out = [pairs_by_hand(np.delete(coefficients, i, axis=0)) for i in range(7)]
        assert found.bias2_se[row].item() == pytest.approx(
            (6 / 7 * np.square(left_out - np.mean(left_out)).sum()) ** 0.5
        )


def test_parts_do_not_matter(monkeypatch):
    images = normal(9, 3, 4, 4)
    whole = spectrum(images)
    monkeypatch.setattr("debiaslib.diffusion.bias._CHUNK_NUMBERS", 100)
    for one, other in zip(vars(whole).values(), vars(spectrum(images)).values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("planted", [0.0, 1.0])
def test_without_bias_it_is_zero_and_with_one_its_square(planted):
    """The jackknife's standard error is right where there is a bias and sqrt(2) too large where there is none."""
    wave = torch.cos(2 * torch.pi * torch.arange(8, dtype=torch.float64) * 3 / 8)  # band 2, power 1/2
    found = [spectrum(normal(40, 3, 8, 8, seed=seed) + planted * wave) for seed in range(150)]
    values, errors = (torch.stack([getattr(one, name) for one in found]) for name in ("bias2", "bias2_se"))
    expected = torch.zeros(5, dtype=torch.float64)
    expected[0] = planted**2 / 2
    expected[3] = expected[0] / frequency_bands(8, 8).weight[2]
    spread = values.std(dim=0)
    assert ((values.mean(dim=0) - expected).abs() < 4 * spread / 150**0.5).all()
    ratio = errors.square().mean(dim=0).sqrt() / spread
    for row in range(5):
        right = 1 if planted == 1 and row in (0, 3) else 2**0.5
        if right == 1 or not planted:
            assert abs(ratio[row] / right - 1) < 0.25  # 150 repetitions give the spread to 6 percent
    if not planted:
        assert ((values < 0).double().mean(dim=0) > 0.2).all()  # not clipped at zero


def test_the_bias_of_a_channel():
    images = normal(50, 3, 4, 4) * 0.1 + torch.tensor([0.2, 0.0, -0.3], dtype=torch.float64).view(3, 1, 1)
    value, error = channel_bias(images)
    per_image = images.mean(dim=(2, 3)).numpy()
    assert value.tolist() == pytest.approx(per_image.mean(axis=0)) and value[2] < -0.29
    assert error.tolist() == pytest.approx(per_image.std(axis=0, ddof=1) / 50**0.5)


def test_two_images_have_no_jackknife_and_one_has_nothing():
    found = spectrum(normal(2, 3, 4, 4))
    assert found.bias2.isfinite().all() and found.bias2_se.isnan().all()
    with pytest.raises(InputError, match="difference has 1 images"):
        spectrum(normal(1, 3, 4, 4))


# Over training seeds


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_common_and_between_by_their_definitions(seed, seeds):
    estimates, best = normal(seeds, 4, 3, 4, 4, seed=seed), normal(4, 3, 4, 4, seed=seed + 1)
    found = decompose_seeds(estimates, best)
    mean, variance = estimates.mean(dim=0), estimates.var(dim=0)
    per_image = ((mean - best).square() - variance / seeds).mean(dim=(1, 2, 3))
    assert found.common[0].item() == pytest.approx(per_image.mean().item(), abs=1e-12)
    assert found.common_se[0].item() == pytest.approx(per_image.std().item() / 2)
    assert found.between[0].item() == pytest.approx(variance.mean().item())
    assert found.between_se[0].item() == pytest.approx(variance.mean(dim=(1, 2, 3)).std().item() / 2)
    excess = torch.stack([spectrum(one - best).power for one in estimates]).mean(dim=0)
    assert torch.allclose(found.common + found.between, excess, rtol=1e-10, atol=1e-12)


def test_the_standard_errors_over_seeds_leave_one_seed_out():
    estimates, best = normal(4, 6, 3, 4, 4), normal(6, 3, 4, 4, seed=1)
    found = decompose_seeds(estimates, best)
    reduced = [decompose_seeds(estimates[[i for i in range(4) if i != s]], best) for s in range(4)]
    for name in ("common", "between"):
        rows = torch.stack([getattr(one, name) for one in reduced])
        expected = (3 / 4 * (rows - rows.mean(dim=0)).square().sum(dim=0)).sqrt()
        assert torch.allclose(getattr(found, f"{name}_seed_se"), expected)
    two = decompose_seeds(estimates[:2], best)
    assert two.common_seed_se.isnan().all() and two.common.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 5, 3, 4, 4), (3, 4, 3, 4, 4)])
def test_estimates_of_another_shape(shape):
    with pytest.raises(InputError, match=r"it must be \(S, 5, 3, 4, 4\), S >= 2"):
        decompose_seeds(torch.zeros(shape), torch.zeros(5, 3, 4, 4))
