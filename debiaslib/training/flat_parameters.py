"""A network's parameters in one tensor, so that an optimiser's step or a moving average is one operation, not hundreds.

A small network has as many tensors as a large one, and on a CPU each operation on each of them costs microseconds: a
thirtieth of a step of the smallest here. The results are those of separate tensors, to the bit on one thread: vector
units take up to 16 numbers at a time and what is left over is rounded otherwise, so parameters whose size is no
multiple of 16 stay by themselves.
"""

import torch

__all__ = ["FlatParameters"]

_VECTOR = 16  # float32 numbers in the widest vector register


class FlatParameters:
    """The parameters of `network` as few tensors: one (n,) of which most become views, and the few others.

    `tensors` are these, for an AdamW and an EMAModel. Give the network its device, dtype and memory format before, and
    change none of them after. Every parameter must get a gradient in every backward pass.
    """

    def __init__(self, network):
        self._parameters = list(network.parameters())
        self._offsets, size = {}, 0
        for number, parameter in enumerate(self._parameters):
            if parameter.numel() % _VECTOR == 0:
                self._offsets[number] = size
                size += parameter.numel()
        self._rest = [number for number in range(len(self._parameters)) if number not in self._offsets]
        flat = self._parameters[0].new_empty(size)
        self._fill(flat, [parameter.detach() for parameter in self._parameters])
        self._gradient = torch.zeros_like(flat)
        self._gradients = self._views(self._gradient)
        for number, view in self._views(flat).items():
            self._parameters[number].data = view
        self._flat = torch.nn.Parameter(flat)
        self.tensors = [self._flat, *(self._parameters[number] for number in self._rest)]

    def gather_gradients(self):
        """Give `tensors` the gradients of the last backward pass; return these, one a parameter in the network's order.

        AdamW's zero_grad(set_to_none=True) then leaves the network without any.
        """
        joined = [self._parameters[number] for number in self._offsets]
        if joined:  # torch takes no empty lists
            torch._foreach_copy_(list(self._gradients.values()), [parameter.grad for parameter in joined])
        for parameter in joined:
            parameter.grad = None
        self._flat.grad = self._gradient
        return self._in_order(self._gradients, [tensor.grad for tensor in self.tensors[1:]])

    def split(self, tensors):
        """What belongs to each parameter in tensors like `tensors`, in the network's order: views, in its own shape."""
        return self._in_order(self._views(tensors[0]), tensors[1:])

    def join(self, each):
        """The inverse of `split`: new tensors like `tensors` of one tensor for each parameter."""
        flat = torch.empty_like(self._gradient)
        self._fill(flat, each)
        return [flat, *(each[number].to(flat.device) for number in self._rest)]

    def split_moments(self, state):
        """The `state_dict()` of an AdamW over `tensors` as that of one over the network's parameters."""
        owners = self._in_order(dict.fromkeys(self._offsets, 0), range(1, len(self.tensors)))
        return _regrouped(state, self.split, owners)

    def join_moments(self, state):
        """The inverse of `split_moments`. All parameters must have been updated equally often."""
        return _regrouped(state, self.join, [next(iter(self._offsets), 0), *self._rest])

    def _views(self, flat):
        """{number: the part of a tensor (n,) that belongs to that parameter, in its shape and memory format}."""
        return {
            number: flat.as_strided(self._parameters[number].shape, self._parameters[number].stride(), offset)
            for number, offset in self._offsets.items()
        }

    def _in_order(self, joined, rest):
        """One list in the network's order of {number: what belongs to a joined parameter} and what to the others."""
        parts = joined | dict(zip(self._rest, rest, strict=True))
        return [parts[number] for number in range(len(self._parameters))]

    def _fill(self, flat, each):
        for number, view in self._views(flat).items():
            view.copy_(each[number])


def _regrouped(state, regroup, owners):
    """An AdamW's state with its moments regrouped. owners: for each new tensor, one that counted its updates before."""
    [group], before = state["param_groups"], state["state"]
    moments = {number: {"step": before[owner]["step"].clone()} for number, owner in enumerate(owners) if before}
    for name in [name for name in before.get(0, {}) if name != "step"]:
        for number, tensor in enumerate(regroup([before[number][name] for number in range(len(before))])):
            moments[number][name] = tensor
    return {"state": moments, "param_groups": [{**group, "params": list(range(len(owners)))}]}
