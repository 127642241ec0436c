"""CIFAR-10's features: the network, its training and resumption, and the shipped weights."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from debiaslib.errors import InputError
from debiaslib.metrics import cifar10_features, cifar10_training
from debiaslib.metrics.cifar10_features import CIFAR10Features, feature_hash, load_features, pixels, weights_metadata
from debiaslib.metrics.cifar10_training import accuracy, load_labelled, train_features

COUNT = 192


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labelled(count=COUNT, seed=0):
    """Noise about a grey level that is the class: learnt within a few steps."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count)
    noise = random.integers(-20, 21, (count, 3, 32, 32))
    return torch.from_numpy((25 * labels[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)), torch.tensor(
        labels
    )


@pytest.fixture
def narrow(monkeypatch):
    """A training of a moment: the same code, other widths and batches."""
    for name, value in {"WIDTHS": (8, 8, 8), "NARROWED": 8, "DIMENSION": 24}.items():
        monkeypatch.setattr(cifar10_features, name, value)
    monkeypatch.setattr(cifar10_training, "BATCH", 32)


def quiet(line):
    pass


def one_line(call, match):
    with pytest.raises(InputError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


# The network


def test_an_image_does_not_depend_on_its_batch():
    network, (images, _) = CIFAR10Features().eval(), labelled(12)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert together.shape == (12, 256) and together.dtype == torch.float32
    assert together.std() > 0
    assert (together - alone).abs().max() < 1e-4 * together.abs().max()


def test_sizes():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(pixels(larger), pixels(images))
    smaller = pixels(images[..., ::2, ::2].contiguous())
    assert smaller.shape == (2, 3, 32, 32)
    corners = pixels(torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8).expand(1, 3, 2, 2))[0, 0, 7]
    ramp = ((torch.arange(32) + 0.5) / 16 - 0.5).clamp(0, 1)  # bilinear, pixel centres at half numbers
    assert (corners - (2 * ramp - 1)).abs().max() < 1e-6
    assert pixels(images).min() >= -1 and pixels(images).max() <= 1


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 32, 32), torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 8, 16, dtype=torch.uint8)],
)
def test_other_images_are_one_line(images):
    one_line(lambda: CIFAR10Features()(images), "images are")


def test_the_first_layer_whitens():
    values = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    values = F.avg_pool2d(F.pad(values, (1, 1, 1, 1)), 3, stride=1) + torch.tensor([0.5, 0, -0.5]).view(3, 1, 1)
    network = CIFAR10Features()
    cifar10_training._whiten(network.whiten, values)
    patches = F.conv2d(values, network.whiten.weight, network.whiten.bias, stride=2).transpose(0, 1).flatten(1).double()
    assert (patches[:12] + patches[12:]).abs().max() < 1e-5
    covariance = torch.cov(patches[:12])
    assert patches.mean(1).abs().max() < 1e-5
    assert (covariance - torch.diag(covariance.diag())).abs().max() < 1e-4
    assert covariance.diag().min() > 0.9 and covariance.diag().max() < 1.001  # a little less where variance is small
    assert not any(parameter.requires_grad for parameter in network.whiten.parameters())


# The training


def test_it_learns_and_standardises(narrow):
    network = train_features(*labelled(), epochs=8, report=quiet)
    assert accuracy(network, *labelled(200, seed=1)) > 0.5
    assert not network.training
    features = network(labelled()[0])
    assert features.mean(0).abs().max() < 1e-3
    varied = features.std(0, correction=0) > 0.1  # some may be zero for all of so few images
    assert varied.sum() > 12
    assert (features.std(0, correction=0)[varied] - 1).abs().max() < 0.02


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(narrow, tmp_path, precision):
    data, lines = labelled(), []
    kwargs = {"epochs": 3, "precision": precision, "seed": 4}
    whole = train_features(*data, **kwargs, report=quiet).state_dict()

    def stop_after_two(line):
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train_features(*data, **kwargs, checkpoint=path, report=stop_after_two)
    resumed = train_features(*data, **kwargs, checkpoint=path, report=lines.append).state_dict()
    assert [line.split(":")[0] for line in lines] == [f"epoch {n} of 3" for n in (1, 2, 3)]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert all(torch.isfinite(value).all() for value in whole.values())


def test_a_checkpoint_of_another_training_is_refused(narrow, tmp_path):
    path = tmp_path / "checkpoint.pt"
    train_features(*labelled(), epochs=1, checkpoint=path, report=quiet)
    one_line(lambda: train_features(*labelled(), epochs=2, checkpoint=path, report=quiet), "another training")
    one_line(lambda: train_features(*labelled(seed=1), epochs=1, checkpoint=path, report=quiet), "another training")
    path.write_bytes(path.read_bytes()[:1000])
    one_line(lambda: train_features(*labelled(), epochs=1, checkpoint=path, report=quiet), "damaged")
    one_line(lambda: train_features(*labelled(20), epochs=1), "images is 20")


