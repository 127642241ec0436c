"""A network's parameters in one tensor: updates and checkpoints are those of separate tensors, to the bit."""

import copy

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.study.presets import get_preset
from debiaslib.training.flat_parameters import FlatParameters

SETTINGS = {"lr": 3e-3, "weight_decay": 0.01, "fused": True}


class Separate:
    """What is flat, done by the libraries on separate tensors: the oracle."""

    def __init__(self, network):
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, **SETTINGS)
        self.ema = EMAModel(self.parameters, decay=0.999, foreach=True)

    def update(self, clip):
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters], foreach=True)
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.parameters)
        return norm


class Joined:
    """The same over `FlatParameters`, as a training does it."""

    def __init__(self, network):
        self.weights = FlatParameters(network)
        self.optimizer = torch.optim.AdamW(self.weights.tensors, **SETTINGS)
        self.ema = EMAModel(self.weights.tensors, decay=0.999, foreach=True)

    def update(self, clip):
        norm = torch.nn.utils.get_total_norm(self.weights.gather_gradients(), foreach=True)
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights.tensors, clip, norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.weights.tensors)
        return norm


def two_networks(memory_format=torch.contiguous_format):
    """Twice quick's network, with the same weights."""
    torch.manual_seed(0)
    network = UNet2DModel(**get_preset("minifaces16").network).to(memory_format=memory_format)
    return network, copy.deepcopy(network)


def backward(network, step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(2, 3, 16, 16, generator=generator)
    with torch.enable_grad():
        network(x, torch.tensor([10, 900])).sample.square().mean().backward()


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_network_is_updated_as_by_separate_tensors_to_the_bit(clip, memory_format):
    one, other = two_networks(memory_format)
    separate, joined = Separate(one), Joined(other)
    for step in range(4):
        norms = []
        for network, loop in ((one, separate), (other, joined)):
            backward(network, step)
            norms.append(loop.update(clip))
        assert torch.equal(*norms)
    assert len(joined.weights.tensors) == 2, "the bias of three channels is left by itself"
    averages = joined.weights.split(joined.ema.shadow_params)
    for a, b, average, expected in zip(
        one.parameters(), other.parameters(), averages, separate.ema.shadow_params, strict=True
    ):
        assert torch.equal(a, b) and a.stride() == b.stride()
        assert torch.equal(average, expected)
    moved = [not torch.equal(a, b) for a, b in zip(other.parameters(), two_networks()[0].parameters(), strict=True)]
    assert all(moved), "a parameter that no update reached"


def test_the_state_of_the_optimiser_is_exchanged_with_one_over_separate_tensors():
    one, other = two_networks()
    separate, joined = Separate(one), Joined(other)
    backward(one, 0), separate.update(None)
    backward(other, 0), joined.update(None)
    state, expected = joined.weights.split_moments(joined.optimizer.state_dict()), separate.optimizer.state_dict()
    assert state["param_groups"] == expected["param_groups"] and list(state["state"]) == list(expected["state"])
    for mine, theirs in zip(state["state"].values(), expected["state"].values(), strict=True):
        assert list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    # Each goes on from the other's.
    state = copy.deepcopy(state)
    joined.optimizer.load_state_dict(joined.weights.join_moments(separate.optimizer.state_dict()))
    separate.optimizer.load_state_dict(state)
    backward(one, 1), separate.update(None)
    backward(other, 1), joined.update(None)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_before_the_first_update_there_are_no_moments():
    joined = Joined(two_networks()[0])
    state = joined.weights.split_moments(joined.optimizer.state_dict())
    assert state["state"] == {} and len(state["param_groups"][0]["params"]) == 154
    joined.optimizer.load_state_dict(joined.weights.join_moments(state))
    assert joined.optimizer.state_dict()["state"] == {}


@given(st.lists(st.lists(st.sampled_from([1, 2, 4, 5, 8]), max_size=4), min_size=1, max_size=6), st.integers(0, 2**32))
def test_split_undoes_join_and_no_two_parameters_share_an_element(shapes, seed):
    network = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes])
    weights, generator = FlatParameters(network), torch.Generator().manual_seed(seed)
    each = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors = weights.join(each)
    assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in weights.tensors]
    assert all(torch.equal(a, b) for a, b in zip(weights.split(tensors), each, strict=True))
    assert sum(tensor.numel() for tensor in tensors) == sum(tensor.numel() for tensor in each)
    for tensor, new in zip(weights.tensors, tensors, strict=True):
        tensor.data.copy_(new)
    assert all(torch.equal(a, b) for a, b in zip(network, each, strict=True))


@pytest.mark.parametrize("shapes", [[(3,), (), (5, 2)], [(16,), (4, 4)], [(16,), (3,), (2, 8)]])
def test_all_some_or_none_may_be_a_multiple_of_16(shapes):
    one = torch.nn.ParameterList([torch.nn.Parameter(torch.full(shape, 0.5)) for shape in shapes])
    other = copy.deepcopy(one)
    separate, joined = Separate(one), Joined(other)
    for step in range(3):
        for network, loop in ((one, separate), (other, joined)):
            with torch.enable_grad():
                sum((p.sum() - step).square() for p in network).backward()
            loop.update(0.1)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    state, expected = joined.weights.split_moments(joined.optimizer.state_dict()), separate.optimizer.state_dict()
    assert [s["step"] for s in state["state"].values()] == [s["step"] for s in expected["state"].values()]
    back = joined.weights.join_moments(state)["state"]
    for mine, theirs in zip(back.values(), joined.optimizer.state_dict()["state"].values(), strict=True):
        assert list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_gradients_are_moved_and_none_is_left_behind():
    network, other = two_networks()
    joined, parameters = Joined(network), list(other.parameters())
    backward(network, 3), backward(other, 3)
    gradients = joined.weights.gather_gradients()
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, parameters, strict=True))
    expected = joined.weights.join([p.grad for p in parameters])
    assert all(torch.equal(t.grad, e) for t, e in zip(joined.weights.tensors, expected, strict=True))
    joined.optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in network.parameters())
