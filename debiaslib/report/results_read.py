"""The saved tables of an experiment as verdicts and sentences read them: errors and distances by seed. No torch."""

import functools
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..store import check_file
from ..study.saved_tables import read_rows
from ..training.arms import parse_arm


def name_of(arm):
    """An arm as a reader knows it, such as "P2 (1, 1)"; the optimum and a network that others trained as it is."""
    try:
        return parse_arm(arm).label
    except InputError:
        return str(arm)


class ResultTables:
    """The tables of results/<experiment> `folder`, each read once; None where there is no such file.

    Raises InputError for a table that is not what was written.
    """

    def __init__(self, folder):
        self.folder, self._read = Path(folder) / "tables", {}

    def __getitem__(self, name):
        if name not in self._read:
            path = self.folder / name
            if path.is_file():
                check_file(path)
            self._read[name] = read_rows(path) if path.is_file() else None
        return self._read[name]

    def errors(self, quantity, t, arm):
        """The mean errors on training images of each seed of an arm: a Series by seed; empty where not measured."""
        weighting, _, variant = arm.partition("; ")
        compared = self["mse.csv"] is not None and arm in set(self["mse.csv"].model)  # else in arm_errors.csv
        table, value = (self["mse.csv"], "mean") if compared else (self["arm_errors.csv"], "value")
        if table is None:
            return pd.Series(dtype=float)
        chosen = (table.quantity == quantity) & (table.t == t)
        if compared:
            chosen &= (table.split == "train") & (table.model == arm)
        else:
            chosen &= (table.weighting == weighting) & (table.variant == variant) & (table.network == "ema")
        return table[chosen].set_index("seed")[value].sort_index()

    @functools.cached_property
    def judged(self):
        """The distances of all trainings' EMA networks, as distances-<run>.csv have them."""
        parts = [self[path.name] for path in sorted(self.folder.glob("distances-*-s*.csv"))]
        columns = ["weighting", "variant", "seed", "network", "sampler", "steps", "images_seen", "metric", "value"]
        table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
        return table[table.network == "ema"]

    @functools.cached_property
    def final(self):
        """Of `judged` the rows at the end of each training, by the first sampler."""
        table = self.judged[self.judged.sampler == next(iter(self.judged.sampler), "")]
        seen = table.images_seen.fillna(0)  # not known of a network that others trained
        return table[seen == seen.groupby([table.weighting, table.variant, table.seed]).transform("max")]

    def distances(self, metric, steps, arm):
        """A distance of an arm's fully trained networks: a Series by seed; empty where not measured."""
        weighting, _, variant = arm.partition("; ")
        chosen = (self.final.metric == metric) & (self.final.steps == steps)
        chosen &= (self.final.weighting == weighting) & (self.final.variant == variant)
        return self.final[chosen].drop_duplicates("seed").set_index("seed").value.sort_index()

    def named(self, arm):
        """`name_of(arm)`, with its number of training seeds where other arms have more."""
        seeds = self.final.groupby(["weighting", "variant"]).seed.nunique()
        own = seeds.get(tuple(arm.partition("; ")[::2]), seeds.max())
        return f"{name_of(arm)} ({own} seeds)" if own < seeds.max() else name_of(arm)

    @property
    def steps(self):
        """The sampling steps at which the fully trained networks were judged, ascending."""
        return sorted(set(self.final.steps.astype(int)))

    @property
    def arms(self):
        """The weightings that were measured: those of the table of errors, then those with distances alone."""
        compared = [] if self["mse.csv"] is None else self["mse.csv"].model
        found = [*compared, *self.final.weighting[self.final.variant == ""]]
        return [arm for arm in dict.fromkeys(found) if arm not in ("initial", "optimum")]

    def timestep(self, near):
        """The measured timestep of the table of errors that is nearest to this one; None without the table."""
        table = self["mse.csv"]
        return None if table is None else min(set(table.t), key=lambda t: (abs(t - near), t))

    @functools.cached_property
    def missed(self):
        """The arms of which a training has missed the gate: a set; empty without a table of the gate."""
        gate = self["gate.csv"]
        return set() if gate is None else {*gate.arm[~gate.passes]}

    def swap(self):
        """Of the oracle swap, constant's layout_energy at the most steps, by seed: (t_star, alone, swapped).

        alone: constant at all t; swapped[">"], swapped["<="]: the exact optimum in its place at t > t_star, at t <=
        t_star, for the t_star nearest to 600. (None, None, {}) where it was not measured.
        """
        table = self["oracle_swap.csv"]
        if table is None or not (table.t_star >= 0).any():
            return None, None, {}
        table = table[table.metric == "layout_energy"]
        table = table[table.steps == table.steps.max()]
        t_star = min((t for t in set(table.t_star) if t >= 0), key=lambda t: abs(t - 600))

        def values(above, below, t):
            chosen = (table.above == above) & (table.below == below) & (table.t_star == t)
            return table[chosen].set_index("seed").value.sort_index()

        swapped = {">": values("optimum", "constant", t_star), "<=": values("constant", "optimum", t_star)}
        return t_star, values("constant", "constant", -1), swapped

    @property
    def seeds(self):
        """What the training seeds of these tables are: "one training seed", "mean of 6 training seeds"."""
        table = self.judged if self["mse.csv"] is None else self["mse.csv"]
        return "one training seed" if (n := table.seed.nunique()) == 1 else f"mean of {n} training seeds"

    @property
    def feature_distance(self):
        """The Fréchet distance in the features that look at the drawing, else in pooled pixels."""
        return next((n for n in ("fid", "fd_cifar10", "fd_minifaces") if (self.judged.metric == n).any()), "fd_pooled")
