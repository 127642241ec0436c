"""The tables of a report, from an experiment's saved tables and records alone. Imports no torch.

`runs`, `distances`, `errors` and `shares` take the experiment and its folder and return a list of `ReportTable`; what
was not measured gives none.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..figures.distances import METRICS
from ..figures.style import ordered
from ..store import check_file
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.run import Run
from .numbers_as_text import count_range, describe_spread, duration, mean_text, number
from .result_tables import grids, read_summary

__all__ = ["ReportTable", "distances", "errors", "gate", "label", "read", "runs", "shares"]

_ERRORS = {  # quantity of mse.csv: (title, caption)
    "x0_mse": ("Error of x0 by timestep", "Mean squared error of the one-step estimate, E|x0_hat - x0|^2"),
    "excess": ("Excess over the optimum by timestep", "E|x0_hat - E[x0|x_t]|^2, the error of x0 above its floor"),
}


@dataclass(frozen=True)
class ReportTable:
    """A table of text: the index of `frame` is its first column, and the index's name heads it."""

    title: str
    caption: str
    frame: pd.DataFrame


def gate(table):
    """Have the networks learned their task? Arms by timestep, the worst of their seeds. table: as of `study.gate`."""
    worst = table.assign(share=table.error / table.limit).sort_values("share").groupby(["arm", "t"], sort=False).tail(1)
    rows = [
        {"network": label(row.arm), "t": row.t, "error of x0": number(row.error), "limit": number(row.limit),
         "optimum": number(row.optimum), "returning x_t": number(row.x_t), "passes": "yes" if row.passes else "no"}
        for row in worst.sort_values(["t", "arm"], kind="stable").itertuples()
    ]  # fmt: skip
    caption = (
        "Mean squared error of the one-step estimate of x0, EMA weights, of the seed that is nearest to its limit; the "
        "exact optimum's error; and that of returning x_t. From tables/gate.csv."
    )
    return ReportTable("Have the networks learned their task?", caption, _frame(rows))


def runs(experiment, folder):
    """One row for each training of the experiment."""
    rows = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        row, record = {"weighting": label(arm), "seed": seed}, run.record
        if record is not None:
            row |= {"images seen": f"{record['images']:,}", "time": duration(record["seconds"])}
            row |= {"images/s": f"{record['images_per_second']:,.0f}"}
            row |= {f"final {name}": number(_at_end(run.log(), key)) for name, key in _LOGGED.items()}
            row |= {"parameters": f"{record['parameters']:,}"}
        rows.append(row)
    caption = (
        "From each run's record.json and log.jsonl; a row without numbers is a training that is not complete. Final "
        "loss (weighted, so not comparable between weightings) and final error (unweighted, of the network's own "
        "target) are means over the last tenth of the logged steps."
    )
    return [ReportTable("Trainings", caption, _frame(rows))]


_LOGGED = {"loss": "loss", "error": "mse"}


def _at_end(log, name):
    values = [row[name] for row in log if row.get(name) is not None]
    return float(np.mean(values[-max(1, len(values) // 10) :])) if values else math.nan


def distances(experiment, folder):
    """One table for each metric, features and sampler: weightings by sampling steps, fully trained networks."""
    summary = read_summary(folder, experiment.runs)
    if summary is None:
        return []
    summary = summary[summary.metric.isin([*METRICS, "colour_w1"])]
    found = []
    for (metric, features, sampler), title, frame in grids(summary, Markup("<b>{}</b>")):
        name = f"{METRICS.get(metric, 'Mean colours, W1 in Delta E')} ({features}, {sampler})"
        caption = f"{title}.{_real(folder, metric, features)} From tables/distances-*.csv."
        found.append(ReportTable(name, caption, frame))
    return found


def _real(folder, metric, features):
    """What other real images in the place of samples come to, as a sentence; empty where it was not measured."""
    table = read(folder, "distances-real")
    table = table[(table.metric == metric) & (table.features == features)] if table is not None else ()
    if not len(table):
        return ""
    return f" Of {table.n.iloc[0]:,.0f} other real images in the place of samples: {number(table['value'].mean())}."


def errors(experiment, folder):
    """Error of x0 and its excess over the floor, at a few timesteps: weightings by t."""
    table = read(folder, "mse")
    if table is None:
        return []
    table = table[table.split == "train"]
    return [_error_table(table, quantity) for quantity in _ERRORS if (table.quantity == quantity).any()]


def _error_table(table, quantity):
    title, what = _ERRORS[quantity]
    timesteps = evenly_spaced(sorted(table.t.unique()))
    floor = table[(table.quantity == "floor")].drop_duplicates("t").set_index("t")["mean"]  # of the data: of no seed
    table = table[(table.quantity == quantity) & ~table.model.isin(["optimum", "initial"])]
    seeds = table.seed.nunique()
    rows = []
    if quantity == "x0_mse" and len(floor):
        rows.append({"weighting": "floor"} | {f"t = {t}": number(floor.get(t, math.nan)) for t in timesteps})
    for who in ordered(table.model):
        of_t = {t: table[(table.model == who) & (table.t == t)] for t in timesteps}
        cells = {f"t = {t}": mean_text(at["mean"], at.se.mean() if seeds == 1 else math.nan) for t, at in of_t.items()}
        rows.append({"weighting": label(who), **cells})
    caption = (
        f"{what}, per pixel in [-1, 1]^2, training set, by timestep t; {count_range(table.n)} images, the same noise "
        f"for all; {describe_spread(seeds, 'one seed, ± the standard error over images')}. Floor: E Var(x0|x_t), which "
        "no network avoids. From tables/mse.csv."
    )
    return ReportTable(title, caption, _frame(rows))


def shares(experiment, folder):
    """Share of each weighting's whole weight at the noisier timesteps."""
    table = read(folder, "weights")
    if table is None:
        return []
    table = table[table.prediction_type == "epsilon"]
    T = int(table.t.max()) + 1
    rows = []
    for who in ordered(table.weighting):
        share = table[table.weighting == who].set_index("t").share
        above = {f"t > {t}": f"{100 * (1 - share[t]):.1f} %" for t in sorted({T // 2, 4 * T // 5, 9 * T // 10})}
        rows.append({"weighting": label(who), **above})
    caption = f"Share of the weight of the epsilon loss above a timestep, of {T:,}. From tables/weights.csv; no error."
    return [ReportTable("Where the weight lies", caption, _frame(rows))]


def label(arm):
    """The name of an arm in the report."""
    return parse_arm(arm).label


def read(folder, name):
    """tables/<name>.csv, or None where it is not there, or empty. Raises InputError if it is not what was written."""
    path = folder / "tables" / f"{name}.csv"
    if not path.is_file():
        return None
    check_file(path)
    try:
        table = pd.read_csv(path)
    except ValueError:
        return None
    return table if len(table) else None


def evenly_spaced(values, wanted=6):
    """About six of the values, evenly over their range, the last among them."""
    values = np.array(values)
    targets = np.linspace(values.min(), values.max(), wanted + 1)[1:]
    return sorted({int(values[np.abs(values - target).argmin()]) for target in targets})


def _frame(rows):
    """Rows, dicts, as a DataFrame of text whose index is their first entry."""
    frame = pd.DataFrame(rows).fillna("").astype(str)
    return frame.set_index(frame.columns[0])
