"""The exact optima against brute force: a posterior mean summed image by image, and a dense linear solve."""

import numpy as np
import pytest
import torch

from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError

SCHEDULE = Schedule.linear()
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def faces(count, seed=0, shape=(3, 4, 4)):
    """uint8 images about two centres, so that near and far ones are in one posterior."""
    random = np.random.default_rng(seed)
    centre = random.integers(60, 200, (2, *shape))[random.integers(0, 2, count)]
    return (centre + random.integers(-40, 41, (count, *shape))).astype(np.uint8)


def noised(images, t, seed=1):
    """x_t of some images at their own t, float64."""
    x0 = torch.from_numpy(np.array(images)).double() / 127.5 - 1
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(x0.shape))
    return SCHEDULE.add_noise(x0, noise, t)


def brute_force(images, x_t, t):
    """sum_i p_i x_i, p_i ~ exp(-|x_t - a x_i|^2 / (2 s^2)), in float64, one query at a time."""
    x = images.reshape(len(images), -1) / 127.5 - 1.0
    answers = []
    for query, step in zip(x_t.double().flatten(1).numpy(), np.broadcast_to(t, len(x_t)), strict=True):
        ab = ALPHA_BAR[step]
        exponent = -((query - np.sqrt(ab) * x) ** 2).sum(axis=1) / (2 * (1 - ab))
        p = np.exp(exponent - exponent.max())
        answers.append((p / p.sum()) @ x)
    return torch.from_numpy(np.array(answers)).view(x_t.shape)


@pytest.mark.parametrize("t, chunk", [(0, 1), (100, 7), (400, 64), (700, 10_000), (900, 7), (999, 1)])
def test_the_posterior_mean_by_brute_force_whatever_the_chunk(t, chunk):
    images = faces(64)
    x_t = noised(images[:9], t)
    assert (OptimalDenoiser(images, SCHEDULE, chunk)(x_t, t) - brute_force(images, x_t, t)).abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["uint8 tensor", "float array", "float tensor", "mapped"])
def test_images_of_every_kind(kind, tmp_path):
    images = faces(64)
    given, x_t = torch.from_numpy(images), noised(images[:9], 600)
    if kind.startswith("float"):
        given = given.double() / 127.5 - 1
    if kind == "mapped":
        np.save(tmp_path / "images.npy", images)
        given = np.load(tmp_path / "images.npy", mmap_mode="r")
    answer = OptimalDenoiser(given.numpy() if kind == "float array" else given, SCHEDULE, 10)(x_t, 600)
    assert (answer - brute_force(images, x_t, 600)).abs().max() < 1e-10


def test_given_the_class_it_is_the_optimum_over_the_images_of_that_class():
    images, labels = faces(64), np.arange(64) % 3
    x_t, classes, t = noised(images[:9], 600), torch.tensor([0, 1, 2, 2, 1, 0, 0, 0, 2]), torch.arange(596, 605)
    denoiser = OptimalDenoiser(images, SCHEDULE, chunk=5, labels=labels)
    for times in (600, t):
        answer = denoiser(x_t, times, classes)
        for i, label in enumerate(classes):
            step = np.broadcast_to(times, 9)[i]
            wanted = brute_force(images[labels == int(label)], x_t[i : i + 1], step)
            assert (answer[i : i + 1] - wanted).abs().max() < 1e-10
    with pytest.raises(InputError, match="none of the 64 images is of class 3"):
        denoiser(x_t, 600, classes + 1)
    with pytest.raises(InputError, match="labels has 9 entries"):
        OptimalDenoiser(images, SCHEDULE, labels=classes)


def test_a_timestep_for_each_image():
    images, t = faces(64), torch.tensor([0, 999, 3, 500, 700, 650, 800, 20, 900])
    x_t = noised(images[:9], t)
    answer = OptimalDenoiser(images, SCHEDULE)(x_t, t)
    assert (answer - brute_force(images, x_t, t.numpy())).abs().max() < 1e-10
    assert torch.allclose(answer[3:4], OptimalDenoiser(images, SCHEDULE)(x_t[3:4], 500), rtol=0, atol=1e-12)


def test_with_little_noise_it_returns_the_image_itself():
    images = faces(64)
    x0 = torch.from_numpy(images).double() / 127.5 - 1
    assert (OptimalDenoiser(images, SCHEDULE)(noised(images, 0), 0) - x0).abs().max() < 1e-12


def test_without_signal_it_returns_the_mean():
    images = faces(64)
    mean = torch.from_numpy(images / 127.5 - 1).mean(dim=0)
    flat = SCHEDULE.rescale_zero_terminal_snr()
    x = 3 * torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (OptimalDenoiser(images, flat, 10)(x, 999) - mean).abs().max() < 1e-12
    near = OptimalDenoiser(images, SCHEDULE)(noised(images, 999), 999) - mean
    assert 0 < near.abs().max() < 0.03  # a = 0.0064 is left of the signal


def test_the_default_chunk_bounds_the_memory_whatever_the_size_of_the_images():
    for shape, chunk in (((3, 16, 16), 5461), ((3, 256, 256), 21)):
        assert OptimalDenoiser(np.zeros((2, *shape), np.uint8), SCHEDULE).chunk == chunk  # 32 MiB in float64


# A Gaussian


