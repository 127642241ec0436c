"""The tables of a report, from an experiment's saved tables and records alone. Imports no torch.

Each function takes the experiment and its folder and returns a list of `ReportTable`; what was not measured gives none.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..figures.style import ordered
from ..metrics.intervals import mean_interval
from ..store import check_file
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.run import Run

ERRORS = {
    "x0_mse": "Mean squared error of the one-step estimate, E|x0_hat - x0|^2, per pixel in [-1, 1]^2, training set.",
    "excess": "E|x0_hat - E[x0|x_t]|^2, per pixel in [-1, 1]^2: the error of x0 above its floor, training set.",
}


@dataclass(frozen=True)
class ReportTable:
    """A table of text: `rows` are (first cell, other cells); a row with one other cell lets it span all columns."""

    title: str
    caption: str
    head: list
    rows: list
    last: str = ""  # the first cell of a row of sums


def runs(experiment, folder):
    """One row for each training of the experiment."""
    rows = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        record = run.record
        if record is None:
            rows.append((label(arm), [f"seed {seed}: no complete run"]))
            continue
        loss, mse = (_at_end(run.log(), name) for name in ("loss", "mse"))
        speed = [duration(record["seconds"]), f"{record['images_per_second']:,.0f}"]
        shown = [f"{record['images']:,}", *speed, number(loss), number(mse)]
        rows.append((label(arm), [str(seed), *shown, f"{record['parameters']:,}"]))
    caption = (
        "From each run's record.json and log.jsonl. Final loss (weighted, so not comparable between weightings) and "
        "final error (unweighted, of the network's own target) are means over the last tenth of the logged steps."
    )
    head = ["weighting", "seed", "images seen", "time", "images/s", "final loss", "final error", "parameters"]
    return [ReportTable("Trainings", caption, head, rows)]


def errors(experiment, folder):
    """Error of x0 and its excess over the floor, at a few timesteps: weightings by t."""
    table = read(folder, "mse")
    if table is None:
        return []
    table = table[table.split == "train"]
    shown = few(sorted(table.t.unique()))
    return [_error_table(table, quantity, shown) for quantity in ERRORS if (table.quantity == quantity).any()]


def _error_table(table, quantity, shown):
    rows = []
    if quantity == "x0_mse":
        # a fact of the data, so equal for all seeds
        floor = table[table.quantity == "floor"].drop_duplicates("t").set_index("t")["mean"]
        rows += [("floor", [number(floor.get(t, math.nan)) for t in shown])] if len(floor) else []
    table = table[(table.quantity == quantity) & ~table.model.isin(["optimum", "initial"])]
    for who in ordered(table.model):
        at = [table[(table.model == who) & (table.t == t)] for t in shown]
        one_seed = table.seed.nunique() == 1  # else ± means one thing in the whole table
        rows.append((with_seeds(table, "model", who), [over_seeds(e["mean"], e["se"] if one_seed else ()) for e in at]))
    caption = (
        f"{ERRORS[quantity]} By timestep t; {count_range(table.n)} images, the same noise for all; "
        f"{spread(table.seed.nunique(), 'one seed, ± the standard error over images')}."
        + (" Floor: E Var(x0|x_t), which no network avoids." if rows and rows[0][0] == "floor" else "")
        + " From tables/mse.csv."
    )
    title = "Error of x0 by timestep" if quantity == "x0_mse" else "Excess over the optimum by timestep"
    return ReportTable(title, caption, ["weighting", *(f"t = {t}" for t in shown)], rows)


def shares(experiment, folder):
    """Share of each weighting's whole weight at the noisier timesteps."""
    table = read(folder, "weights")
    if table is None:
        return []
    table = table[table.prediction_type == "epsilon"]
    T = int(table.t.max()) + 1
    edges = sorted({T // 2, 4 * T // 5, 9 * T // 10})
    rows = []
    for who in ordered(table.weighting):
        share = table[table.weighting == who].set_index("t").share
        rows.append((label(who), [f"{100 * (1 - share[t]):.1f} %" for t in edges]))
    caption = f"Share of the weight of the epsilon loss above a timestep, of {T:,}. From tables/weights.csv; no error."
    return [ReportTable("Where the weight lies", caption, ["weighting", *(f"t > {t}" for t in edges)], rows)]


def label(who):
    """The name of an arm in the report."""
    return parse_arm(who).label


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


def few(values, wanted=6):
    """About six of the values, evenly over their range, the last among them."""
    values = np.array(values)
    targets = np.linspace(values.min(), values.max(), wanted + 1)[1:]
    return sorted({int(values[np.abs(values - target).argmin()]) for target in targets})


def interval(values):
    """Half the width of the 95 % t-interval of the mean; NaN for fewer than three values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 3 or not np.isfinite(values).all():
        return math.nan
    mean, _, high = mean_interval(values)
    return high - mean


def with_seeds(table, column, who):
    """The label of a weighting, with the number of its training seeds where it has fewer than others."""
    own = table[table[column] == who].seed.nunique()
    return label(who) if own == table.seed.nunique() else f"{label(who)} ({own} seed{'s' * (own > 1)})"


def over_seeds(values, se=()):
    """`mean ± half-interval` for three seeds and more; for one, its standard error if it has one."""
    values, se = np.asarray(values, dtype=float), list(se)
    if not len(values):
        return "–"
    half = float(se[0]) if len(values) == 1 and se else interval(values)
    return number(values.mean()) if math.isnan(half) else with_interval(values.mean(), half)


def spread(seeds, one):
    """What stands behind ± in a table."""
    if seeds == 1:
        return one
    return "mean over 2 seeds, no interval" if seeds == 2 else f"mean over {seeds} seeds ± half the 95 % t-interval"


def number(value):
    """Three significant digits, no exponent down to a millionth; a dash for NaN and None."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}" if digits <= 8 else f"{value:.2e}"


def with_interval(value, half):
    """`73.7 ± 4.2`: the interval with two significant digits, the value with as many decimals."""
    if not 1e-9 < half < math.inf:
        return f"{number(value)} ± {number(half)}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:,.{decimals}f} ± {half:.{decimals}f}"


def duration(seconds):
    """`4.1 s`, `12 min 3 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _at_end(log, name):
    values = [row[name] for row in log if row.get(name) is not None]
    return float(np.mean(values[-max(1, len(values) // 10) :])) if values else math.nan


def count_range(counts):
    """`500`, or `200 to 500` where they differ."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
