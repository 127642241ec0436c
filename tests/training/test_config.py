"""A configuration of a training: every mistake is one line that names the field, its value and what is allowed."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from debiaslib.errors import InputError, shown
from debiaslib.training.config import TrainConfig, run_name
from debiaslib.training.run import Run, find_run, run_config

TRAIN = {"dataset": "minifaces", "resolution": 16, "network": {}, "images": 1000, "batch_size": 64, "lr": 1e-3}
MISTAKES = [
    ({"dataset": 3}, "dataset is 3; it must be a text"),
    ({"resolution": 3}, "resolution is 3; it must be >= 4"),
    ({"resolution": 18, "network": {"block_out_channels": [8] * 3}}, "resolution is 18; it must be a multiple of 4"),
    ({"network": []}, "network is []; it must be a mapping"),
    ({"network": {"num_class_embeds": 0}}, "num_class_embeds of the network is 0; it must be a whole number >= 1"),
    ({"images": 63}, "images is 63; it must be a whole number >= 64"),
    ({"batch_size": True}, "batch_size is True; it must be a whole number"),
    ({"batch_size": "64"}, "batch_size is '64'; it must be a whole number"),
    ({"lr": 0}, "lr is 0; it must be > 0"),
    ({"lr": float("nan")}, "lr is nan; it must be a finite number"),
    ({"lr": "fast"}, "lr is 'fast'; it must be a number"),
    ({"lr": True}, "lr is 'True'; it must be a number"),
    ({"learning_rate": 1e-3}, "setting 'learning_rate' is unknown; did you mean 'lr'?"),
    ({"weighting": None}, "weighting is None; it must be a text"),
    ({"weighting": "debaised"}, "weighting 'debaised' is unknown; did you mean 'debiased'?"),
    ({"prediction_type": "eps"}, "prediction_type 'eps' is unknown; did you mean 'epsilon'?"),
    ({"learned_variance": True, "timestep_sampling": "weight"}, "learned_variance needs timesteps drawn evenly"),
    ({"timestep_sampling": "importance"}, "known: uniform, stratified, weight"),
    ({"microbatch": 65}, "microbatch is 65; it must be a whole number >= 1 and <= 64"),
    ({"snapshots": "500"}, "snapshots is '500'; it must be a list"),
    ({"snapshots": [1001]}, "snapshots is 1001; it must be a whole number >= 1 and <= 1000"),
    ({"device": "gpu"}, "device is 'gpu'; write it as 'cpu', 'cuda', 'cuda:0' or 'mps'"),
]


def train(**changes):
    return TrainConfig(**{**TRAIN, **changes})


@pytest.mark.parametrize("given, said", MISTAKES, ids=lambda value: shown(value, 40))
def test_a_mistake_is_one_line(given, said):
    with pytest.raises(InputError) as caught:
        train(**given)
    line = str(caught.value)
    assert said in line and "\n" not in line and len(line) <= 200


def test_a_missing_field_is_named():
    with pytest.raises(InputError, match="^lr is missing"):
        TrainConfig(**{key: value for key, value in TRAIN.items() if key != "lr"})


def test_numbers_as_yaml_leaves_them():
    # YAML 1.1 reads 1e-3 as text; it wants a dot.
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}
    config = train(lr="1e-3", max_weight="5", weight_decay=0, ema_decay="9.9e-1", max_grad_norm=None)
    values = (config.lr, config.max_weight, config.weight_decay, config.ema_decay)
    assert values == (0.001, 5.0, 0.0, 0.99) and all(type(value) is float for value in values)
    assert config.max_grad_norm is None and train(lr=1) == train(lr="1")


def test_lists_are_tuples_paths_are_text_and_a_weighting_is_canonical():
    config = train(snapshots=[500, 1000], dataset=Path("some") / "folder", weighting=" p2( gamma = .5 )")
    assert config.snapshots == (500, 1000) and config.dataset == str(Path("some/folder"))
    assert config.weighting == "p2(k=1,gamma=0.5)"
    assert train(weighting="min_snr(gamma=5.0000001)").weighting != train(weighting="min_snr(gamma=5)").weighting


def test_the_papers_settings_are_the_defaults():
    config = train()
    assert (config.weighting, config.prediction_type, config.schedule, config.timesteps) == (
        "debiased", "epsilon", "linear", 1000,
    )  # fmt: skip
    assert (config.max_grad_norm, config.normalize_weight, config.timestep_sampling) == (None, False, "uniform")


def test_it_cannot_be_changed_and_survives_json():
    config = train(snapshots=[500], max_weight=5, weighting="p2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 3
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert dataclasses.replace(config, lr="5e-4").lr == 0.0005


@pytest.mark.parametrize(
    "images, batch_size, steps", [(1000, 64, 16), (1024, 64, 16), (1025, 64, 17), (64, 64, 1), (5, 1, 5)]
)
def test_steps_are_whole_batches_rounded_up(images, batch_size, steps):
    assert train(images=images, batch_size=batch_size).steps == steps


def test_names():
    assert run_name("p2", 3) == "p2-k1-gamma1-s3"
    assert run_name(train(lr=1e-3, variant="lr=1e-3").arm, 0) == "debiased--lr-0.001-s0"


# config.json of a run's folder

CONFIGS = [
    ({**TRAIN, "lr": None}, "config.json: lr is None"),
    *[({k: v for k, v in TRAIN.items() if k != name}, f"config.json: {name} is missing") for name in TRAIN],
]


@pytest.mark.parametrize("said, part", CONFIGS, ids=lambda value: str(value)[:50])
def test_a_damaged_config_is_one_line_that_names_file_and_field(said, part, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(InputError) as caught:
        run_config(Run(tmp_path))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_of_an_earlier_version_is_read(tmp_path):
    run = find_run("quick", "debiased", 0, tmp_path)
    run.folder.mkdir(parents=True)
    old = {**TRAIN, "weighting": "debiased", "data_fingerprint": "f" * 64, "processes": 1}
    (run.folder / "config.json").write_text(json.dumps(old))
    assert run_config(run) == train()
