"""Distances: closed forms, invariances, torch-fidelity end to end, the cache, and what is refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch

from debiaslib.errors import InputError
from debiaslib.metrics import distances as metrics
from debiaslib.metrics.distances import (
    evaluate,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from debiaslib.metrics.features import PooledPixels, load_extractor, reference_features


@pytest.fixture
def pooled():
    return load_extractor("pooled")


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def images_of(count, seed, low=0, high=256, side=8):
    return np.random.default_rng(seed).integers(low, high, (count, 3, side, side), dtype=np.uint8)


def error_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Against torch-fidelity's own calculate_metrics, from images to numbers


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def end_to_end(generated, reference, **options):
    import torch_fidelity
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Pooled(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name, features_list, **unused):
            super().__init__(name, features_list)
            self.network = PooledPixels()

        @staticmethod
        def get_provided_features_list():
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "pooled"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, images):
            return (self.network(images),)

    if "test-pooled" not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("test-pooled", Pooled)
    return torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(reference),
        feature_extractor="test-pooled",
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **options,
    )


@pytest.fixture(scope="module")
def pair():
    """Generated images that are darker and less varied, so that precision and recall differ."""
    return images_of(90, 0, 40, 160), images_of(120, 1)


def test_rows_are_torch_fidelitys(pair, pooled):
    rows = {row["metric"]: row for row in evaluate(*pair, pooled)}
    theirs = end_to_end(*pair, fid=True, prc=True)
    assert rows["fd_pooled"]["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert rows["precision"]["value"] == theirs["precision"]
    assert rows["recall"]["value"] == theirs["recall"]
    assert theirs["precision"] != theirs["recall"]  # else an exchange of the two sets would go unseen


# Frechet distance


def by_matrix_square_root(a, b):
    """The formula as published, through scipy's Schur method; torch-fidelity takes eigenvalues."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(first @ second).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 20), (150, 400, 64), (65, 65, 64)])
def test_frechet_distance_by_matrix_square_root(n, m, d):
    mixing = normal(d, d, 5) / math.sqrt(d)
    a, b = normal(n, d) @ mixing, (normal(m, d, 1) * 1.2 + 0.1) @ mixing
    assert frechet_distance(a, b) == pytest.approx(by_matrix_square_root(a, b), rel=1e-6)


# Kernel distance


def brute_force(x, y):
    def kernel(a, b):
        return (math.fsum(float(u) * float(v) for u, v in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z):
        count = len(z)
        total = math.fsum(kernel(z[i], z[j]) for i in range(count) for j in range(count) if i != j)
        return total / (count * (count - 1))

    return within(x) + within(y) - 2 * math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


@pytest.mark.parametrize(("n", "m", "size", "pairs"), [(40, 40, 20, 1), (41, 123, 20, 3), (60, 25, 12, 2)])
def test_kernel_distance_by_brute_force(n, m, size, pairs):
    x, y = normal(n, 5), normal(m, 5, 1) * 1.5 + 0.2
    parts = metrics._parts(n, m, 2, 7)
    assert [len(subset) for subset in parts] == [pairs, pairs]
    assert all(len(ours) == len(theirs) == size for subset in parts for ours, theirs in subset)
    estimates = [np.mean([brute_force(x[i], y[j]) for i, j in subset]) for subset in parts]
    value, error = kernel_distance(x, y, subsets=2, seed=7)
    assert value == pytest.approx(np.mean(estimates), rel=1e-12)
    assert error == pytest.approx(abs(estimates[0] - estimates[1]) / 2, rel=1e-9)


def test_kernel_distance_of_equal_distributions_is_zero_within_its_error():
    scores = []
    for seed in range(30):
        value, error = kernel_distance(normal(200, 6, 2 * seed), normal(600, 6, 2 * seed + 1))
        scores.append(value / error)
    # Student's t with 9 degrees of freedom: standard deviation 1.13; unbiased: mean 0 within 4 standard errors.
    assert abs(np.mean(scores)) < 4 * 1.13 / math.sqrt(30)
    assert 0.7 < np.std(scores) < 1.8


# Precision and recall


def test_precision_and_recall_are_not_exchanged():
    reference = np.concatenate([normal(100, 2), normal(100, 2, 1) + 50])
    generated = normal(100, 2, 2)  # one mode of two, all of it plausible
    precision, recall = precision_recall(generated, reference)
    assert precision > 0.85
    assert recall < 0.55
    assert precision_recall(generated + 1000, reference) == (0, 0)


def test_precision_recall_by_brute_force():
    generated, reference = normal(30, 3), normal(40, 3, 1) * 1.5

    def share(points, manifold, k):
        own = np.linalg.norm(manifold[:, None] - manifold, axis=-1)
        radius = np.sort(own, axis=1)[:, k]
        inside = (np.linalg.norm(points[:, None] - manifold, axis=-1) <= radius).any(1)
        return np.float32(inside.mean())  # as torch-fidelity rounds it

    for k in (1, 3, 29):
        expected = share(generated, reference, k), share(reference, generated, k)
        assert precision_recall(generated, reference, neighbors=k) == expected
    assert "must be a whole number >= 1 and < 30" in error_of(precision_recall, generated, reference, neighbors=30)


# Inception score


def test_inception_score():
    classes = np.arange(200) % 5
    certain = 100.0 * np.eye(5)[classes]
    assert inception_score(np.zeros((200, 5))) == pytest.approx((1, 0), abs=1e-12)
    value, error = inception_score(certain)
    assert 4.3 < value < 5  # parts of 20: not all classes are equally many
    assert 0 < error < 0.2
    logits = normal(60, 4)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.random.RandomState(metrics.SEED).permutation(60)
    scores = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in np.split(p[order], 3)]
    expected = np.mean(scores), np.std(scores, ddof=1) / math.sqrt(3)
    assert inception_score(logits, splits=3) == pytest.approx(expected, rel=1e-10)
    assert "20 images" in error_of(inception_score, logits[:19])


