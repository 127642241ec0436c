"""ADM checkpoints: the converted network answers as the original did, on weights that their names decide.

golden/adm_networks.json holds names and shapes of the networks of guided-diffusion, improved-diffusion and Debias;
golden/adm_outputs.npz what the original code answered with the weights and inputs of `adm_weights`.
"""

import inspect
import json
from pathlib import Path

import adm_weights
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from debiaslib.training.adm import convert_adm, infer_network
from tests.training.tiny import refused

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NETWORKS = json.loads((GOLDEN / "adm_networks.json").read_text())
RUN = [name for name, network in NETWORKS.items() if "side" in network]
SMALL = {"resolution": 16, "num_head_channels": 16}


def shapes(name):
    return {key: tuple(shape) for key, shape in NETWORKS[name]["shapes"].items()}


def answer(name, **changed):
    network = NETWORKS[name]
    settings = {"resolution": 2 * network["side"] if name != "light" else 256, **network["given"], **changed}
    model = convert_adm(adm_weights.weights(shapes(name)), **settings).eval()
    x, t, labels = adm_weights.inputs(network["count"], 3, network["side"], network["classes"])
    with torch.no_grad():
        return model(x, t, class_labels=labels).sample.numpy()


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "adm_outputs.npz") as file:
        return dict(file)


# Equal output


@pytest.mark.parametrize("name", RUN)
def test_the_output_is_the_originals(name, expected):
    assert expected[name].std() > 0.3  # not the zeros that an untrained ADM network answers
    np.testing.assert_allclose(answer(name), expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("plain", {"new_attention_order": True}),
        ("plain", {"num_head_channels": 32}),
        ("heads", {"num_heads": 2}),
    ],
)
def test_what_is_not_in_the_state_dict_has_a_say(name, changed, expected):
    assert np.abs(answer(name, **changed) - expected[name]).max() > 1e-3


def test_half_precision_weights_become_float32():
    state = {name: tensor.half() for name, tensor in adm_weights.weights(shapes("plain")).items()}
    network = convert_adm(state, **SMALL)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_heads_of_several_sizes_are_no_quiet_mistake_of_stock_diffusers(tmp_path):
    """UNet2DModel has one size for all; a folder that says another one than it has would load and answer wrongly."""
    model = convert_adm(adm_weights.weights(shapes("heads")), resolution=16, num_heads=4)
    assert model.config.attention_head_dim == [16, 24, 24]
    model.save_pretrained(tmp_path)
    with pytest.raises(TypeError):
        UNet2DModel.from_pretrained(tmp_path)


# The paper's networks


@pytest.mark.parametrize(
    ("name", "resolution", "count"),
    [("ffhq256", 256, 93_563_910), ("imagenet256", 256, 94_075_910), ("cifar10", 32, 30_473_990)],
)
def test_the_papers_networks_at_full_width(name, resolution, count):
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes(name).items()}
        network = convert_adm(state)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert (network.config.sample_size, network.config.out_channels) == (resolution, 6)
    assert network.config.num_class_embeds == NETWORKS[name]["classes"]


@pytest.mark.parametrize("name", ["ffhq256", "imagenet256", "cifar10"])
def test_a_preset_is_what_its_checkpoint_describes(name):
    from debiaslib.study.presets import PRESETS

    preset = PRESETS[name]
    described = {**infer_network(shapes(name)), "out_channels": 3}  # doubled by models.build_network
    assert preset.learned_variance and preset.network.items() >= described.items()
    for name in preset.network.keys() - described.keys():
        assert preset.network[name] == inspect.signature(UNet2DModel).parameters[name].default, name


# What is no such network


def test_another_state_dict():
    assert "is not of an ADM network" in refused(infer_network, {"conv_in.weight": (3, 3)})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_head_channels": 16}, "cannot be told from the multipliers (1, 2, 2); give resolution"),
        ({"resolution": 16, "num_head_channels": 24}, "num_head_channels is 24, which does not divide"),
        ({"resolution": 16, "num_heads": 3}, "num_heads is 3, which does not divide"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    assert said in refused(infer_network, shapes("plain"), **settings)


def test_heads_of_64_channels_unless_told_otherwise():
    assert infer_network(shapes("light"))["attention_head_dim"] == 64
    narrow = {**shapes("plain"), "input_blocks.1.1.qkv.weight": (96, 32, 1)}
    line = refused(infer_network, narrow, resolution=16)
    assert "num_head_channels is 64, which does not divide an attention of 32" in line


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("input_blocks.2.", 'Missing key(s) in state_dict: "down_blocks.0.downsamplers.0.conv.weight'),
        ("output_blocks.5", "the state dict has no 'input_blocks."),
        ("input_blocks.1.0.out_layers.3.bias", 'Missing key(s) in state_dict: "down_blocks.0.resnets.0.conv2.bias'),
        ("output_blocks.0.1.qkv.bias", 'Missing key(s) in state_dict: "up_blocks.0.attentions.0.to_q.bias'),
    ],
)
def test_what_is_missing_is_named(gone, said):
    left = {key: shape for key, shape in shapes("plain").items() if not key.startswith(gone)}
    assert said in refused(convert_adm, adm_weights.weights(left), **SMALL)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("low_res.weight", (3,), "holds 'low_res.weight', which has no place"),
        ("input_blocks.1.1.norm.weight", (32,), 'Unexpected key(s) in state_dict: "down_blocks.0.attentions.0.group_'),
        (
            "input_blocks.3.0.in_layers.2.weight",
            (64, 48, 3, 3),
            "mismatch for down_blocks.1.resnets.0.conv1.weight",
        ),
        ("middle_block.1.qkv.weight", (190, 64, 1), "no U-Net of UNet2DModel's kind"),
        ("time_embed.0.weight", (128, 64), "size mismatch for time_embedding.linear_1.weight"),
    ],
)
def test_what_contradicts_is_named(name, shape, said):
    state = adm_weights.weights({**shapes("plain"), name: shape})
    assert said in refused(convert_adm, state, **SMALL)
