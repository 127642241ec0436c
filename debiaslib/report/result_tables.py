"""The distances of an experiment as tables for a paper: CSV and Markdown. Imports no torch.

The best weighting of a column stands in bold only where the seeds tell: its 95 % paired t-interval against every other
weighting lies on its side. Intervals are not corrected for the number of comparisons.
"""

import pandas as pd

from ..figures.style import label, ordered
from ..files import write_text
from ..metrics.statistics import HIGHER_IS_BETTER, check_equal_n, logit_interval, mean_interval
from ..store import check_file
from ..study.saved_tables import read_rows
from ..training.arms import parse_arm
from ..training.config import run_name
from .numbers_as_text import bracketed, describe_spread, with_interval

_DESCRIPTIVE = ("mean_", "spread_")  # statistics of the samples' colours, neither better nor worse
_SHARES = ("precision", "recall")  # between 0 and 1: their intervals are of the log odds
_GROUP = ["metric", "features", "sampler", "steps"]


def summarise_distances(table):
    """One row for each metric, sampler, number of steps and weighting: a DataFrame.

    table: rows of distances-<run>.csv of all runs. Those of fully trained networks (EMA, no variant) count. Columns:
    metric, features, sampler, steps, weighting, mean, low, high (95 % t-interval over seeds, empty for one; all of
    the log odds for precision and recall), seeds, n, n_reference, best (is the weighting better than every other one
    beyond the paired interval?). Raises InputError if weightings were judged on different numbers of images, which
    would compare biases.
    """
    last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
    table = table[(table.images_seen == last) & (table.network == "ema") & (table.variant == "")]
    table = check_equal_n(table[~table.metric.str.startswith(_DESCRIPTIVE)])
    rows = []
    for key, part in table.groupby(_GROUP, sort=False):
        values = part.pivot(index="seed", columns="weighting", values="value")
        best = _best(values, key[0])
        for who in ordered(values.columns):
            judged = values[who].dropna()
            of_logits = key[0] in _SHARES
            mean, low, high = logit_interval(judged, int(part.n.iloc[0])) if of_logits else mean_interval(judged)
            facts = {**dict(zip(_GROUP, key, strict=True)), "weighting": who, "mean": mean, "low": low, "high": high}
            counts = {"seeds": values[who].count(), "n": part.n.iloc[0], "n_reference": part.n_reference.iloc[0]}
            rows.append({**facts, **counts, "best": who == best})
    return pd.DataFrame(rows)


def _best(values, metric):
    """The weighting that beats every other one, seed by seed and beyond the interval, or None."""
    if values.isna().any(axis=None):  # a weighting with fewer seeds has not been beaten on the others
        return None
    values = values * (-1 if metric in HIGHER_IS_BETTER else 1)
    first = values.mean().idxmin()
    others = [who for who in values if who != first]
    if len(values) < 3 or not others:
        return None
    return first if all(mean_interval(values[first] - values[who])[2] < 0 for who in others) else None


def read_summary(folder, runs):
    """`summarise_distances` of tables/distances-<run>.csv of these (arm, seed) `runs`, or None where there are none.

    Raises InputError as that does, and for a damaged table.
    """
    paths = [folder / "tables" / f"distances-{run_name(*run)}.csv" for run in runs if not parse_arm(run[0]).variant]
    paths = [path for path in paths if path.exists()]
    for path in paths:
        check_file(path)
    return summarise_distances(pd.concat([read_rows(path) for path in paths])) if paths else None


def write_result_tables(folder, runs):
    """Write tables/results.{csv,md} of results/<experiment> `folder` from its runs' distances; return their paths.

    runs: (arm, seed) of each training of the experiment; tables of others that lie there too are not read. None are
    written where nothing was measured. Raises InputError as `read_summary` does.
    """
    summary, path = read_summary(folder, runs), folder / "tables" / "results"
    if summary is None:
        return []
    texts = {".csv": summary.to_csv(index=False, float_format="%.6g"), ".md": as_markdown(summary)}
    for suffix, text in texts.items():
        write_text(path.with_suffix(suffix), text)
    return [path.with_suffix(suffix) for suffix in texts]


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
        table = part.pivot(index="weighting", columns="steps", values="text").loc[ordered(part.weighting)].fillna("")
        table.columns = [f"{steps:g}" for steps in table.columns]
        yield key, f"{metric} ({features}), {sampler}, by steps: {judged}; {spread}", table.rename(index=label)
