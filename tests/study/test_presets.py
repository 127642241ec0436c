"""The rows of the paper: published sizes and settings, a training step and a sampling step of each."""

import dataclasses

import pytest
import torch

from debiaslib.data.images import BY_HAND, KNOWN, load_images
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.study.experiment import Experiment
from debiaslib.study.presets import PRESETS, get_preset
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective

# With 2C output channels where the variance is learned. The light ADM network has 93,563,910 (paper.md); classes add an
# embedding of 512 numbers each.
PARAMETERS = {
    "cifar10-ddpm": 35_746_307,
    "ffhq256": 93_563_910,
    "celebahq256": 93_563_910,
    "afhqdog256": 93_563_910,
    "metfaces256": 93_563_910,
    "imagenet256": 93_563_910 + 1000 * 512,
    "cifar10": 30_468_870 + 10 * 512,
}
ADM = sorted(set(PARAMETERS) - {"cifar10-ddpm"})


def config(name, **changes):
    return dataclasses.replace(Experiment(name="one", preset=name).train_config("debiased", 0), **changes)


def small(name):
    """The same network with an eighth of the channels, and an eighth of a 256x256 image's side."""
    whole = config(name)
    channels = [c // 8 for c in whole.network["block_out_channels"]]
    size = min(32, whole.resolution)
    changes = {"block_out_channels": channels, "sample_size": size, "norm_num_groups": 8}
    if name in ADM:
        changes |= {"attention_head_dim": 8, "attn_norm_num_groups": 8}
    return config(name, network={**whole.network, **changes}, resolution=size, batch_size=2)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_the_number_of_parameters(name, count):
    with torch.device("meta"):
        network = build_network(config(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", ADM)
def test_the_papers_settings(name):
    c = config(name)
    assert (c.lr, c.weight_decay, c.lr_decay, c.max_grad_norm) == (2e-5, 0.0, "none", None)
    assert (c.schedule, c.timesteps, c.timestep_sampling, c.prediction_type) == ("linear", 1000, "uniform", "epsilon")
    assert (c.ema_decay, c.horizontal_flip, c.precision, c.learned_variance) == (0.9999, True, "float32", True)
    assert c.batch_size == (32 if name == "cifar10" else 8) and c.steps == 500_000
    assert c.classes == {"cifar10": 10, "imagenet256": 1000}.get(name)


@pytest.mark.parametrize("name", ADM)
def test_attention_stands_where_a_side_is_16_and_in_the_middle(name):
    with torch.device("meta"):
        network = build_network(config(name))
    sides = [config(name).resolution >> i for i in range(len(network.down_blocks))]
    with_attention = [bool(len(getattr(block, "attentions", []))) for block in network.down_blocks]
    assert with_attention == [side == 16 for side in sides]
    assert [bool(len(getattr(b, "attentions", []))) for b in network.up_blocks] == with_attention[::-1]
    attentions = [m for m in network.modules() if type(m).__name__ == "Attention"]
    assert len(attentions) == 1 + 2 + 1 and all(a.inner_dim // a.heads == 64 for a in attentions)
    assert all(a.group_norm.num_groups == 32 for a in attentions)  # that of the middle too


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_step_of_training_and_one_of_sampling(name):
    c = small(name)
    network, objective = build_network(c).train(), Objective(c)
    size = (2, 3, c.resolution, c.resolution)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.rand(size, generator=generator) * 2 - 1, torch.randn(size, generator=generator)
    labels = None if c.classes is None else torch.tensor([0, c.classes - 1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=c.lr, weight_decay=c.weight_decay)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss, mse = objective.loss(network, x0, torch.tensor([100, 900]), noise, labels)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0] if c.network["dropout"] == 0 else losses[1] != losses[0]
    images = sample(network.eval(), Schedule.linear(), [0, 1], sampler="ddpm", steps=2, batch_size=2)
    assert images.shape == size and images.std() > 0


def test_every_data_set_is_known_or_says_what_to_put_where():
    for preset in PRESETS.values():
        assert preset.dataset in KNOWN
        assert preset.dataset in BY_HAND or "/" in preset.dataset or preset.dataset in ("minifaces", "gaussian")


@pytest.mark.parametrize("name", ["celebahq256", "afhqdog256"])
def test_data_that_must_be_fetched_by_hand_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="DATASET=folder") as caught:
        load_images(get_preset(name).dataset, 256)
    assert "\n" not in str(caught.value)
