"""The distances of an experiment as tables for a paper: CSV, Markdown and LaTeX. Imports no torch.

The best weighting of a column stands in bold only where the seeds tell: its 95 % paired t-interval against every other
weighting lies on its side. Intervals are not corrected for the number of comparisons.
"""

import math

import numpy as np
import pandas as pd

from ..figures.style import label, ordered
from ..files import write_text
from ..metrics.check_equal_sample_sizes import check_equal_n
from ..metrics.intervals import HIGHER_IS_BETTER, mean_interval
from ..store import check_file
from ..study.saved_tables import read_rows
from ..training.arms import parse_arm
from ..training.config import run_name

__all__ = ["as_latex", "as_markdown", "summarise_distances", "write_result_tables"]

# statistics of the samples' colours, neither better nor worse
_DESCRIPTIVE = ("mean_", "spread_", "law_shade_bias", "law_shade_spread")
_GROUP = ["metric", "features", "sampler", "steps"]


def summarise_distances(table):
    """One row for each metric, sampler, number of steps and weighting: a DataFrame.

    table: rows of distances-<run>.csv of all runs. Those of fully trained networks (EMA, no variant) count. Columns:
    metric, features, sampler, steps, weighting, mean, low, high (95 % t-interval over seeds, empty for one), seeds, n,
    n_reference, best (is the weighting better than every other one beyond the paired interval?). Raises InputError
    if weightings were judged on different numbers of images, which would compare biases.
    """
    last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
    table = table[(table.images_seen == last) & (table.network == "ema") & (table.variant == "")]
    table = table[~table.metric.str.startswith(_DESCRIPTIVE)]
    check_equal_n(table)
    rows = []
    for key, part in table.groupby(_GROUP, sort=False):
        values = part.pivot(index="seed", columns="weighting", values="value")
        best = _best(values, key[0])
        for who in ordered(values.columns):
            mean, low, high = mean_interval(values[who].dropna())
            facts = {**dict(zip(_GROUP, key, strict=True)), "weighting": who, "mean": mean, "low": low, "high": high}
            counts = {"seeds": values[who].count(), "n": part.n.iloc[0], "n_reference": part.n_reference.iloc[0]}
            rows.append({**facts, **counts, "best": who == best})
    return pd.DataFrame(rows)


def write_result_tables(folder, runs):
    """Write tables/results.{csv,md,tex} of results/<experiment> `folder` from its runs' distances; return their paths.

    runs: (arm, seed) of each training of the experiment; tables of others that lie there too are not looked at. Those
    at many steps, which are of another number of images, go to results-long. None are written of what was not
    measured. Raises InputError as `summarise_distances` does, and for a damaged table.
    """
    return _write(folder, runs, "distances", "results") + _write(folder, runs, "long", "results-long")


def _write(folder, runs, kind, name):
    paths = [folder / "tables" / f"{kind}-{run_name(*run)}.csv" for run in runs if not parse_arm(run[0]).variant]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return []
    for path in paths:
        check_file(path)
    summary = summarise_distances(pd.concat([read_rows(path) for path in paths]))
    texts = {
        "csv": summary.to_csv(index=False, float_format="%.6g"),
        "md": as_markdown(summary),
        "tex": as_latex(summary),
    }
    written = [folder / "tables" / f"{name}.{suffix}" for suffix in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_text(path, text)
    return written


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


def as_markdown(summary):
    """The summary as Markdown: a table for each metric and sampler, weightings by steps, `mean ± half-interval`."""
    parts = []
    for title, head, rows in _grids(summary, "**{}**", "{} ± {}"):
        lines = [head, ["---"] * len(head), *rows]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def as_latex(summary):
    r"""The summary as LaTeX (booktabs): a table for each metric and sampler, `$mean \pm half$`."""
    parts = []
    for title, head, rows in _grids(summary, r"\textbf{{{}}}", r"{} $\pm$ {}"):
        body = [" & ".join(map(_escaped, head)), r"\midrule"] + [" & ".join([_escaped(r[0]), *r[1:]]) for r in rows]
        lines = [line if line.startswith("\\mid") else line + r" \\" for line in body]
        begin = [r"\begin{table}", rf"\caption{{{_escaped(title)}}}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"]
        end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join([*begin, r"\toprule", *lines, *end]))
    return "\n\n".join(parts) + "\n"


def _grids(summary, bold, interval):
    """(title, head, rows of text) for each metric, features and sampler."""
    for (metric, features, sampler), part in summary.groupby(_GROUP[:3], sort=False):
        steps = sorted(part.steps.unique())
        better = "higher" if metric in HIGHER_IS_BETTER else "lower"
        few, many, n, m = part.seeds.min(), part.seeds.max(), int(part.n.iloc[0]), int(part.n_reference.iloc[0])
        seeds = f"{many} seeds" if few == many else f"{few} to {many} seeds"
        spread = f"mean ± half the 95 % t-interval over {seeds}" if many > 1 else "one seed, no interval"
        title = (
            f"{metric} ({features}), {sampler}, by steps: {better} is better; {n:,} images, {m:,} references; {spread}"
        )
        rows = []
        for who in ordered(part.weighting):
            cells = part[part.weighting == who].set_index("steps")
            rows.append([label(who), *(_cell(cells.loc[s], bold, interval) for s in steps if s in cells.index)])
        yield title, ["weighting", *(f"{s:g}" for s in steps)], rows


def _cell(row, bold, interval):
    half = (row.high - row.low) / 2
    if math.isfinite(half) and half > 0:
        decimals = int(np.clip(1 - math.floor(math.log10(half)), 0, 8))
        text = interval.format(f"{row['mean']:.{decimals}f}", f"{half:.{decimals}f}")
    else:
        text = f"{row['mean']:.3g}"
    return bold.format(text) if row.best else text


def _escaped(text):
    for character in "&%_#":
        text = text.replace(character, f"\\{character}")
    return text.replace("±", r"$\pm$")
