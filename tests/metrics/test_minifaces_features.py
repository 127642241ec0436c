"""The shipped MiniFaces features: readable scale, known factors inside, and a distance that grows with every defect."""

import numpy as np
import pytest
import torch

from debiaslib.data.minifaces import render
from debiaslib.errors import InputError
from debiaslib.metrics import minifaces_features
from debiaslib.metrics.minifaces_features import (
    MiniFacesFeatures,
    factor_r2,
    feature_hash,
    load_features,
    train_features,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    return load_features()


@pytest.fixture(scope="module")
def real(network):
    return features(network, render(range(1536)))


def features(network, images):
    return torch.cat([network(part) for part in torch.from_numpy(images).split(512)]).double().numpy()


def frechet(a, b):
    covariances = np.cov(a.T), np.cov(b.T)
    cross = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return mean + np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(cross).sum()


@pytest.mark.parametrize("resolution", [8, 16, 32, 50])
def test_shape_and_type(network, resolution):
    output = network(torch.from_numpy(render(range(3), resolution)))
    assert output.shape == (3, 64)
    assert output.dtype == torch.float32
    assert not output.requires_grad


def test_an_image_does_not_depend_on_its_batch(network, real):
    images = torch.from_numpy(render(range(40)))
    alone = torch.cat([network(image[None]) for image in images])
    assert np.abs(alone.numpy() - real[:40]).max() < 1e-4
    assert torch.equal(network(images), network(images))


def test_features_have_mean_0_and_deviation_1(real):
    assert np.abs(real.mean(0)).max() < 0.15
    assert np.abs(real.std(0) - 1).max() < 0.1


def test_features_know_the_factors(network):
    r2 = factor_r2(network, count=1536, held_out=512)
    assert np.median(list(r2.values())) > 0.9
    assert min(r2.values()) > 0.5
    assert min(r2[name] for name in ("background_shade", "background_hue_cos", "background_hue_sin", "skin")) > 0.98


def test_features_see_past_the_resolution(network, real):
    # The same faces drawn at 32x32 differ less than by a brightness of 8 grey levels, which is barely visible.
    finer = features(network, render(range(768), 32))
    assert frechet(finer, real) < 0.5 * frechet(features(network, shifted(render(range(768)), 8)), real)


def shifted(images, levels):
    return np.clip(images.astype(float) + levels, 0, 255).round().astype(np.uint8)


def saturated(images, gain):
    grey = images.mean(1, keepdims=True)
    return np.clip(grey + gain * (images - grey), 0, 255).round().astype(np.uint8)


def noisy(images, sigma):
    return shifted(images, sigma * np.random.default_rng(0).standard_normal(images.shape))


def blurred(images, share):
    padded = np.pad(images.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :, :-2] / 4 + padded[:, :, 1:-1] / 2 + padded[:, :, 2:] / 4
    soft = rows[..., :-2] / 4 + rows[..., 1:-1] / 2 + rows[..., 2:] / 4
    return (images + share * (soft - images)).round().astype(np.uint8)


def exchanged(images, columns):
    """The left columns of every image come from the next one."""
    images = images.copy()
    images[..., :columns] = np.roll(images, 1, axis=0)[..., :columns]
    return images


DEFECTS = [
    (shifted, (4, 8, 16)),
    (shifted, (-4, -8, -16)),
    (saturated, (1.1, 1.25, 1.5)),
    (saturated, (0.9, 0.75, 0.5)),
    (noisy, (5, 10, 20)),
    (blurred, (0.15, 0.4, 1.0)),
    (exchanged, (2, 4, 8)),
]


@pytest.mark.parametrize("defect, strengths", DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_distance_grows_with_the_defect(network, real, defect, strengths):
    clean = render(range(384), seed=1)
    distances = [frechet(features(network, images), real) for images in (clean, *(defect(clean, s) for s in strengths))]
    assert distances == sorted(distances)
    assert distances[-1] > 3 * distances[0]


def test_training_is_deterministic_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (train_features(256, seed=3, report=lambda line: None).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_loading_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    load_features()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_command_writes_a_file_that_loads(tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    minifaces_features.main(["--out", str(path), "--images", "256"])
    assert feature_hash(path) in capsys.readouterr().out
    assert isinstance(load_features(path), MiniFacesFeatures)
    assert list(tmp_path.iterdir()) == [path]


def test_shipped_file_is_the_recorded_one_and_small():
    assert feature_hash() == minifaces_features.SHA256
    assert minifaces_features.WEIGHTS.stat().st_size < 400_000


def one_line(call, match):
    with pytest.raises(InputError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_missing_altered_and_foreign_files_are_one_line(tmp_path, monkeypatch):
    one_line(lambda: load_features(tmp_path / "none.safetensors"), "missing")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not weights at all")
    one_line(lambda: load_features(foreign), "are not those of")
    altered = tmp_path / "altered.safetensors"
    altered.write_bytes(minifaces_features.WEIGHTS.read_bytes()[:-1] + b"\x00")
    monkeypatch.setattr(minifaces_features, "WEIGHTS", altered)
    one_line(load_features, "altered")
    one_line(feature_hash, "altered")


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 16, 16), torch.zeros(3, 16, 16, dtype=torch.uint8), torch.zeros(2, 3, 8, 16, dtype=torch.uint8)],
)
def test_other_images_are_one_line(network, images):
    one_line(lambda: network(images), "images are")


def test_bad_numbers_are_one_line(capsys):
    one_line(lambda: train_features(0), "images")
    one_line(lambda: train_features(256, seed=-1), "seed")
    with pytest.raises(SystemExit) as ended:
        minifaces_features.main(["--out", "unused", "--images", "1"])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "images is 1" in message and message.count("\n") == 1
