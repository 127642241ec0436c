"""A study: an experiment bound to its results folder. What a notebook or a command asks for is found there, or made."""

import time
from dataclasses import dataclass
from pathlib import Path

from .config import Experiment, load_experiment
from .errors import InputError
from .files import atomic_path, exclusive, read_json, sha256_file, sha256_json, write_json
from .notebook import check_parameters
from .paths import results_root
from .runs import find_run, provenance


@dataclass(frozen=True)
class Study:
    """`experiment` and the folder of all results; the experiment's own is `folder`."""

    experiment: Experiment
    results: Path

    @property
    def folder(self):
        """results/<experiment>."""
        return self.results / self.experiment.name

    def run(self, arm, seed):
        """The complete `Run` of one (arm, seed); trains it, with a progress bar, if it is not there."""
        from .training import train

        return train(self.experiment.train_config(arm, seed), self.results, self.experiment.name)

    def model(self, arm, seed, images=None, *, raw=False):
        """The network of one (arm, seed): its EMA after `images` images (None: at the end), or the last weights."""
        from .models import load_model

        return load_model(self.run(arm, seed), images, self.device, raw=raw)

    @property
    def schedule(self):
        """The experiment's noise schedule."""
        from .models import build_schedule

        return build_schedule(self._config)

    @property
    def device(self):
        """The device that the experiment's networks run on."""
        return self._config.device

    @property
    def prediction_type(self):
        """What the networks of the experiment's weightings predict; an arm may say otherwise."""
        return self._config.prediction_type

    def prediction_type_of(self, arm):
        """What an arm's networks predict."""
        return self.experiment.train_config(arm, self.experiment.seeds[0]).prediction_type

    def images(self, split="train"):
        """The experiment's `ImageSet` of a split, or None where there is no held-out one."""
        from .data import load_images

        return load_images(self._config.dataset, self._config.resolution, split=split)

    @property
    def _config(self):
        return self.experiment.train_config(*self.experiment.runs[0])

    def identity(self, arm, seed):
        """What decides a complete run's weights: the hash of its configuration and of its last snapshot."""
        run = find_run(self.experiment.name, arm, seed, self.results)
        record = run.record
        if record is None:
            raise InputError(f"the run {run.folder} is not complete; train it first")
        return {"config": sha256_json(run.config), "ema": record["snapshots"][-1]["sha256"]}

    def has(self, name, inputs):
        """Whether tables/<name> stands as it was made from equal inputs, so that `table` would not make it again."""
        path = self.folder / "tables" / name
        return _is_current(path, path.with_name(path.name + ".json"), sha256_json(inputs))

    def table(self, name, inputs, make):
        """The path of tables/<name>: as it stands if made from equal inputs, else made by `make(temporary path)`.

        inputs: JSON-native; everything that decides the content. A file that is not what its record says is made again.
        """
        path = self.folder / "tables" / name
        note = path.with_name(path.name + ".json")
        key = sha256_json(inputs)
        if _is_current(path, note, key):
            return path
        with exclusive(path.with_name(f".{name}.lock"), f"the table {path}"):
            if not _is_current(path, note, key):
                started = time.monotonic()
                with atomic_path(path) as temporary:
                    make(temporary)
                record = {"table": name, "key": key, "inputs": inputs, "sha256": sha256_file(path)}
                config = self._config
                seconds = {"seconds": round(time.monotonic() - started, 2)}
                write_json(note, {**record, **seconds, **provenance(config.device, config.threads)})
        return path


def _is_current(path, note, key):
    record = read_json(note)
    if not path.exists() or not isinstance(record, dict) or record.get("key") != key:
        return False
    return record.get("sha256") == sha256_file(path)


def open_study(experiment="quick", dataset="", results=""):
    """The `Study` of an experiment by name or YAML path. Raises InputError for anything wrong in it."""
    return Study(load_experiment(experiment, dataset), results_root(results))


def begin(namespace):
    """The `Study` that a notebook's parameters name: call it as `begin(globals())` right after the parameters cell.

    Raises InputError for a parameter that papermill was given and the notebook does not have, or of another type than
    declared.
    """
    import os

    import torch

    check_parameters(namespace)
    study = open_study(*(namespace[name] for name in ("experiment", "dataset", "results")))
    torch.set_num_threads(study._config.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(study._config.threads))
    return study
