"""A study: an experiment bound to its results folder. What a notebook or a command asks for is found there, or made."""

import ast
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data.images import load_images
from ..errors import InputError, check_choice, shown
from ..files import sha256_json
from ..paths import checkout, results_root
from ..provenance import provenance
from ..store import stored
from ..training.load import load_model, load_pretrained
from ..training.loop import train
from ..training.network import build_schedule
from ..training.published_weights import take_published
from ..training.run import find_run
from .experiment import Experiment, load_experiment
from .pretrained_study import experiment_of_one, run_of_one
from .saved_tables import read_arrays, read_rows

_TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": (list, tuple)}


@dataclass(frozen=True)
class Study:
    """`experiment` and the folder of all results; the experiment's own is `folder`."""

    experiment: Experiment
    results: Path
    trained_here = True  # the networks are the experiment's own trainings

    @property
    def folder(self):
        """results/<experiment>."""
        return self.results / self.experiment.name

    def run(self, arm, seed):
        """The complete `Run` of one (arm, seed); trains it, with a progress bar, if it is not there."""
        e = self.experiment
        if e.weights:
            take_published(checkout() / e.weights, find_run(e.name, arm, seed, self.results))
        return train(e.train_config(arm, seed), self.results, e.name)

    def model(self, arm, seed, images=None, *, raw=False):
        """The network of one (arm, seed): its EMA after `images` images (None: at the end), or the last weights."""
        return load_model(self.run(arm, seed), images, self.config.device, raw=raw)

    def images_seen(self, arm, seed):
        """How many images a training saw, as text."""
        images = self.run(arm, seed).record["images"]
        return f"{images:,}" if images else "an unknown number of"

    @property
    def formulas(self):
        """The weightings whose formulas are compared."""
        return self.experiment.weightings

    @property
    def schedule(self):
        """The experiment's noise schedule."""
        return build_schedule(self.config)

    @property
    def config(self):
        """The `TrainConfig` of the first run; its data, network, schedule and device are those of all."""
        return self.experiment.train_config(*self.experiment.runs[0])

    def prediction_type_of(self, arm):
        """What an arm's networks predict."""
        return self.experiment.train_config(arm, self.experiment.seeds[0]).prediction_type

    def images(self, split="train"):
        """The experiment's `ImageSet` of a split, with labels if its networks take them; None without held-out ones."""
        config = self.config
        return load_images(config.dataset, config.resolution, split=split, classes=config.classes)

    def identity(self, arm, seed):
        """What decides a complete run's weights: the hashes of its configuration and last snapshot; else InputError."""
        run = find_run(self.experiment.name, arm, seed, self.results)
        record = run.record
        if record is None:
            raise InputError(f"the run {run.folder} is not complete; train it first")
        return {"config": sha256_json(run.config), "ema": record["snapshots"][-1]["sha256"]}

    def table(self, name, inputs, make):
        """The path of tables/<name>: as it stands if made from equal inputs, else made by `make(temporary path)`.

        inputs: JSON-native; everything that decides the content. See `store.stored`.
        """
        where = self.config.device, self.config.threads
        return stored(self.folder / "tables" / name, inputs, make, facts=lambda: {"table": name, **provenance(*where)})

    def csv(self, name, inputs, rows, digits):
        """tables/<name> as a DataFrame: as `table`, made of what `rows()` returns, numbers with so many digits."""
        form = {"index": False, "float_format": f"%.{digits}g"}
        return read_rows(self.table(name, inputs, lambda path: pd.DataFrame(rows()).to_csv(path, **form)))

    def arrays(self, name, inputs, make):
        """tables/<name>, an .npz file, as a dict of arrays: as `table`, made of the dict that `make()` returns."""

        def write(path):
            with open(path, "wb") as file:  # an open file: numpy would append .npz to a path
                np.savez_compressed(file, **make())

        return read_arrays(self.table(name, inputs, write))


@dataclass(frozen=True)
class PretrainedStudy(Study):
    """A `Study` of one `load.Pretrained`, the only arm of its experiment; `compared` are weightings' formulas."""

    given: object
    compared: tuple
    trained_here = False

    @property
    def formulas(self):
        """The experiment's weightings; the network need not have been trained with one of them."""
        return self.compared

    @property
    def schedule(self):
        """The network's noise schedule."""
        return self.given.schedule

    def run(self, arm, seed):
        """What is known of the network's training."""
        return run_of_one(self.given, self.experiment)

    def model(self, arm, seed, images=None, *, raw=False):
        """The network, on the experiment's device."""
        return self.given.network.to(self.config.device)

    def identity(self, arm, seed):
        """What decides the network's answers: the hashes of its settings and of its weights."""
        return self.given.identity


def open_study(experiment="quick", dataset="", results="", model=""):
    """The `Study` of an experiment by name or YAML path: of its own trainings, or of one network trained elsewhere.

    model: what `training.load.load_pretrained` takes, such as "google/ddpm-cifar10-32"; empty for the experiment's own.
    On a GPU TF32 is switched off for the process: what is measured is measured in float32. Raises InputError.
    """
    study = Study(load_experiment(experiment, dataset), results_root(results))
    provenance()  # remembered: the checkout may be another one when a table is written
    if study.config.device.startswith("cuda"):
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    if not model:
        return study
    given = load_pretrained(model)
    return PretrainedStudy(experiment_of_one(given, study.experiment), study.results, given, study.formulas)


def open_notebook(namespace):
    """The `Study` that a notebook's parameters name; call `open_notebook(globals())` right after the parameters cell.

    Raises InputError as `check_parameters` and `open_study` do.
    """
    check_parameters(namespace)
    named = {name: namespace[name] for name in ("experiment", "dataset", "results")}
    study = open_study(**named, model=namespace.get("model", ""))
    if not study.trained_here:
        print(f"One network, trained elsewhere: {study.given.name}; results go to {study.folder.name}.")
    torch.set_num_threads(study.config.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(study.config.threads))
    return study


def check_parameters(namespace):
    """Check the parameters of the running notebook, as papermill does not: `namespace` is its `globals()`.

    The cell that papermill injects begins with "# Parameters"; each name in it must be declared, with its type, in the
    cell before it, which is the one tagged `parameters`. Raises InputError otherwise.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()]
    injected = next((i for i, cell in enumerate(cells) if cell.lstrip().startswith("# Parameters")), len(cells))
    found = _statements(cells[:injected], ast.AnnAssign)
    declared = {ast.unparse(node.target): ast.unparse(node.annotation) for node in found}
    for node in _statements(cells[injected : injected + 1], ast.Assign):
        check_choice("parameter", ast.unparse(node.targets[0]), declared)
    for name, kind in declared.items():
        value = namespace.get(name)
        wrong_bool = isinstance(value, bool) and kind != "bool"  # a bool is an int to Python
        if wrong_bool or not isinstance(value, _TYPES.get(kind, object)):
            raise InputError(f"parameter {name} is {shown(value)}; it must be of type {kind}")


def _statements(cells, kind):
    for cell in cells:
        try:
            yield from (node for node in ast.parse(cell).body if isinstance(node, kind))
        except SyntaxError:  # a cell with magics declares no parameters
            continue
