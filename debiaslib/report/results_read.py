"""The saved tables of an experiment as verdicts and sentences read them: errors and distances by seed. No torch."""

import numpy as np
import pandas as pd

from ..study.saved_tables import read_rows

__all__ = ["ResultTables"]


class ResultTables:
    """The tables of an experiment, each read once; None where there is no such file."""

    def __init__(self, folder):
        self.folder, self._read = folder, {}

    def __getitem__(self, name):
        if name not in self._read:
            path = self.folder / name
            self._read[name] = read_rows(path) if path.is_file() else None
        return self._read[name]

    def errors(self, quantity, t, model):
        """The mean errors on training images of each seed of a model: a Series by seed; empty where not measured."""
        table = self["mse.csv"]
        if table is None:
            return pd.Series(dtype=float)
        chosen = (table.quantity == quantity) & (table.t == t) & (table.model == model) & (table.split == "train")
        return table[chosen].set_index("seed")["mean"].sort_index()

    def distances(self, metric, steps, arm, features=None):
        """A distance of fully trained networks of an arm (EMA, the first sampler) by seed: a Series."""
        parts = [read_rows(path) for path in sorted(self.folder.glob("distances-*-s*.csv"))]
        if not parts:
            return pd.Series(dtype=float)
        table = pd.concat(parts)
        table = table[(table.network == "ema") & (table.sampler == table.sampler.iloc[0])]
        arms = [f"{w}; {v}" if v else w for w, v in zip(table.weighting, table.variant.fillna(""), strict=True)]
        chosen = (table.metric == metric) & (table.steps == steps) & (np.array(arms) == arm)
        chosen &= table.images_seen == table.images_seen.max()
        if features:
            chosen &= table.features == features
        return table[chosen].drop_duplicates("seed").set_index("seed").value.sort_index()

    @property
    def steps(self):
        """The sampling steps of the distances, ascending; those that the training curves alone use count too."""
        parts = [read_rows(path).steps for path in sorted(self.folder.glob("distances-*-s*.csv"))]
        return sorted(set(pd.concat(parts).astype(int))) if parts else []

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
        parts = sorted(self.folder.glob("distances-*-s*.csv"))
        names = {n for n in read_rows(parts[0]).metric if n.startswith("fd_") or n == "fid"} if parts else set()
        return next((n for n in ("fid", "fd_cifar10", "fd_minifaces", "fd_pooled") if n in names), "fd_pooled")
