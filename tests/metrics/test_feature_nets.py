"""The shipped feature networks: recorded files, features of scale 1, distances that grow with every defect."""

import numpy as np
import pytest
import torch

from debiaslib.data.minifaces import render
from debiaslib.errors import InputError
from debiaslib.metrics import feature_nets
from debiaslib.metrics.distances import frechet_distance
from debiaslib.metrics.feature_nets import SHA256, CIFAR10Features, load_network, shipped_weights


@pytest.fixture(scope="module")
def networks():
    return {name: load_network(name)[0] for name in SHA256}


def features(network, images):
    return torch.cat([network(part) for part in torch.from_numpy(images).split(512)]).double().numpy()


@pytest.fixture(scope="module")
def real(networks):
    return features(networks["minifaces"], render(range(1536)))


both = pytest.mark.parametrize("name, dimension, size", [("minifaces", 64, 400_000), ("cifar10", 256, 8_000_000)])


@both
def test_the_shipped_file_is_the_recorded_one_and_small(name, dimension, size):
    assert load_network(name)[1] == SHA256[name]
    assert shipped_weights(name).stat().st_size < size


@both
@pytest.mark.parametrize("resolution", [8, 16, 32, 50])
def test_shape_and_type(networks, name, dimension, size, resolution):
    output = networks[name](torch.from_numpy(render(range(3), resolution)))
    assert output.shape == (3, dimension) and output.dtype == torch.float32 and not output.requires_grad


@both
def test_an_image_does_not_depend_on_its_batch(networks, name, dimension, size):
    images = torch.from_numpy(render(range(12)))
    alone = torch.cat([networks[name](image[None]) for image in images])
    assert (alone - networks[name](images)).abs().max() < 1e-4


@both
def test_loading_leaves_the_generator_alone(name, dimension, size):
    before = torch.random.get_rng_state()
    load_network(name)
    assert torch.equal(torch.random.get_rng_state(), before)


@both
def test_missing_altered_and_foreign_files_are_one_line(tmp_path, monkeypatch, name, dimension, size):
    def one_line(match, path=None):
        with pytest.raises(InputError, match=match) as caught:
            load_network(name, path)
        assert "\n" not in str(caught.value)

    one_line("missing", tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not weights at all")
    one_line("are not those of", foreign)
    one_line("are not those of", shipped_weights("cifar10" if name == "minifaces" else "minifaces"))
    monkeypatch.setattr(feature_nets, "shipped_weights", lambda name: foreign)
    one_line("altered")


def test_pixels_at_other_sizes():
    """Larger images are averaged over areas, smaller ones interpolated between pixel centres at half numbers."""
    network, images = CIFAR10Features(), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(network.pixels(larger), network.pixels(images))
    row = network.pixels(torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8).expand(1, 3, 2, 2))[0, 0, 7]
    ramp = ((torch.arange(32) + 0.5) / 16 - 0.5).clamp(0, 1)
    assert (row - (2 * ramp - 1)).abs().max() < 1e-6
    for tall in (images.repeat_interleave(2, 2), images.repeat_interleave(2, 3)):  # one side alone is larger
        assert torch.equal(network.pixels(tall), network.pixels(images))


def test_features_have_mean_0_and_deviation_1(real):
    assert np.abs(real.mean(0)).max() < 0.15
    assert np.abs(real.std(0) - 1).max() < 0.1


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
    (saturated, (0.9, 0.75, 0.5)),
    (noisy, (5, 10, 20)),
    (blurred, (0.15, 0.4, 1.0)),
    (exchanged, (2, 4, 8)),
]


@pytest.mark.parametrize("defect, strengths", DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_distance_grows_with_the_defect(networks, real, defect, strengths):
    clean = render(range(384), seed=1)
    sets = (clean, *(defect(clean, strength) for strength in strengths))
    distances = [frechet_distance(features(networks["minifaces"], images), real) for images in sets]
    assert distances == sorted(distances)
    assert distances[-1] > 3 * distances[0]


def test_cifar10s_distance_grows_with_noise(networks):
    faces = render(range(40), 32)
    clean = features(networks["cifar10"], faces)
    distances = [frechet_distance(features(networks["cifar10"], noisy(faces, s)), clean, True) for s in (0, 10, 30)]
    assert distances[0] < 1e-3 * distances[1] < 1e-3 * distances[2]
