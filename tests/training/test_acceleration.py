"""Precision is chosen once and said; memory format and compilation change neither names nor values of the weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.training import acceleration
from debiaslib.training import loop as training
from debiaslib.training.acceleration import concrete_precision, has_bf16_units, prepare_network
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train
from debiaslib.training.network import build_network

NETWORK = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return str(folder)


def config(dataset="minifaces", **changes):
    settings = {"dataset": dataset, "resolution": 8, "network": NETWORK, "images": 12, "batch_size": 4, "lr": 1e-2}
    return TrainConfig(**{**settings, **changes})


def quietly(results, dataset, **changes):
    return train(config(dataset, **changes), results, "test", progress=False, checkpoint_seconds=0)


def units(monkeypatch, there):
    monkeypatch.setattr(acceleration, "has_bf16_units", lambda device: there)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own list is the oracle")
def test_the_processors_units_are_those_that_the_kernel_lists():
    flags = {word for line in Path("/proc/cpuinfo").read_text().splitlines() for word in line.split()}
    assert has_bf16_units("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_either_kind_of_units_counts(monkeypatch, name):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx512_f": True, name: there})
        assert has_bf16_units("cpu") == there
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16_units("cpu")


def test_a_gpu_is_asked_without_emulation(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not has_bf16_units("cuda:0") and not has_bf16_units("mps")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert has_bf16_units("cuda")


@pytest.mark.parametrize(("there", "precision", "said"), [(True, "bfloat16", "has b"), (False, "float32", "has no b")])
def test_auto_is_answered_and_said(monkeypatch, capsys, there, precision, said):
    units(monkeypatch, there)
    assert concrete_precision(config(precision="auto")) == config(precision=precision)
    line = capsys.readouterr().err
    assert line.startswith(f"precision is {precision}: cpu {said}") and line.count("\n") == 1


def test_a_stated_precision_is_kept(monkeypatch, capsys):
    units(monkeypatch, True)
    stated = config(precision="float32")
    assert concrete_precision(stated, {"precision": "bfloat16"}) is stated
    assert capsys.readouterr().err == ""


def test_an_arm_must_say_its_precision():
    with pytest.raises(InputError, match="must say which precision"):
        config(variant="precision=auto", precision="auto")


def test_a_run_states_its_precision_and_goes_on_in_it_elsewhere(dataset, tmp_path, monkeypatch):
    units(monkeypatch, True)
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_record", lambda *arguments: 1 / 0)  # ends after the last checkpoint
        with pytest.raises(ZeroDivisionError):
            quietly(tmp_path / "auto", dataset, precision="auto")
    units(monkeypatch, False)
    auto = quietly(tmp_path / "auto", dataset, precision="auto")
    stated = quietly(tmp_path / "stated", dataset, precision="bfloat16")
    assert auto.config == stated.config and auto.config["precision"] == "bfloat16"
    assert auto.raw_weights().read_bytes() == stated.raw_weights().read_bytes()
    assert quietly(tmp_path / "auto", dataset, precision="auto").record == auto.record
    with pytest.raises(InputError, match="was made with precision='bfloat16', not 'float32'"):
        quietly(tmp_path / "auto", dataset, precision="float32")


def outputs(network):
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    output = network(x, torch.tensor([0, 3, 500, 999])).sample
    network.zero_grad()
    output.square().mean().backward()
    return output.detach(), [p.grad for p in network.parameters()]


def test_channels_last_is_the_same_network():
    plain, last = (build_network(config(memory_format=name)) for name in ("contiguous", "channels_last"))
    prepared = prepare_network(last, config(memory_format="channels_last"))
    assert prepared is last and last.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not last.conv_in.weight.is_contiguous() and plain.conv_in.weight.is_contiguous()
    assert list(plain.state_dict()) == list(last.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), last.parameters(), strict=True))
    (wanted, gradients), (got, others) = outputs(plain), outputs(last)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)


def test_channels_last_is_resumed_to_the_bit(dataset, tmp_path, monkeypatch):
    whole = quietly(tmp_path / "whole", dataset, memory_format="channels_last")
    one_step = training._Training._one_step
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_one_step", lambda self: one_step(self) if self.step < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            quietly(tmp_path / "resumed", dataset, memory_format="channels_last")
    resumed = quietly(tmp_path / "resumed", dataset, memory_format="channels_last")
    for path in (whole.raw_weights(), whole.snapshot()):
        assert (resumed.folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("compilation", "device", "modes"),
    [("none", "cpu", []), ("default", "cpu", ["default"]), ("cuda_graphs", "cuda", ["reduce-overhead"])],
)
def test_compilation_is_in_place(monkeypatch, compilation, device, modes):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode: asked.append(mode))
    settings = config(compilation=compilation, device=device)
    network = build_network(settings)
    names = list(network.state_dict())
    assert prepare_network(network, settings) is network
    assert asked == modes and list(network.state_dict()) == names
