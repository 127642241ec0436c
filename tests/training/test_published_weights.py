"""Published weights: float16 of what was trained, loadable where they lie, small enough, and with a card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from debiaslib.errors import InputError
from debiaslib.files import sha256_file
from debiaslib.study.experiment import Experiment
from debiaslib.training.load import load_model
from debiaslib.training.loop import train
from debiaslib.training.published_weights import publish_weights, take_published
from debiaslib.training.run import find_run
from tests.training import tiny

TRAINING = {"resolution": 8, "network": tiny.STILL, "images": 16, "batch_size": 4, "snapshots": [8]}


def experiment(**changes):
    settings = {"training": TRAINING, "seeds": (3, 4), "published_weights": ("debiased", "constant"), **changes}
    return Experiment(name="tiny", preset="minifaces16", weightings=("constant", "debiased"), **settings)


@pytest.fixture
def folder(tmp_path):
    """Two of the trainings of `experiment`."""
    for arm in ("constant", "debiased"):
        train(experiment().train_config(arm, 3), tmp_path, "tiny", progress=False)
    return tmp_path / "tiny"


def publish(folder, **changes):
    return publish_weights(experiment(**changes), folder, folder.parent / "out")


def test_what_is_published_is_what_was_trained_rounded(folder):
    names = ["config.json", "ema-000000016.safetensors", "record.json"]
    wanted = [f"weights/{run}/{name}" for run in ("constant-s3", "debiased-s3") for name in names]
    assert publish(folder) == ["weights/README.md", *wanted]
    there = folder.parent / "out" / "weights" / "debiased-s3"
    ours, theirs = (load_file(at / "ema-000000016.safetensors") for at in (there, folder / "runs" / "debiased-s3"))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == np.float16 and np.array_equal(values, theirs[name].astype(np.float16))
    record = json.loads((there / "record.json").read_text())
    assert "raw" not in record and record["snapshots"] == [{
        "images": 16, "file": "ema-000000016.safetensors", "dtype": "float16",
        "sha256": sha256_file(there / "ema-000000016.safetensors"),
        "float32_sha256": sha256_file(folder / "runs" / "debiased-s3" / "ema-000000016.safetensors"),
    }]  # fmt: skip


def test_of_several_seeds_and_without_an_earlier_network(folder):
    train(experiment().train_config("constant", 4), folder.parent, "tiny", progress=False)
    stale = folder.parent / "out" / "weights" / "constant-s3" / "ema-000000099.safetensors"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a longer training")
    paths = publish(folder, published_seeds=2)
    assert {Path(path).parent.name for path in paths} == {"weights", "constant-s3", "constant-s4", "debiased-s3"}
    assert not stale.exists()
    card = (folder.parent / "out" / "weights" / "README.md").read_text()
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert title.count("constant") == 1 and card.count("| `constant-s") == 2


def test_a_published_network_stands_in_for_its_training(folder):
    publish(folder)
    weights, config = folder.parent / "out" / "weights", experiment().train_config("debiased", 3)
    run = find_run("tour", "debiased", 3, folder.parent)
    take_published(weights, run)
    assert train(config, folder.parent, "tour", progress=False).record["snapshots"][0]["dtype"] == "float16"
    other = find_run("tour", "debiased", 4, folder.parent)
    take_published(weights, other)
    assert other.config is None  # there is none of that seed
    begun = find_run("tiny", "debiased", 3, folder.parent)
    take_published(weights, begun)
    assert "dtype" not in begun.record["snapshots"][-1]  # what has been begun stays


def test_they_load_where_they_lie_and_answer_nearly_the_same(folder):
    publish(folder)
    network = load_model(folder.parent / "out" / "weights" / "debiased-s3")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 900])
    trained = load_model(folder / "runs" / "debiased-s3")(x, t).sample
    assert 0 < (network(x, t).sample - trained).abs().max() < 2e-2 * trained.abs().max()


def test_weights_that_float16_cannot_hold_are_refused(folder):
    file = folder / "runs" / "debiased-s3" / "ema-000000016.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"][1] = -7e4
    save_file(weights, file)
    record = json.loads((file.parent / "record.json").read_text())
    record["snapshots"][-1]["sha256"] = sha256_file(file)
    (file.parent / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"^conv_in\.bias of .*ema-000000016\.safetensors reaches 70000; float16"):
        publish(folder)
    assert not (folder.parent / "out" / "weights" / "debiased-s3").exists()


def test_the_card_says_what_they_are(folder):
    publish(folder)
    card = (folder.parent / "out" / "weights" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n") and "{" not in card
    assert "Stock diffusers loads these weights without a warning and leaves that out" in card
    assert "| `debiased-s3` | debiased | epsilon | 0.002 | 3 | 16 | " in card
    assert 'load_model("weights/debiased-s3")' in card
    assert "diffusers' `UNet2DModel`" in card
    assert "minifaces, 8x8: debiased, constant" in card and max(map(len, card.splitlines())) <= 130


def test_the_card_says_of_each_network_what_it_predicts_and_its_rate(tmp_path):
    arm = "constant; prediction_type=v_prediction"
    more = {"variants": (arm,), "rates": {"constant": 1e-3}, "published_weights": ("debiased", arm)}
    for one in more["published_weights"]:
        train(experiment(**more).train_config(one, 3), tmp_path, "tiny", progress=False)
    publish(tmp_path / "tiny", **more)
    card = (tmp_path / "out" / "weights" / "README.md").read_text(encoding="utf-8")
    assert "| debiased | epsilon | 0.002 | 3 |" in card and " | v_prediction | 0.001 | 3 |" in card


def test_a_training_that_is_not_complete_is_left_out(folder):
    (folder / "runs" / "constant-s3" / "record.json").unlink()
    assert publish(folder)[1] == "weights/debiased-s3/config.json" and len(publish(folder)) == 4
    assert publish(folder, published_weights=()) == []