def gaussian(dimension, rank=None, seed=3):
    random = np.random.default_rng(seed)
    root = random.standard_normal((dimension, rank or dimension)) / 3
    return random.uniform(-0.5, 0.5, dimension), root @ root.T


@pytest.mark.parametrize("rank", [12, 4])
def test_a_gaussian_by_a_dense_solve_at_every_t(rank):
    mean, covariance = gaussian(12, rank)
    x = np.random.default_rng(4).standard_normal((6, 12))
    x_t, denoiser = torch.from_numpy(x).view(6, 3, 2, 2), GaussianDenoiser(mean, covariance, SCHEDULE)
    for t, ab in enumerate(ALPHA_BAR):
        solved = np.linalg.solve(ab * covariance + (1 - ab) * np.eye(12), (x - np.sqrt(ab) * mean).T)
        expected = mean + np.sqrt(ab) * (covariance @ solved).T
        answer = denoiser(x_t, t)
        assert answer.shape == x_t.shape and np.abs(answer.flatten(1).numpy() - expected).max() < 1e-9


COUNTS = [125, 500, 2000, 8000]


def gap_over_draws(t, dimension=12, repetitions=12):
    """Root mean square of (empirical optimum - Gaussian's) by the number of draws, over sets and queries of their own.

    The queries are of new images: one of the set's own would be found again at low t.
    """
    mean, covariance = gaussian(dimension)
    exact, squares = GaussianDenoiser(mean, covariance, SCHEDULE), []
    for repetition in range(repetitions):
        random = np.random.default_rng([5, repetition])
        draws = random.multivariate_normal(mean, covariance, COUNTS[-1] + 50).reshape(-1, 3, 2, 2)
        noise = torch.from_numpy(random.standard_normal((50, 3, 2, 2)))
        x_t = SCHEDULE.add_noise(torch.from_numpy(draws[-50:]), noise, t)
        answers = [OptimalDenoiser(draws[:count], SCHEDULE)(x_t, t) for count in COUNTS]
        squares.append([(answer - exact(x_t, t)).square().mean().item() for answer in answers])
    return np.sqrt(np.mean(squares, axis=0))


@pytest.mark.parametrize("t", [700, 999])
def test_the_gap_to_the_gaussian_shrinks_as_the_root_of_the_number_of_draws(t):
    """At high t, where the empirical optimum is the posterior. The slope's own spread over sets is 0.02."""
    gaps = gap_over_draws(t)
    slope = np.polyfit(np.log(COUNTS), np.log(gaps), 1)[0]
    assert abs(slope + 0.5) < 0.06
    if t == 999:  # all draws count alike: the error of their mean
        _, covariance = gaussian(12)
        assert gaps[-1] == pytest.approx((np.trace(covariance) / 12 / COUNTS[-1]) ** 0.5, rel=0.25)


IMAGES = np.zeros((5, 3, 4, 4), np.uint8)


def test_a_covariance_that_float32_has_rounded_is_symmetric():
    axes, _ = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(0)))
    covariance = (axes * torch.linspace(0.1, 1, 48)) @ axes.T
    assert not torch.equal(covariance, covariance.T)
    assert len(GaussianDenoiser(torch.zeros(48), covariance, SCHEDULE).variances) == 48
    with pytest.raises(InputError, match="symmetric"):
        GaussianDenoiser([0.0, 0.0], [[1e-6, 0], [9e-9, 1e-6]], SCHEDULE)


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda: OptimalDenoiser(IMAGES[0], SCHEDULE), r"images have shape \(3, 4, 4\); it must be \(N, C, "),
        (lambda: OptimalDenoiser(IMAGES[:0], SCHEDULE), r"images have shape \(0, 3, 4, 4\)"),
        (lambda: OptimalDenoiser([1], SCHEDULE), "images are a list; they must be an array or a tensor"),
        (lambda: OptimalDenoiser(IMAGES.astype(int), SCHEDULE), "images are int64; they must be uint8, or floats"),
        (lambda: OptimalDenoiser(IMAGES + 127.5, SCHEDULE), "images reach 127.5; floats must be in"),
        (lambda: OptimalDenoiser(IMAGES, SCHEDULE)(torch.zeros(2, 3, 4, 5), 0), r"x_t has shape .* \(B, 3, 4, 4\)"),
        (lambda: GaussianDenoiser(np.zeros(4), np.zeros((4, 3)), SCHEDULE), "the mean has 4 entries"),
        (lambda: OptimalDenoiser(IMAGES, SCHEDULE)(torch.zeros(2, 3, 4, 4), 0, [1, 2]), "none of the 5 images is of"),
        (lambda: GaussianDenoiser(np.zeros(2), np.diag([1.0, -0.5]), SCHEDULE), "must not be negative"),
        (lambda: GaussianDenoiser(np.zeros(2), [[1, 0], [0.9, 0.4]], SCHEDULE), "it must be symmetric"),
        (lambda: GaussianDenoiser("grey", [[1.0]], SCHEDULE), "mean is 'grey'; it must be a table of real numbers"),
        (lambda: GaussianDenoiser([0.0], [[1.0]], SCHEDULE)(torch.zeros(1, 2), 0), "the law is of 1 numbers"),
    ],
)  # fmt: skip
def test_what_is_refused(call, line):
    with pytest.raises(InputError, match=line):
        call()
