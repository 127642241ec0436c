"""How long the parts of an experiment take, from the records of those that are there. Imports no torch.

Seconds are wall-clock, with as many jobs side by side as the records were made with. What no record tells is
reckoned from the pace of training by the images that go through the network (`progress`).
"""

import statistics

from ..files import read_json
from ..training.config import run_name
from ..training.run import Run
from .progress import long_work, sampling_work, training_work

__all__ = ["Pace", "START", "OF_ALL", "OF_ONE"]

START = 15  # seconds in which a worker imports its libraries and loads its data
REPORT = 20
NOTEBOOK = 30  # on an unknown machine
MEASURE_ALL = 60
_FLOAT32 = 4  # measurements are in float32: so much slower than a training in bfloat16, on GPUs
OF_ONE = ("samples-{}.npz", "training-{}.npz", "distances-{}.csv")
OF_ALL = ("weights.csv", "gradient_noise.csv", "one_step.npz", "mse.csv", "bias.csv")


class Pace:
    """Estimates for `experiment` in its `folder`, made anew from the records at each question."""

    def __init__(self, experiment, folder, jobs):
        self.experiment, self.folder, self.jobs = experiment, folder, jobs

    def training(self, arm, seed):
        """Seconds that are left of a training, or None where nothing has been trained yet."""
        per_work = self._per_work()
        run, config = Run(self.folder / "runs" / run_name(arm, seed)), self.experiment.train_config(arm, seed)
        if run.record is not None:
            return 0.0
        done = (run.last_row() or {"images": 0})["images"] / config.images
        return None if per_work is None else START + (1 - min(1, done)) * training_work(config) * per_work

    def measuring(self, arm, seed):
        """Seconds of the tables of one training, or None."""
        known = [self._noted(run_name(*run), OF_ONE) for run in self.experiment.runs]
        work = sampling_work(self.experiment, self.experiment.train_config(arm, seed))
        return self._estimate(self._noted(run_name(arm, seed), OF_ONE), known, work)

    def long(self, arm, seed):
        """Seconds of the table at many steps of one training, or None."""
        known = [self._noted(run_name(*run), ("long-{}.csv",)) for run in self.experiment.long_runs]
        return self._estimate(self._noted(run_name(arm, seed), ("long-{}.csv",)), known, long_work(self.experiment))

    def finishing(self, runs):
        """Seconds of the tables of all of so many runs together, the notebooks and the report."""
        notes = [read_json(self.folder / "tables" / f"{name}.json") for name in (*OF_ALL, "distances-real.csv")]
        measured = max((len(note["inputs"].get("runs", ())) for note in notes if note), default=0)
        tables = sum(note["seconds"] for note in notes if note) * runs / measured if measured else MEASURE_ALL
        names = self.experiment.notebooks
        known = [note["seconds"] for name in names if (note := read_json(self.folder / "notebooks" / f"{name}.json"))]
        each = statistics.mean(known) if known else NOTEBOOK
        return START + tables + REPORT + -(-len(names) // self.jobs) * (START + each)

    def _per_work(self):
        """Seconds of an image that goes through a network in training."""
        rates = []
        for run in self.experiment.runs:
            record = Run(self.folder / "runs" / run_name(*run)).record
            if record is not None:
                rates.append(record["seconds"] / training_work(self.experiment.train_config(*run)))
        return statistics.mean(rates) if rates else None

    def _noted(self, name, tables):
        """Seconds of the tables of a run, if they are all there."""
        notes = [read_json(self.folder / "tables" / f"{table.format(name)}.json") for table in tables]
        return sum(note["seconds"] for note in notes) if all(notes) else None

    def _estimate(self, own, known, work):
        if own is not None:
            return 0.0
        known = [seconds for seconds in known if seconds is not None]
        if known:
            return START + statistics.mean(known)
        per_work = self._per_work()
        if per_work is None:
            return None
        slower = _FLOAT32 if self.experiment.train_config(*self.experiment.runs[0]).precision != "float32" else 1
        return START + work * per_work * slower
