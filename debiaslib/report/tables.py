"""The distances of an experiment as tables/results.{csv,md}, and the tables of its report. Imports no torch.

The best weighting of a column stands in bold only where the seeds tell: its 95 % paired t-interval against every other
weighting lies on its side. Intervals are not corrected for the number of comparisons.
"""

import numpy as np
import pandas as pd

from ..figures import style
from ..figures.distances import COLOURS, METRICS
from ..files import read_json, write_text
from ..metrics.statistics import HIGHER_IS_BETTER, check_equal_n, logit_interval, mean_interval
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.run import Run
from .notebook_html import describe_commit
from .numbers_as_text import bracketed, describe_spread, duration, number, with_interval
from .results_read import ResultTables, name_of

# Between 0 and 1, so their intervals are of the log odds: which images each is a share of.
_SHARES = {"precision": "n", "recall": "n_reference"}
_GROUP = ["metric", "features", "sampler", "steps"]


def summarise_distances(table):
    """One row for each metric, sampler, number of steps and weighting: a DataFrame.

    table: rows of distances-<run>.csv of all runs, of which those of fully trained networks (EMA, no variant) count.
    mean, low, high: with the 95 % t-interval over seeds, of the log odds for precision and recall. best: whether the
    weighting is better than every other one beyond the paired interval. Raises InputError as `check_equal_n` does.
    """
    last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
    table = table[(table.images_seen == last) & (table.network == "ema") & (table.variant == "")]
    table = check_equal_n(table[table.metric.isin([*METRICS, *COLOURS])])  # earlier versions had others
    rows = []
    for key, part in table.groupby(_GROUP, sort=False):
        values = part.pivot(index="seed", columns="weighting", values="value")
        best = _best(values, key[0])
        share_of = int(part[_SHARES.get(key[0], "n")].iloc[0])
        for who in style.ordered(values.columns):
            judged = values[who].dropna()
            of_logits = key[0] in _SHARES and len(judged) > 1
            mean, low, high = logit_interval(judged, share_of) if of_logits else mean_interval(judged)
            facts = {**dict(zip(_GROUP, key, strict=True)), "weighting": who, "mean": mean, "low": low, "high": high}
            counts = {"seeds": values[who].count(), "n": part.n.iloc[0], "n_reference": part.n_reference.iloc[0]}
            rows.append({**facts, **counts, "best": who == best})
    return pd.DataFrame(rows)


def _best(values, metric):
    """The weighting that beats every other one, seed by seed and beyond the interval, or None."""
    if len(values) < 3 or values.isna().any(axis=None):  # one with fewer seeds has not been beaten on the others
        return None
    values = values * (-1 if metric in HIGHER_IS_BETTER else 1)
    first = values.mean().idxmin()
    beaten = [mean_interval(values[first] - values[who])[2] < 0 for who in values if who != first]
    return first if beaten and all(beaten) else None


def read_summary(folder, runs):
    """`summarise_distances` of tables/distances-<run>.csv of these (arm, seed) `runs`, or None where there are none.

    Raises InputError as that does, and for a damaged table.
    """
    names = [f"distances-{run_name(*run)}.csv" for run in runs if not parse_arm(run[0]).variant]
    parts = [table for table in map(ResultTables(folder).__getitem__, names) if table is not None]
    return summarise_distances(pd.concat(parts)) if parts else None


def write_result_tables(folder, runs):
    """Write tables/results.{csv,md} of results/<experiment> `folder` from its runs' distances.

    runs: (arm, seed) of each training of the experiment; tables of others that lie there too are not read. None are
    written where nothing was measured. Raises InputError as `read_summary` does.
    """
    summary = read_summary(folder, runs)
    if summary is not None:
        write_text(folder / "tables" / "results.csv", summary.to_csv(index=False, float_format="%.6g"))
        write_text(folder / "tables" / "results.md", as_markdown(summary))


def as_markdown(summary):
    """The summary as Markdown: a table for each metric and sampler, weightings by steps, `mean ± half-interval`."""
    tables = [(title, table.to_markdown(disable_numparse=True)) for _, title, table in grids(summary, "**{}**")]
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in tables) + "\n"


def grids(summary, bold):
    """((metric, features, sampler), title, DataFrame of text: weightings by sampling steps), one after the other.

    bold: a format such as "**{}**", for the best weighting of a column.
    """

    def cell(row):
        share = row.metric in _SHARES
        text = bracketed(row.mean, row.low, row.high) if share else with_interval(row.mean, (row.high - row.low) / 2)
        return bold.format(text) if row.best else text

    for key, part in summary.groupby(_GROUP[:3], sort=False):
        metric, features, sampler = key
        better = "higher" if metric in HIGHER_IS_BETTER else "lower"
        few, many, n, m = part.seeds.min(), part.seeds.max(), int(part.n.iloc[0]), int(part.n_reference.iloc[0])
        judged = f"{better} is better; {n:,} images, {m:,} references"
        spread = describe_spread(many if few == many else f"{few} to {many}", metric in _SHARES)
        part = part.assign(text=[cell(row) for row in part.itertuples()])
        table = part.pivot(index="weighting", columns="steps", values="text").fillna("")
        table = table.loc[style.ordered(part.weighting)]
        table.columns = [f"{steps:g}" for steps in table.columns]
        yield key, f"{metric} ({features}), {sampler}, by steps: {judged}; {spread}", table.rename(index=style.label)


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
    return _frame({"network": rows.arm.map(name_of), "t": rows.t, **numbers, "passes": passes})


def runs(experiment, folder):
    """One row for each training of the experiment."""
    rows = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        row, record = {"weighting": name_of(arm), "seed": seed}, run.record
        if record is not None:
            row |= {"images seen": f"{record['images']:,}", "time": duration(record["seconds"])}
            row |= {"images/s": f"{record['images_per_second']:,.0f}", "final loss": _at_end(run.log(), "loss")}
            row |= {"final error": _at_end(run.log(), "mse"), "parameters": f"{record['parameters']:,}"}
        rows.append(row)
    return _frame(rows)


def _at_end(log, name):
    values = [row[name] for row in log if row.get(name) is not None]
    return number(np.mean(values[-max(1, len(values) // 10) :])) if values else number(None)


def distances(experiment, folder):
    """(title, caption, table of HTML) of each metric, features and sampler: weightings by steps, fully trained."""
    summary, real = read_summary(folder, experiment.runs), ResultTables(folder)["distances-real.csv"]
    if summary is None:
        return
    summary = summary[summary.metric.isin([*METRICS, "colour_w1"])]
    for (metric, features, sampler), title, frame in grids(summary, "<b>{}</b>"):
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
    return pd.Series(clocked, name="time").map(duration).rename_axis("job").to_frame()


def provenance(made):
    """What the results were made with; where records differ, every value that occurs."""
    rows = []
    for record in made.values():
        said = {name: record.get(name) for name in ("python", "machine", "device", "threads")}
        said |= {"commit": describe_commit(record), "data, sha256": (record.get("data") or {}).get("fingerprint")}
        rows.append({**said, **(record.get("packages") or {})})
    found = pd.DataFrame(rows, dtype=object)
    values = {name: "; ".join(dict.fromkeys(found[name].dropna().astype(str))) for name in found}
    return pd.Series(values, name="value").rename_axis("what").to_frame()
