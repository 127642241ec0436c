"""The saved tables of an experiment as verdicts and sentences read them: errors and distances by seed. No torch."""

import functools
from pathlib import Path

import pandas as pd

from ..study.saved_tables import read_rows

__all__ = ["ResultTables"]

_NONE = pd.Series(dtype=float)


class ResultTables:
    """The tables of results/<experiment> `folder`, each read once; None where there is no such file."""

    def __init__(self, folder):
        self.folder, self._read = Path(folder) / "tables", {}

    def __getitem__(self, name):
        if name not in self._read:
            path = self.folder / name
            self._read[name] = read_rows(path) if path.is_file() else None
        return self._read[name]

    def errors(self, quantity, t, model):
        """The mean errors on training images of each seed of a model: a Series by seed; empty where not measured."""
        table = self["mse.csv"]
        if table is None:
            return _NONE
        chosen = (table.quantity == quantity) & (table.t == t) & (table.model == model) & (table.split == "train")
        return table[chosen].set_index("seed")["mean"].sort_index()

    @functools.cached_property
    def judged(self):
        """The distances of all trainings' EMA networks, as distances-<run>.csv have them; None where there are none."""
        parts = [read_rows(path) for path in sorted(self.folder.glob("distances-*-s*.csv"))]
        return pd.concat(parts).query("network == 'ema'") if parts else None

    def distances(self, metric, steps, arm):
        """A distance of an arm's fully trained networks, by the first sampler: a Series by seed."""
        table, (weighting, _, variant) = self.judged, arm.partition("; ")
        if table is None:
            return _NONE
        chosen = (table.metric == metric) & (table.steps == steps)
        chosen &= (table.weighting == weighting) & (table.variant == variant)
        chosen &= (table.sampler == table.sampler.iloc[0]) & (table.images_seen == table.images_seen.max())
        return table[chosen].drop_duplicates("seed").set_index("seed").value.sort_index()

    @property
    def steps(self):
        """The sampling steps of the distances, ascending; those that the training curves alone use count too."""
        return [] if self.judged is None else sorted(set(self.judged.steps.astype(int)))

    @property
    def arms(self):
        """The weightings that were measured, in the order of the table of errors."""
        table = self["mse.csv"]
        return [] if table is None else [m for m in dict.fromkeys(table.model) if m not in ("initial", "optimum")]

    def rivals(self, *ours):
        """The weightings that were measured beside these; none where the first of these was not."""
        return [arm for arm in self.arms if arm not in ours] if ours[0] in self.arms else []

    def timestep(self, near):
        """The measured timestep of the table of errors that is nearest to this one; None without the table."""
        table = self["mse.csv"]
        return None if table is None else min(set(table.t), key=lambda t: (abs(t - near), t))

    @property
    def feature_distance(self):
        """The Fréchet distance in the features that look at the drawing, else in pooled pixels."""
        names = set() if self.judged is None else set(self.judged.metric)
        return next((n for n in ("fid", "fd_cifar10", "fd_minifaces", "fd_pooled") if n in names), "fd_pooled")
