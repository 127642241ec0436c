"""The log of a training: sums over steps, fetched without making a GPU wait at each one, and rows of log.jsonl."""

import json

import torch

from ..errors import InputError, shown
from ..files import naming, write_text

__all__ = ["TrainingLog"]

ROWS = 200  # of a whole training
_DELAY = 16  # steps whose values may still be on a GPU


def _raise(line):
    raise InputError(line)


class TrainingLog:
    """Means of (loss, unweighted error, gradient norm) over the steps since the row before, in float64.

    On the CPU a step's values are checked before the update. On a GPU that would empty its queue at each step, so there
    they are fetched every 16 steps, and always before anything is written (`flush`).
    refuse: a function of a line that ends the training, in all processes. `checkpoint`: the step of the last
    checkpoint, or None; error messages name it.
    """

    def __init__(self, run, config, refuse=_raise):
        self.run, self.config, self.refuse = run, config, refuse
        self.every = max(1, config.steps // ROWS)
        self.delay = 1 if torch.device(config.device).type == "cpu" else _DELAY
        self.rows, self.checkpoint = [], None
        self.total = torch.zeros(3, dtype=torch.float64)
        self._pending = []

    def rewrite(self):
        """Write the file with the rows of the checkpoint: a killed training may have left later ones, or half a row."""
        write_text(self.run.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step, values):
        """Count the values (3,) of `step`, counted from 1. Ends the training, naming the step, if one is not finite."""
        self._pending.append((step, values))
        if len(self._pending) >= self.delay:
            self.flush()

    def flush(self):
        """Fetch what is still on the device, so that `total` holds every step."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([values for _, values in pending]).double().cpu()
        for (step, _), row in zip(pending, values, strict=True):
            if not bool(row.isfinite().all()):
                self.refuse(self.not_finite_line(f"at step {step} (loss {row[0]:g}, gradient norm {row[2]:g})"))
            self.total += row

    def not_finite_line(self, where):
        """The error line for a loss that is not finite: where that was, what to do, and which checkpoint is kept."""
        kept = "no checkpoint was made"
        if self.checkpoint is not None:
            kept = f"the checkpoint of step {self.checkpoint} is kept"
        name = shown(self.run.name, 60).strip("'")
        hint = f"lower lr={self.config.lr:g} or bound the weight"
        return f"the loss of {name} is not finite {where}; {hint}; {kept}"

    def is_due(self, step):
        """Whether a row is to be written after this step."""
        return step % self.every == 0 or step == self.config.steps

    def write(self, step, seconds, lr, ema_decay):
        """Append the row of the steps since the last one. seconds: of all steps so far."""
        loss, mse, norm = (self.total / (step % self.every or self.every)).tolist()
        self.total.zero_()
        images, last = step * self.config.batch_size, self.rows[-1] if self.rows else {"images": 0, "seconds": 0.0}
        row = {
            "step": step,
            "images": images,
            "loss": loss,
            "mse": mse,
            "grad_norm": norm,
            "lr": lr,
            "ema_decay": ema_decay,
            "images_per_second": (images - last["images"]) / (seconds - last["seconds"]),
            "seconds": seconds,
        }
        self.rows.append(row)
        path = self.run.folder / "log.jsonl"
        with naming(path), open(path, "a", encoding="utf-8") as file:  # half a row is cut off when the run goes on
            file.write(json.dumps(row) + "\n")
