"""The tables of a report, DataFrames of text, from an experiment's saved tables and records alone. Imports no torch."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..figures.distances import METRICS
from ..files import read_json
from ..store import check_file
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.run import Run
from .notebook_html import describe_commit
from .numbers_as_text import duration, number
from .result_tables import grids, read_summary


def _frame(rows):
    """Rows, or columns, as a DataFrame of text whose index is their first entry."""
    frame = pd.DataFrame(rows).fillna("").astype(str)
    return frame.set_index(frame.columns[0])


def gate(table):
    """Have the networks learned their task? Arms by timestep, the worst of their seeds. table: as of `study.gate`."""
    worst = table.assign(share=table.error / table.limit).sort_values("share").groupby(["arm", "t"], sort=False).tail(1)
    rows = worst.sort_values(["t", "arm"], kind="stable")
    rows = rows.rename(columns={"error": "error of x0", "x_t": "returning x_t"})
    numbers = rows[["error of x0", "limit", "optimum", "returning x_t"]].map(number)
    passes = rows.passes.map({True: "yes", False: "no"})
    return _frame({"network": rows.arm.map(label), "t": rows.t, **numbers, "passes": passes})


def runs(experiment, folder):
    """One row for each training of the experiment."""
    rows = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        row, record = {"weighting": label(arm), "seed": seed}, run.record
        if record is not None:
            row |= {"images seen": f"{record['images']:,}", "time": duration(record["seconds"])}
            row |= {"images/s": f"{record['images_per_second']:,.0f}"}
            row |= {"final loss": _at_end(run.log(), "loss"), "final error": _at_end(run.log(), "mse")}
            row |= {"parameters": f"{record['parameters']:,}"}
        rows.append(row)
    return _frame(rows)


def _at_end(log, name):
    values = [row[name] for row in log if row.get(name) is not None]
    return number(np.mean(values[-max(1, len(values) // 10) :])) if values else number(None)


def distances(experiment, folder):
    """(title, caption, table) of each metric, features and sampler: weightings by sampling steps, fully trained."""
    summary, real = read_summary(folder, experiment.runs), read(folder, "distances-real")
    if summary is None:
        return
    summary = summary[summary.metric.isin([*METRICS, "colour_w1"])]
    for (metric, features, sampler), title, frame in grids(summary, Markup("<b>{}</b>")):
        name, said = f"{METRICS.get(metric, 'Mean colours, W1 in Delta E')} ({features}, {sampler})", ""
        if real is not None and len(rows := real[(real.metric == metric) & (real.features == features)]):
            mean = number(rows["value"].mean())
            said = f" Of {rows.n.iloc[0]:,.0f} other real images in the place of samples: {mean}."
        yield name, f"{title}.{said} From tables/distances-*.csv.", frame


def records(experiment, folder):
    """{name of the job: its record} of everything that has been made, in the order of the work."""
    found = {f"training {run_name(*run)}": Run(folder / "runs" / run_name(*run)).record for run in experiment.runs}
    for path in sorted(folder.glob("tables/[!.]*.json")):
        found[f"table {path.name.removesuffix('.json')}"] = read_json(path)
    found |= {f"notebook {path.stem}": read_json(path) for path in sorted(folder.glob("notebooks/[!.]*.json"))}
    return {name: record for name, record in found.items() if isinstance(record, dict)}


def times(made):
    """Seconds of every job of `records`, by its own clock, and their sum."""
    clocked = {name: record["seconds"] for name, record in made.items() if "seconds" in record}
    clocked["sum"] = sum(clocked.values())
    return _two_columns("job", "time", {name: duration(seconds) for name, seconds in clocked.items()})


def provenance(made):
    """What the results were made with; where records differ, every value that occurs."""
    rows = {}
    for record in made.values():
        said = {name: record.get(name) for name in ("python", "machine", "device", "threads")}
        said |= {"commit": describe_commit(record), "data, sha256": (record.get("data") or {}).get("fingerprint")}
        for name, value in {**said, **(record.get("packages") or {})}.items():
            rows.setdefault(name, {})[value] = None
    values = {name: "; ".join(str(one) for one in found if one is not None) for name, found in rows.items()}
    return _two_columns("what", "value", values)


def _two_columns(first, second, rows):
    return pd.Series(rows, name=second).rename_axis(first).to_frame()


def label(arm):
    """The name of an arm in the report."""
    return parse_arm(arm).label


def read(folder, name):
    """tables/<name>.csv, or None where it is not there, or empty. Raises InputError if it is not what was written."""
    path = folder / "tables" / f"{name}.csv"
    if not path.is_file():
        return None
    check_file(path)
    table = pd.read_csv(path)
    return table if len(table) else None