# What is refused


def test_too_few_images_and_bad_options():
    few, more = normal(19, 3), normal(40, 3)
    assert "N is 19" in error_of(kernel_distance, few, more)
    assert "subsets" in error_of(kernel_distance, more, more, subsets=1)
    assert "neighbors" in error_of(precision_recall, more, more, neighbors=0)


# Rows


def test_rows(pooled):
    generated, reference = images_of(60, 0), images_of(70, 1)
    rows = evaluate(generated, reference, pooled)
    assert [row["metric"] for row in rows] == ["fd_pooled", "kid_pooled", "precision", "recall"]
    keys = ["metric", "value", "se", "features", "n", "n_reference"]
    keys += ["library", "version", "extractor", "weights_sha256", "dtype", "batch"]
    for row in rows:
        assert list(row) == keys
        assert (row["n"], row["n_reference"], row["features"], row["dtype"]) == (60, 70, "pooled", "float64")
        assert (row["library"], row["batch"]) == ("torch-fidelity", 64)
        assert isinstance(row["value"], float)
        assert (row["se"] is None) == (row["metric"] != "kid_pooled")


def test_rows_with_logits(pooled):
    class WithLogits:
        name, dimension, dtype, weights_sha256 = "inception", 48, "float32", "0" * 64
        distance, kernel, rule, device = "fid", "kid", "stand-in", "cpu"

        def features(self, images):
            return pooled.features(images)

        def features_and_logits(self, images):
            return pooled.features(images), pooled.features(images)[:, :10].astype(np.float32)

    rows = evaluate(images_of(60, 0), images_of(70, 1), WithLogits())
    assert [row["metric"] for row in rows] == ["fid", "kid", "precision", "recall", "is"]
    assert rows[-1]["value"] >= 1
    assert rows[-1]["se"] > 0


def test_rows_refuse_what_cannot_be_compared(pooled):
    assert "8x8 and the reference 4x4" in error_of(evaluate, images_of(60, 0), images_of(60, 0, side=4), pooled)
    assert "48 features" in error_of(frechet_distance, normal(100, 48), normal(48, 48))
    assert "N is 48" in error_of(evaluate, images_of(48, 0), images_of(60, 0), pooled)
    assert len(evaluate(images_of(48, 0), images_of(60, 0), pooled, allow_singular=True)) == 4
    grey = images_of(60, 0) / np.float32(2)
    assert "reference images are float32" in error_of(evaluate, images_of(60, 0), grey, pooled)


# The cache of the reference's features


@pytest.fixture
def counted(pooled, tmp_path, monkeypatch):
    """The pooled extractor, with a list of how many images each call was for; the cache is in tmp_path."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path))
    calls = []

    def features(images):
        calls.append(len(images))
        return pooled.features(images)

    fields = {name: getattr(pooled, name) for name in pooled.__dataclass_fields__ if name != "network"}
    generated = pooled.features_and_logits
    return SimpleNamespace(**fields, features=features, features_and_logits=generated, calls=calls)


def test_whatever_changes_them_makes_them_anew(counted):
    images = images_of(30, 0)
    reference_features(images, counted)
    reference_features(images.copy(), counted)
    assert reference_features(images[:20], counted).shape == (20, 48)
    images[29, 2, 7, 7] ^= 255
    reference_features(images, counted)
    for name in ("weights_sha256", "dtype", "rule", "name"):
        setattr(counted, name, "another")
        reference_features(images, counted)
    assert counted.calls == [30, 20, 30, 30, 30, 30, 30]


def test_evaluate_asks_the_cache(counted):
    generated, reference = images_of(60, 0), images_of(70, 1)
    assert evaluate(generated, reference, counted) == evaluate(generated, reference, counted)
    assert counted.calls == [70]
