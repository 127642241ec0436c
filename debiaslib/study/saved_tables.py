"""The saved tables of an experiment, as figures read them: found, checked, and noted as used. Imports no torch."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ..diffusion.strategies import KNOWN, Strategy
from ..errors import InputError, check_choice
from ..paths import checkout
from ..store import check_file
from ..training.arms import PRETRAINED

PAPER_CURVES = "reference/paper/fid-curves.csv"


class Tables:
    """The saved tables of one experiment, read as a figure asks for them; `used` lists what was read."""

    def __init__(self, folder, run=""):
        self.folder, self.run, self.used = Path(folder), run, []

    def find(self, pattern):
        """Paths that match, sorted, without those of variants: figures of weightings show what differs in nothing else.

        Raises InputError, naming the table, if there is none.
        """
        found = [p for p in sorted(self.folder.glob(pattern)) if "--" not in str(p.relative_to(self.folder))]
        if pattern == PAPER_CURVES:
            found = [*checkout().glob(f"results/{pattern}")]
        if not found:
            raise InputError(f"{pattern} is missing in {self.folder}; make reproduce, or its notebook, makes it")
        return found

    def read(self, path, names):
        """A CSV file as a DataFrame, an npz file as a dict of arrays.

        Raises InputError if it is damaged, or lacks one of the names, of columns or arrays.
        """
        self.use(path)
        reader, kind = (read_arrays, "array") if path.suffix == ".npz" else (read_rows, "column")
        try:
            table = reader(path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:  # pandas' errors are ValueErrors
            raise InputError(f"{path} cannot be read ({error}); remove it to have it made again") from None
        for name in names.split():
            if name not in table:
                raise InputError(f"{path} has no {kind} {name!r}; it has {', '.join(table)}")
        return table

    def use(self, path):
        """Note a file as one that the figure was drawn from. Raises InputError as `check_file` does."""
        inside = path.is_relative_to(self.folder)
        file = path.relative_to(self.folder).as_posix() if inside else PAPER_CURVES
        self.used.append({"file": file, "sha256": check_file(path)})

    def chosen_run(self, names):
        """Of the names of runs the one that was asked for, or else debiased with the lowest seed, or else the first."""
        if self.run:
            return check_choice("run", self.run, names)
        return min(names, key=lambda name: (parse_run(name)[0] != "debiased", parse_run(name)[1], name))


def read_rows(path):
    """A CSV table as a DataFrame. An arm without a variant has the empty text there, which pandas reads as NaN."""
    table = pd.read_csv(path)
    return table.assign(variant=table.variant.astype(object).fillna("")) if "variant" in table else table


def read_arrays(path):
    """An npz file as a dict of arrays."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def parse_run(name):
    """(canonical weighting, seed) of a run's name, ("p2(k=1,gamma=1)", 0) of "p2-k1-gamma1-s0", else InputError."""
    if name == f"{PRETRAINED}-s0":
        return PRETRAINED, 0
    for strategy, arguments in KNOWN.items():
        match = re.fullmatch(strategy + "".join(f"-{key}(.+)" for key in arguments) + r"-s(\d+)", name)
        if match:
            *values, seed = match.groups()
            return str(Strategy(strategy, tuple(zip(arguments, map(float, values), strict=True)))), int(seed)
    raise InputError(f"{name!r} is no name of a run; it must be like 'debiased-s0' or 'p2-k1-gamma1-s0'")
