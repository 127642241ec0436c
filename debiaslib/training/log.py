"""The log of a training: sums over steps, fetched without making a GPU wait at each one, and rows of log.jsonl."""

import json

import torch

from ..errors import InputError

ROWS = 200  # of a whole training
_DELAY = 16  # steps whose values may still be on a GPU


class TrainingLog:
    """Means of (loss, unweighted error, gradient norm) over the steps since the row before, in float64.

    On a GPU, whose queue it would empty, they are fetched every 16 steps, and before anything is written (`flush`).
    """

    def __init__(self, run, config):
        self.run, self.config = run, config
        self.every = max(1, config.steps // ROWS)
        self.delay = 1 if config.device == "cpu" else _DELAY
        self.rows = []
        self.total = torch.zeros(3, dtype=torch.float64)
        self._pending = []

    def add(self, step, values):
        """Count the values (3,) of `step`, counted from 1. Raises InputError, naming the step, if one is not finite."""
        self._pending.append((step, values))
        if len(self._pending) >= self.delay:
            self.flush()

    def flush(self):
        """Fetch what is still on the device, so that `total` holds every step."""
        pending, self._pending = self._pending, []
        for step, values in pending:
            row = values.cpu().double()
            if not bool(row.isfinite().all()):
                self.refuse(f"at step {step} (loss {row[0]:g}, gradient norm {row[2]:g})")
            self.total += row

    def refuse(self, where):
        """Raise the InputError of a loss that is not finite: where that was, and what to do."""
        hint = f"lower lr={self.config.lr:g} or bound the weight; the last checkpoint is kept"
        raise InputError(f"the loss of {self.run.name} is not finite {where}; {hint}")

    def is_due(self, step):
        """Whether a row is to be written after this step."""
        return step % self.every == 0 or step == self.config.steps

    def write(self, step, seconds, lr, ema_decay):
        """Append the row of the steps since the last one. seconds: of all steps so far."""
        loss, mse, norm = (self.total / (step % self.every or self.every)).tolist()
        self.total.zero_()
        images, last = step * self.config.batch_size, self.rows[-1] if self.rows else {"images": 0, "seconds": 0.0}
        speed = (images - last["images"]) / (seconds - last["seconds"])
        row = {"step": step, "images": images, "loss": loss, "mse": mse, "grad_norm": norm, "lr": lr,
               "ema_decay": ema_decay, "images_per_second": speed, "seconds": seconds}  # fmt: skip
        self.rows.append(row)
        with open(self.run.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")  # half a row is cut off when the run goes on
