"""Class labels from files to samples: every image keeps its own, and data without labels notice nothing."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from pictures import png, write_parquet
from PIL import Image

from debiaslib.data import images as caching
from debiaslib.data.images import load_images
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.study.common import measured_images, optimal_denoiser
from debiaslib.study.experiment import Experiment
from debiaslib.study.measurements import one_step
from debiaslib.study.study import Study
from debiaslib.training.config import TrainConfig
from debiaslib.training.load import load_model
from debiaslib.training.loop import train

CLASSES = 3
NETWORK = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
}
CONDITIONAL = {**NETWORK, "num_class_embeds": CLASSES}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests here, which share a data set."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DEBIASLIB_CACHE", str(folder))
        yield folder / "images"


def picture(label, seed):
    """8x8, of a colour that says the class."""
    colour = np.array([40, 130, 220])[(np.arange(3) + label) % 3]
    noise = np.random.default_rng([label, seed]).integers(-30, 31, (8, 8, 3))
    return (colour + noise).astype(np.uint8)


def folders(root, names, count=4, first=0):
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(label, first + i)).save(root / name / f"{i}.png")
    return root


def parquet(path, labels, column="label"):
    images = [png(picture(max(0, label or 0), i)) for i, label in enumerate(labels)]
    kind = {"_type": "ClassLabel", "names": ["a", "b", "c"]}
    return write_parquet(path, images, labels=labels, label=column, kinds={column: kind})


def message(call, *arguments, **more):
    with pytest.raises(InputError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Where labels come from


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    root = folders(tmp_path / "x", ["ant", "bee", "cat"])
    found = load_images(root, 8, classes=3)
    assert found.labels.dtype == np.int64 and found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all(found.images[i].argmax(0).ravel().tolist().count((2 - k) % 3) > 60 for i, k in enumerate(found.labels))
    assert load_images(root, 8).labels is None


@pytest.mark.parametrize("train, test", [("train", "test"), ("training", "testing"), ("pets2/train", "pets2/val")])
def test_a_class_has_one_number_in_both_splits(tmp_path, train, test):
    folders(tmp_path / "x" / train, ["ant", "bee", "cat"])
    folders(tmp_path / "x" / test, ["cat", "ant"], 2)
    assert load_images(tmp_path / "x", 8, classes=3).labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert load_images(tmp_path / "x", 8, "heldout", classes=3).labels.tolist() == [0, 0, 2, 2]
    folders(tmp_path / "x" / test, ["dog"], 2)
    assert "'dog'" in message(load_images, tmp_path / "x", 8, "heldout", classes=3)


@pytest.mark.parametrize("column", ["label", "labels", "fine_label"])
def test_a_column_of_a_table(tmp_path, column):
    labels = [2, 0, 1, 1, 0]
    parquet(tmp_path / "x/train-00000-of-00002.parquet", labels[:3], column)
    parquet(tmp_path / "x/train-00001-of-00002.parquet", labels[3:], column)
    assert load_images(tmp_path / "x", 8, classes=3).labels.tolist() == labels


def test_labels_come_beside_images_that_stay_as_they_are(tmp_path, cache, monkeypatch):
    root = parquet(tmp_path / "kept.parquet", [2, 0, 1])
    before = load_images(root, 8)
    (pixels,) = cache.glob("kept-*.npy")
    written = pixels.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(caching, "_decode_to", None)  # nothing is decoded again
        found = load_images(root, 8, classes=3)
    assert found.fingerprint == before.fingerprint and found.labels.tolist() == [2, 0, 1]
    wanted = b"int64 3\n" + np.array([2, 0, 1], np.int64).tobytes()  # as run folders hold it
    assert found.labels_fingerprint == hashlib.sha256(wanted).hexdigest()
    assert pixels.stat().st_mtime_ns == written
    assert before.identity == {"data_fingerprint": before.fingerprint}
    assert found.identity == {**before.identity, "labels_fingerprint": found.labels_fingerprint}


# Mistakes


@pytest.mark.parametrize("kind", ["minifaces", "flat", "partly flat", "a text"])
def test_missing_labels_are_one_line(tmp_path, kind):
    root = tmp_path / "x"
    if kind == "minifaces":
        root = "minifaces"
    elif "flat" in kind:
        folders(root, ["a"] if kind == "partly flat" else [""])
        Image.fromarray(picture(0, 9)).save(root / "9.png")
    else:
        root = write_parquet(
            tmp_path / "x.parquet", [png(picture(0, i)) for i in range(2)], labels=["a", "b"], kinds=False
        )
    line = message(load_images, root, 8, classes=10)
    assert "no class labels" in line and "num_class_embeds 10" in line
    assert load_images(root, 8).labels is None  # nothing is missed where none are asked for


@pytest.mark.parametrize("labels, named", [([0, 3, 1], "label 3"), ([0, -1, 1], "label -1"), ([-1, -1], "label -1"),
                                           ([0, None], "lacks the label of 1 images")])  # fmt: skip
def test_labels_out_of_range_are_one_line(tmp_path, labels, named):
    root = parquet(tmp_path / "x.parquet", labels)
    line = message(load_images, root, 8, classes=3)
    assert named in line and (None in labels or "it must be 0 .. 2 for the network's num_class_embeds 3" in line)
    load_images(root, 8, classes=4) if labels == [0, 3, 1] else None
    assert message(load_images, root, 8, classes=3) == line  # whether kept or not


def test_held_out_images_without_labels_come_without(tmp_path):
    parquet(tmp_path / "x/train.parquet", [0, 1, 2])
    parquet(tmp_path / "x/test.parquet", [-1, -1])  # as the hub marks them
    found = load_images(tmp_path / "x", 8, "heldout", classes=3)
    assert found.labels is None and len(found.images) == 2


# Training


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    folders(root / "train", ["ant", "bee", "cat"], 8)
    return str(folders(root / "test", ["ant", "bee", "cat"], 2, first=50).parent)


def config(dataset, **changes):
    settings = {"dataset": dataset, "resolution": 8, "network": CONDITIONAL, "images": 64, "batch_size": 8, "lr": 1e-2,
                "learned_variance": True, "horizontal_flip": True}  # fmt: skip
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def run(labelled, results):
    return train(config(labelled), results, "labelled", progress=False)


def test_the_configuration_of_a_run_names_its_labels(run, labelled, results, tmp_path):
    images = load_images(labelled, 8, classes=CLASSES)
    assert run.config["labels_fingerprint"] == images.labels_fingerprint
    plain = train(config(labelled, network=NETWORK, images=8), tmp_path, "plain", progress=False)
    assert "labels_fingerprint" not in plain.config
    assert train(config(labelled), results, "labelled", progress=False).record == run.record  # and comes back at once


def test_every_image_is_trained_with_its_own_label(labelled, results, monkeypatch):
    from debiaslib.training.objective import Objective

    images, seen = load_images(labelled, 8, classes=CLASSES), []
    original = Objective.loss

    def loss(self, network, x0, t, noise, labels=None):
        for x, label in zip(((x0 + 1) * 127.5).round().byte().numpy(), labels.tolist(), strict=True):
            either = [np.array_equal(x, y) or np.array_equal(x[..., ::-1], y) for y in images.images]
            seen.append(label == images.labels[either.index(True)])
        return original(self, network, x0, t, noise, labels)

    monkeypatch.setattr(Objective, "loss", loss)
    train(config(labelled, seed=7), results, "labelled", progress=False)
    assert len(seen) == 64 and all(seen)  # eight steps


# Sampling


def told(x, t, class_labels=None):
    """A network whose epsilon says the class that it was told."""
    return torch.zeros_like(x) + 0.01 * class_labels.view(-1, 1, 1, 1)


def test_seed_i_is_of_class_i_by_default(run):
    model = load_model(run)
    settings = {"steps": 3, "batch_size": 4, "sampler": "ddpm"}  # with the learned variance
    images = sample(model, Schedule.linear(), range(7), **settings)
    given = sample(model, Schedule.linear(), range(7), labels=[0, 1, 2, 0, 1, 2, 0], **settings)
    assert np.array_equal(images, given)
    assert np.array_equal(sample(model, Schedule.linear(), [5, 3], **settings), images[[5, 3]])
    others = sample(model, Schedule.linear(), range(7), labels=torch.tensor([0, 1, 2, 0, 1, 2, 1]), **settings)
    assert np.array_equal(others[:6], images[:6]) and not np.array_equal(others[6], images[6])


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_every_call_is_told_the_class(sampler):
    calls = []

    def model(x, t, class_labels):
        calls.append(class_labels.tolist())
        return told(x, t, class_labels)

    sample(model, Schedule.linear(), [4, 9, 2], labels=np.array([2, 0, 1]), sampler=sampler, steps=3, shape=(3, 4, 4),
           batch_size=2)  # fmt: skip
    assert {tuple(call) for call in calls} == {(2, 0), (1, 0)}  # the last batch is padded


# Measurements


@pytest.fixture(scope="module")
def study(labelled, tmp_path_factory):
    settings = {key: value for key, value in config(labelled).to_dict().items()
                if key in ("resolution", "network", "images", "batch_size", "lr", "learned_variance")}  # fmt: skip
    experiment = Experiment(name="classes", preset="minifaces16", dataset=labelled, training=settings,
                            weightings=["constant", "debiased"], shown_timesteps=[100, 900], shown_images=5,
                            curve_timesteps=[100, 900], curve_images=10, grid_steps=[2], grid_images=4)  # fmt: skip
    return Study(experiment, tmp_path_factory.mktemp("study"))


def test_one_step_estimates_use_the_true_classes(study):
    arrays = one_step(study)
    images, model = study.images(), study.model("debiased", 0)
    x0 = ((arrays["x0"] + 1) * 127.5).round().astype(np.uint8)
    labels = torch.tensor([images.labels[[np.array_equal(x, y) for y in images.images].index(True)] for x in x0])
    for k, t in enumerate((100, 900)):
        with torch.no_grad():
            output = model(torch.from_numpy(arrays["x_t"][k]), t, class_labels=labels).sample[:, :3]
        a, s = study.schedule.alpha_bar[t].sqrt().item(), (1 - study.schedule.alpha_bar[t]).sqrt().item()
        x0_hat = (arrays["x_t"][k] - s * output.numpy()) / a
        assert np.allclose(arrays["x0_hat"][1, k], x0_hat, atol=1e-3 / a)


def test_an_optimum_over_a_part_of_the_images_keeps_the_class_of_each(study):
    """The folders lie sorted by class; a part is drawn from all of them, images and labels by one draw."""
    part = Study(dataclasses.replace(study.experiment, optimum_images=12, curve_images=9), study.results)
    optimum, everywhere = optimal_denoiser(part)
    assert not everywhere and len(optimum.images) == 12
    x0, labels = measured_images(part, 9)
    of_class = [torch.tensor([40, 130, 220])[(torch.arange(3) + k) % 3] / 127.5 - 1 for k in range(CLASSES)]
    assert (x0.mean((2, 3)) - torch.stack(of_class)[labels]).abs().max() < 0.1 and len(set(labels.tolist())) > 1
    x_t = torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    colours = optimum(x_t, 999, class_labels=torch.arange(CLASSES)).mean((2, 3))
    assert (colours - torch.stack(of_class)).abs().max() < 0.1  # pure noise: the mean over the images of the class
