"""What a training logs of its steps, summed without making the device wait at each one."""

import torch

from ..errors import InputError, shown

_DELAY = 16  # steps whose values a GPU may still owe us


def raise_input_error(line):
    """Raise InputError with that line."""
    raise InputError(line)


class LossSums:
    """Sums of (loss, unweighted error, gradient norm) since the last row of the log, float64 on the CPU.

    On the CPU a step's values are looked at before its update is made. On a GPU that would end its queue at each step,
    so there they are fetched every few steps, and always before anything of the training is written. `name` is the
    run's, `lr` its learning rate, for the message; `refuse` ends a training with it, in whatever processes there are.
    `checkpoint` is the step of the last checkpoint, None before there is one.
    """

    def __init__(self, name, lr, device, refuse=raise_input_error):
        self.name, self.lr, self.refuse = name, lr, refuse
        self.delay = 1 if torch.device(device).type == "cpu" else _DELAY
        self.total, self.checkpoint = torch.zeros(3, dtype=torch.float64), None
        self._owed = []

    def add(self, step, values):
        """Count the values (3,) of `step`, from 1. Raises InputError, naming the step, if one is not finite."""
        self._owed.append((step, values))
        if len(self._owed) >= self.delay:
            self.settle()

    def settle(self):
        """Fetch what is still owed, so that `total` holds every step. Raises InputError as `add` does."""
        owed, self._owed = self._owed, []
        if not owed:
            return
        rows = torch.stack([values for _, values in owed]).double().cpu()
        for (step, _), row in zip(owed, rows, strict=True):
            if not bool(row.isfinite().all()):
                self.refuse(self.line(f"at step {step} (loss {row[0]:g}, gradient norm {row[2]:g})"))
            self.total += row

    def line(self, where):
        """What is said of a loss that is not finite there."""
        last = self.checkpoint
        kept = "no checkpoint was made" if last is None else f"the checkpoint of step {last} is kept"
        name = shown(self.name, 60).strip("'")
        return f"the loss of {name} is not finite {where}; lower lr={self.lr:g} or bound the weight; {kept}"
