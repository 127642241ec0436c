"""What happened here: the sentences and the verdicts that a chapter shows, computed from the saved tables.

A sentence says what the tables hold, whichever way they fall; where they do not hold it, it says that. No torch.
"""

import functools

import pandas as pd

from ..figures.registry import Sentence
from ..metrics.statistics import mean_interval, paired_ratio
from . import verdicts as judged
from .numbers_as_text import bracketed, number, with_interval
from .results_read import ResultTables, name_of

_NOT_MEASURED = Sentence("Here: the tables of this experiment do not hold these numbers.")
_CELL = 'style="text-align: left; vertical-align: top; white-space: normal"'


class Table:
    """A DataFrame of text as a notebook shows it: lines are broken and nothing is cut; scrolled on a narrow screen."""

    def __init__(self, frame):
        self.frame = frame

    def __repr__(self):
        return self.frame.to_string(index=False)

    def _repr_html_(self):
        with pd.option_context("display.max_colwidth", None):
            text = self.frame.to_html(index=False, border=0, escape=True)
        text = text.replace("<td>", f"<td {_CELL}>").replace("<th>", f"<th {_CELL}>")
        return text.replace("<table ", '<table style="min-width: 36rem" ', 1)


def verdicts(chapter, folder):
    """The verdicts of a chapter, 1 to 7, from the tables of results/<experiment> `folder`; a sentence without any."""
    frame = judged.verdicts(chapter, folder)
    return Sentence("The tables of this experiment judge none of these claims.") if frame.empty else Table(frame)


def verdict(chapter, folder, claim):
    """The verdicts of a chapter whose claims contain `claim`, as one sentence: what was found, and what it says."""
    frame = judged.verdicts(chapter, folder)
    rows = frame[frame.claim.str.contains(claim, regex=False)].to_dict("records")
    if not rows:
        return _NOT_MEASURED
    return Sentence("Here: " + " ".join(f"{row['found here']}. *{row['claim']}* **{row['verdict']}**." for row in rows))


def errors(folder, quantity, *timesteps):
    """An error of tables/mse.csv, such as "x0_mse", of each network and of the optimum near these timesteps."""
    tables, lines, said = ResultTables(folder), [], []
    for near in timesteps:
        t = tables.timestep(near)
        values = {arm: tables.errors(quantity, t, arm).mean() for arm in (*tables.arms, "optimum")}
        said = [f"{tables.named(arm)} {value:.3g}" for arm, value in values.items() if value == value]
        lines.append(f"at t = {t} {', '.join(said)}")
    if not said:
        return _NOT_MEASURED
    return Sentence(f"Here: {quantity} is {'; '.join(lines)}. {tables.seeds.capitalize()}.")


def error_ratios(folder, *quantities, timesteps=None):
    """Errors of each weighting over those of the first, by timestep and paired by training seed: a DataFrame of text.

    quantities: such as "x0_mse" and "excess". timesteps: those of tables/mse.csv that are to be shown; None for all.
    Intervals are 95 % t-intervals over the seeds, without brackets for one seed. A sentence where there is one network.
    """
    tables = ResultTables(folder)
    known = [t for t in sorted(set(tables["mse.csv"].t)) if timesteps is None or t in set(timesteps)]
    return _ratios(tables, "t", known, {q: functools.partial(tables.errors, q) for q in quantities})


def distance_ratios(folder):
    """Frechet distances of each weighting over those of the first, by sampling steps: as `error_ratios`."""
    tables = ResultTables(folder)
    metric = tables.feature_distance
    return _ratios(tables, "steps", tables.steps, {metric: functools.partial(tables.distances, metric)})


def _ratios(tables, index, rows, columns):
    """columns: {name: a function of (row, arm) that gives the values by seed}."""
    base, *others = tables.arms
    found = {
        (name, tables.named(other)): {row: _ratio_text(values(row, other), values(row, base)) for row in rows}
        for name, values in columns.items() for other in others
    }  # fmt: skip
    if not found:
        return Sentence("One network is shown, so there is nothing to compare it with.")
    return pd.DataFrame(found).rename_axis(index).rename_axis([f"ratio to {name_of(base)}", tables.seeds], axis=1)


def _ratio_text(ours, base):
    seeds = ours.index.intersection(base.index)
    return bracketed(*paired_ratio(ours[seeds], base[seeds])) if len(seeds) else "–"


def control_ratios(folder):
    """tables/controls.csv as a `Table`: condition by outcome, the ratio debiased / constant and its 95 % interval."""
    rows = ResultTables(folder)["controls.csv"]
    rows["text"] = [bracketed(row.ratio, row.low, row.high) for row in rows.itertuples()]
    shown = rows.pivot(index="condition", columns="outcome", values="text")
    return Table(shown.loc[rows.condition.unique(), rows.outcome.unique()].reset_index().rename_axis(columns=None))


def distance_means(folder, metric=""):
    """Mean of a distance over training seeds, by sampling steps, beside that of other real images: a DataFrame of text.

    After ±: half the 95 % t-interval over the seeds. metric: empty for the Fréchet distance of the experiment.
    """
    tables = ResultTables(folder)
    if not tables.steps:
        return _NOT_MEASURED
    metric, real, steps = metric or tables.feature_distance, tables["distances-real.csv"], tables.steps

    def text(values):
        mean, low, high = mean_interval(values) if len(values) else (float("nan"),) * 3
        return with_interval(mean, (high - low) / 2)

    found = {tables.named(arm): [text(tables.distances(metric, n, arm)) for n in steps] for arm in tables.arms}
    if real is not None and (real.metric == metric).any():
        found["other real images"] = number(real[real.metric == metric]["value"].mean())
    return pd.DataFrame(found, index=steps).rename_axis("steps").rename_axis(f"{metric}, {tables.seeds}", axis=1)