def test_training_leaves_the_generator_alone(narrow):
    before = torch.random.get_rng_state()
    train_features(*labelled(32), epochs=1, report=quiet)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_crops_and_flips():
    values = torch.arange(32 * 32).float().view(1, 1, 32, 32).expand(40, 3, 32, 32)
    flips = torch.arange(40) % 2 == 1
    moved = cifar10_training._shifted(values, flips, torch.Generator().manual_seed(0))
    offsets = set()
    for image, flip in zip(moved, flips, strict=True):
        assert torch.equal(image[0], image[2])
        centre = image[0].flip(-1)[10:20, 10:20] if flip else image[0][10:20, 10:20]
        rows, columns = centre[0, 0].item() // 32 - 10, centre[0, 0].item() % 32 - 10
        assert torch.equal(centre, values[0, 0][10:20, 10:20] + 32 * rows + columns)
        offsets.add((rows, columns))
    assert {row for row, _ in offsets} == {column for _, column in offsets} == {-2, -1, 0, 1, 2}


# Data and command


def parquet(folder, images, labels):
    from pyarrow import Table
    from pyarrow import parquet as format

    rows = []
    for image in images.numpy().transpose(0, 2, 3, 1):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    for split, part in (("train", slice(None)), ("test", slice(50))):
        table = Table.from_pydict({"img": rows[part], "label": labels[part].tolist()})
        format.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_command(narrow, tmp_path, capsys):
    data = labelled(96)
    parquet(tmp_path, *data)
    images, labels = load_labelled(tmp_path, "train")
    assert torch.equal(images, data[0]) and torch.equal(labels, data[1])
    out = tmp_path / "out"
    arguments = ["--dataset", str(tmp_path), "--out", str(out), "--epochs", "1", "--precision", "float32"]
    cifar10_training.main(arguments)
    path = out / "cifar10_features.safetensors"
    assert feature_hash(path) in capsys.readouterr().out
    network, said = load_features(path), weights_metadata(path)
    assert said["test_accuracy"] == accuracy(network, images[:50], labels[:50])
    assert (said["epochs"], said["precision"], said["torch"]) == (1, "float32", torch.__version__)
    first = path.read_bytes()
    cifar10_training.main(arguments)  # all epochs are in the checkpoint
    assert path.read_bytes() == first


def test_other_data_is_one_line(tmp_path, capsys):
    one_line(lambda: load_labelled(tmp_path, "train"), "no train-")
    parquet(tmp_path, labelled(60)[0], torch.full((60,), 11))
    one_line(lambda: load_labelled(tmp_path, "train"), "labels \\[11\\]")
    parquet(tmp_path, labelled(60)[0][..., :16], torch.zeros(60, dtype=torch.int64))
    one_line(lambda: load_labelled(tmp_path, "test"), "32, 16, 3")
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(SystemExit) as ended:
        cifar10_training.main(["--dataset", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "img and label" in message and message.count("\n") == 1


def test_missing_and_foreign_files_are_one_line(tmp_path, monkeypatch):
    one_line(lambda: load_features(tmp_path / "none.safetensors"), "missing")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not weights at all")
    one_line(lambda: load_features(foreign), "are not those of")
    one_line(lambda: weights_metadata(foreign), "do not say")
    monkeypatch.setattr(cifar10_features, "WEIGHTS", foreign)
    one_line(load_features, "altered")
    one_line(feature_hash, "altered")


# The shipped weights


def test_shipped_file_is_the_recorded_one_and_small():
    assert feature_hash() == cifar10_features.SHA256
    assert cifar10_features.WEIGHTS.stat().st_size < 8_000_000
    said = weights_metadata()
    assert said["test_accuracy"] >= 0.9
    assert said["images"] == 50000
    assert "debiaslib.metrics.cifar10_training" in said["command"]


def test_features_are_of_scale_1_and_see_noise():
    from debiaslib.data.minifaces import render
    from debiaslib.metrics.distances import frechet_distance

    network, faces = load_features(), render(range(400), 32)
    noise = np.random.default_rng(0).standard_normal(faces.shape)

    def features(images):
        return torch.cat([network(part) for part in torch.from_numpy(images).split(100)]).numpy()

    clean = features(faces)
    assert 0.1 < clean.std() < 10
    distances = [
        frechet_distance(features((faces + level * noise).clip(0, 255).round().astype(np.uint8)), clean)
        for level in (0, 10, 30)
    ]
    assert distances[0] < 1e-3 * distances[1] < 1e-3 * distances[2]
