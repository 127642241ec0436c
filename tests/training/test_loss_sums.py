"""Sums are exact and in order whatever the delay, and nothing is missed where values are fetched late."""

import pytest
import torch

from debiaslib.errors import InputError
from debiaslib.training.loss_sums import LossSums

VALUES = torch.rand(37, 3, generator=torch.Generator().manual_seed(0))


def sums(delay):
    made = LossSums("debiased-s0", 0.1, "cpu")
    assert made.delay == 1
    made.delay = delay
    return made


@pytest.mark.parametrize("delay", [1, 16, 100])
def test_the_delay_changes_no_bit(delay):
    made, wanted = sums(delay), torch.zeros(3, dtype=torch.float64)
    for step, values in enumerate(VALUES, 1):
        made.add(step, values)
        wanted += values.double()
    made.settle()
    assert torch.equal(made.total, wanted)
    made.settle()
    assert torch.equal(made.total, wanted)


@pytest.mark.parametrize("delay", [1, 4, 100])
@pytest.mark.parametrize(("column", "bad"), [(0, float("nan")), (2, float("inf"))])
def test_the_step_that_broke_is_named(delay, column, bad):
    made, values = sums(delay), VALUES.clone()
    values[5:, column] = bad
    with pytest.raises(InputError, match="the loss of debiased-s0 is not finite at step 6 .* lower lr=0.1 ") as caught:
        for step, row in enumerate(values, 1):
            made.add(step, row)
        made.settle()
    assert "\n" not in str(caught.value)


def test_a_gpu_is_not_waited_for_at_each_step():
    assert LossSums("one", 0.1, "cuda:0").delay > 1
