"""The dry run against numbers worked out by hand, and against the FLOPs of the published networks."""

import pytest
import torch

from debiaslib.paths import checkout
from debiaslib.study import cost as module
from debiaslib.study.cost import estimate, network_cost
from debiaslib.study.experiment import Experiment, load_experiment
from debiaslib.study.pipeline import main
from debiaslib.training.network import build_network


def config(preset):
    return Experiment(name="one", preset=preset).train_config("debiased", 0)


@pytest.mark.parametrize(("preset", "gflop"), [("cifar10-ddpm", 37.32), ("ffhq256", 1163.35)])
def test_the_flop_of_a_training_image_are_those_of_the_published_networks(preset, gflop):
    assert network_cost(config(preset))[2] / 1e9 == pytest.approx(gflop, abs=0.01)


def test_flop_are_two_for_each_weight_and_place():
    """Counted again by hooks on a real forward pass: convolutions, linear maps, and the two products of attention."""
    c, counted = config("minifaces16"), []

    def hook(layer, arguments, output):
        if isinstance(layer, torch.nn.Conv2d):
            counted.append(2 * layer.weight.numel() * output.shape[2] * output.shape[3])
        elif isinstance(layer, torch.nn.Linear):
            counted.append(2 * layer.weight.numel() * output.numel() // layer.out_features)
        else:  # attention of n places and d channels: q k^T and its product with v
            n = output.shape[2] * output.shape[3]
            counted.append(2 * 2 * n * n * layer.inner_dim)

    network = build_network(c)
    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) or type(layer).__name__ == "Attention":
            layer.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.zeros(1, 3, 16, 16), torch.zeros(1, dtype=torch.int64))
    parameters, forward, training = network_cost(c)
    assert forward == sum(counted)
    assert parameters == sum(p.numel() for p in network.parameters())
    assert 2.9 * forward < training <= 3 * forward  # the input of the first layer has no gradient


SETTINGS = {
    "name": "hand",
    "preset": "minifaces16",
    "weightings": ["constant", "debiased"],
    "seeds": [0, 1, 2],
    "training": {"images": 1000, "batch_size": 64, "snapshots": [128, 500]},
    "sampling_batch_size": 50,
    "distance_images": 120,
    "distance_steps": [5, 10],
    "snapshot_steps": [5],
    "grid_steps": [2, 4],
    "grid_images": 3,
    "shown_timesteps": [10, 20],
    "shown_images": 4,
    "curve_timesteps": [0, 10, 20],
    "curve_images": 16,
    "reference_images": 100,
}


@pytest.fixture
def cost(monkeypatch):
    """1,000 parameters, 10 FLOP forward and 30 in training, of 2,000 in a second."""
    monkeypatch.setitem(module.RATES, "cpu", (1e-9, 2e-9))
    monkeypatch.setattr(module, "network_cost", lambda config: (1000, 10, 30))


def test_by_hand(cost):
    found = estimate(Experiment(**SETTINGS))
    trained = 6 * 16 * 64  # whole batches: 1,024 images
    # Judged: 5 and 10 steps at the end, 5 steps at each of two snapshots, of 120 images in batches of 50; grids of 2
    # and 4 steps, and of 5 steps by three networks, of 3 images in a batch of 50.
    each = 150 * (5 + 10 + 2 * 5) + 50 * (2 + 4 + 3 * 5)
    assert found.calls == {"training": trained, "sampling": 6 * each}
    assert found.hours == pytest.approx({"training": trained * 30 / 7.2e6, "sampling": 60 * each / 7.2e6})


def test_samplers_variants_and_raw_weights_count_too(cost):
    more = {"further_samplers": ["ddpm"], "variants": ["debiased; lr=1e-3"], "raw_weights": True, "seeds": [0]}
    found, plain = (estimate(Experiment(**{**SETTINGS, "seeds": [0], **changes})) for changes in (more, {}))
    each = plain.calls["sampling"] // 2
    # 5 and 10 steps by the second sampler; the raw weights of the weightings, 5 and 10 steps by the first one.
    assert found.calls["sampling"] == 3 * (each + 150 * 15) + 2 * 150 * 15


@pytest.mark.parametrize(
    ("training", "rates"),
    [({"device": "cuda:1", "precision": "bfloat16"}, (300, 40)), ({"threads": 4}, (8e-9, 8e-9))],
)
def test_rates(cost, training, rates):
    given = Experiment(**{**SETTINGS, "training": {**SETTINGS["training"], **training}})
    line = estimate(given).line
    assert f"of training at {rates[0]:g} TFLOP/s" in line and f"of sampling at {rates[1]:g}, both rates" in line


def test_a_network_of_its_own_for_an_arm_is_counted_as_such(monkeypatch):
    monkeypatch.setattr(module, "network_cost", lambda c: (1000, 10, 30 + 70 * c.learned_variance))
    arms = {**SETTINGS, "weightings": ["constant"], "variants": ["constant; learned_variance=true"], "seeds": [0]}
    assert estimate(Experiment(**arms)).hours["training"] == pytest.approx(
        1024 * (30 + 100) / (3.6e15 * module.RATES["cpu"][1])
    )


def test_a_plan_needs_neither_data_nor_device(capsys):
    main(["--experiment", "afhqdog256", "--dataset", "nowhere/at/all", "--dry-run"])
    found = estimate(load_experiment("afhqdog256"))
    assert capsys.readouterr().out == found.line + "\n"
    assert "hours of cuda" in found.line and found.calls["training"] == 12 * 4_000_000
    assert "12 trainings of 93,563,910 parameters" in found.line
    assert found.hours["training"] == pytest.approx(12 * 4e6 * 1163.35e9 / 300e12 / 3600, rel=1e-4)


ROWS = ("ffhq256", "celebahq256", "afhqdog256", "metfaces256", "cifar10", "cifar10-ddpm", "imagenet256")


@pytest.mark.parametrize("preset", ROWS)
def test_every_row_of_the_paper_has_an_experiment_that_can_be_planned(preset, cost):
    experiment = load_experiment(preset)
    assert experiment.preset == preset and {"constant", "debiased"} <= set(experiment.weightings)
    assert "inception" in experiment.features and experiment.distance_images == 10_000
    found = estimate(experiment)
    assert "hours of cuda" in found.line and sum(found.hours.values()) > 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (checkout() / "config").glob("*.yaml")))
def test_every_experiment_can_be_planned(name):
    """The pipeline says first what an experiment costs, of whatever class its network is."""
    experiment = load_experiment(name)
    found, trains = estimate(experiment), not experiment.weights
    assert (found.hours["training"] > 0) is trains and f"estimate of {name}: " in found.line
    assert found.hours["sampling"] > 0 and (": 0 trainings" in found.line) is not trains
