"""The Gaussian images: drawn the same way everywhere, and of the law that is stated, rounding included."""

import hashlib

import numpy as np
import pytest
import torch

from debiaslib.data.gaussian import CORRELATION, MEAN, SD, gaussian_law, render
from debiaslib.diffusion.optimum import GaussianDenoiser
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError

COUNT = 4096


@pytest.fixture(scope="module")
def images():
    return render(range(COUNT), 16, seed=5)


def test_an_image_is_a_pure_function_of_seed_index_and_resolution(images):
    assert images.shape == (COUNT, 3, 16, 16) and images.dtype == np.uint8
    some = [1500, 3, 3, 0]
    assert np.array_equal(render(some, 16, 5), images[some])
    assert np.array_equal(render(np.array(some), 16, 5), images[some])
    assert render([], 16).shape == (0, 3, 16, 16)
    every = np.concatenate([images[:500], render(range(500), 16, seed=6)]).reshape(1000, -1)
    assert len(np.unique(every, axis=0)) == 1000


def test_the_same_bytes_on_every_machine():
    assert hashlib.sha256(render(range(100)).tobytes()).hexdigest() == GOLDEN[16]
    assert hashlib.sha256(render(range(100), 9, 1).tobytes()).hexdigest() == GOLDEN[9]


GOLDEN = {
    16: "4c05b4e7cb98f23f1dc89b94e4dd1d09dfd795a650d7f8cc4207078a272c9ead",
    9: "983c8ba62fe0508f1eee39ad9baa8e8ae6379115ea9f29e870e21074186234ef",
}


def test_the_colours(images):
    """Standard errors by the independent images; a mean colour varies by the amplitude at f = 1/2."""
    colour = images.mean(axis=(2, 3), dtype=np.float64)
    assert (np.abs(colour.mean(axis=0) - MEAN) < 4 * colour.std(axis=0) / COUNT**0.5).all()
    per_image = ((images - np.array(MEAN)[:, None, None]) ** 2).mean(axis=(2, 3))
    assert (np.abs(per_image.mean(axis=0) - SD**2 - 1 / 12) < 4 * per_image.std(axis=0) / COUNT**0.5).all()
    assert np.corrcoef(colour.T)[np.triu_indices(3, 1)] == pytest.approx([CORRELATION] * 3, abs=0.03)


def test_the_power_is_one_over_the_squared_frequency(images):
    power = (np.abs(np.fft.fft2(images - np.array(MEAN)[:, None, None])) ** 2).mean(axis=1) / 256
    frequency = np.fft.fftfreq(16, 1 / 16)
    squared = frequency[:, None] ** 2 + frequency**2
    squared[0, 0] = 1 / 4
    expected = SD**2 * (256 / squared) / (1 / squared).sum() + 1 / 12
    error = (power.mean(axis=0) - expected) / (power.std(axis=0) / COUNT**0.5)
    assert np.abs(error).max() < 4.5 and 0.8 < error.std() < 1.2


def whitened(images, covariance, count=None):
    """Of variance 1 along the `count` axes of least variance, if the covariance is right."""
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[:count], axes[:, :count]
    return ((images.reshape(len(images), -1) / 127.5 - 1 - gaussian_law(images.shape[-1])[0]) @ axes) / variances**0.5


def test_the_sample_moments_are_those_of_the_law():
    images = render(range(COUNT), 8, 5)
    mean, covariance = gaussian_law(8)
    assert mean.shape == (192,) and covariance.shape == (192, 192) and np.array_equal(covariance, covariance.T)
    white = whitened(images, covariance)
    assert np.abs(white.mean(axis=0)).max() < 4.5 / COUNT**0.5
    gram = white.T @ white / COUNT - np.eye(192)
    of_diagonal, beside = np.diag(gram) / (2 / COUNT) ** 0.5, gram[np.triu_indices(192, 1)] * COUNT**0.5
    assert np.abs(of_diagonal).max() < 4.5 and np.abs(beside).max() < 5.5  # 18,336 pairs
    assert 0.95 < beside.std() < 1.05 and 0.8 < of_diagonal.std() < 1.2
    fourth = (white**4).mean() - 3
    assert abs(fourth) < 4 * (24 / white.size) ** 0.5  # of a Gaussian, 3


def test_the_law_holds_the_noise_of_rounding(images):
    """In the 300 directions in which the images vary least it is half a percent of the variance, and shows."""
    images, (_, covariance) = np.concatenate([images, render(range(COUNT), 16, 6)]), gaussian_law(16)
    without, error = covariance - np.eye(768) / 12 / 127.5**2, (2 / (2 * COUNT * 300)) ** 0.5
    assert abs((whitened(images, covariance, 300) ** 2).mean() - 1) < 2.5 * error
    assert (whitened(images, without, 300) ** 2).mean() - 1 > 2.5 * error


@pytest.mark.parametrize("t", [0, 10, 50, 200, 400, 600, 800, 900, 999])
def test_the_error_of_the_optimum_is_the_closed_form_at_every_t(images, t):
    """E Var(x0 | x_t) = tr(C s^2 (a^2 C + s^2)^-1) / D, for images that no denoiser has seen."""
    schedule, (mean, covariance) = Schedule.linear(), gaussian_law(16)
    x0 = torch.from_numpy(images[:1000] / 127.5 - 1)
    noise = torch.from_numpy(np.random.default_rng(t).standard_normal(x0.shape))
    x0_hat = GaussianDenoiser(mean, covariance, schedule)(schedule.add_noise(x0, noise, t), t)
    errors = (x0_hat - x0).square().mean(dim=(1, 2, 3)).numpy()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t]
    variances = np.linalg.eigvalsh(covariance)
    floor = (variances * (1 - alpha_bar) / (alpha_bar * variances + 1 - alpha_bar)).mean()
    assert abs(errors.mean() - floor) < 4 * errors.std() / 1000**0.5
    assert errors.std() / 1000**0.5 < 0.05 * floor


@pytest.mark.parametrize("call", [render, lambda *_, resolution: gaussian_law(resolution)])
@pytest.mark.parametrize("resolution", [3, 33, 16.0])
def test_resolutions_outside(call, resolution):
    with pytest.raises(
        InputError, match="resolution of Gaussian images is .*; it must be a whole number >= 4 and <= 32"
    ):
        call(range(2), resolution=resolution)
