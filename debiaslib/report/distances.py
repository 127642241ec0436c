"""The report's tables of distances between samples and real images, from the saved tables alone. Imports no torch."""

import pandas as pd

from ..figures.distances import METRICS
from ..figures.style import ordered
from ..metrics.check_equal_sample_sizes import check_equal_n
from ..metrics.intervals import HIGHER_IS_BETTER
from ..training.config import run_name
from .tables import ReportTable, count_range, number, over_seeds, read, spread, with_seeds

__all__ = ["distances", "long_distances"]

_SHARED = ("precision", "recall")  # called so in all features


def distances(experiment, folder):
    """One table for each metric in each features: weightings by sampling steps, fully trained networks."""
    table = _read(folder, "distances", [run for run in experiment.runs if run[0] in experiment.weightings])
    if table is None:
        return []
    real = read(folder, "distances-real")
    table = table[table.images_seen == table.groupby(["weighting", "seed"]).images_seen.transform("max")]
    table = table[(table.network == "ema") & (table.sampler == experiment.sampler)]
    found = []
    for metric in METRICS:
        for features, rows in table[table.metric == metric].groupby("features", sort=False):
            at = real[(real.metric == metric) & (real.features == features)] if real is not None else None
            found.append(_distance_table(rows, at, metric, features))
    return found


def _distance_table(table, real, metric, features):
    steps = sorted(int(one) for one in table.steps.unique())
    rows = [
        (
            with_seeds(table, "weighting", who),
            [over_seeds(table[(table.weighting == who) & (table.steps == one)]["value"]) for one in steps],
        )
        for who in ordered(table.weighting)
    ]
    if real is not None and len(real):
        what = f"other real images in the place of samples, {real.n.iloc[0]:,.0f} of them"
        rows.append(("real images", [f"{number(real['value'].mean())}: {what}"]))
    better, samplers = "Higher" if metric in HIGHER_IS_BETTER else "Lower", ", ".join(sorted(table.sampler.unique()))
    caption = (
        f"{better} is better. {count_range(table.n)} samples ({samplers}) against {count_range(table.n_reference)} "
        f"reference images, by number of sampling steps; {spread(table.seed.nunique(), 'one seed, no interval')}. From "
        f"tables/distances-*.csv, metric {metric}, features {features}."
    )
    title = METRICS[metric] + (f" ({features})" if metric in _SHARED else "")
    return ReportTable(title, caption, ["weighting", *map(str, steps)], rows)


def long_distances(experiment, folder):
    """One table for each sampler at many steps: weightings by metric and steps, of the first seed.

    Raises InputError if arms were judged on different numbers of images.
    """
    table = _read(folder, "long", experiment.long_runs)
    if table is None:
        return []
    table = check_equal_n(table)
    table = table[table.metric.isin([*METRICS, "colour_w1"])]
    whose = [f" ({name})" * (m in _SHARED) for m, name in zip(table.metric, table.features, strict=True)]
    table = table.assign(what=[m + text for m, text in zip(table.metric, whose, strict=True)])
    return [_long_table(part, sampler) for sampler, part in table.groupby("sampler", sort=False)]


def _long_table(table, sampler):
    columns = list(dict.fromkeys(zip(table.what, table.steps, strict=True)))
    values = {key: part["value"] for key, part in table.groupby(["weighting", "what", "steps"])}
    rows = [
        (with_seeds(table, "weighting", who), [over_seeds(values.get((who, *column), ())) for column in columns])
        for who in ordered(table.weighting)
    ]
    caption = (
        f"{count_range(table.n)} samples against {count_range(table.n_reference)} reference images; "
        f"{spread(table.seed.nunique(), 'one seed, no interval')}. Another number of samples than in the tables above, "
        "so the two cannot be compared. From tables/long-*.csv."
    )
    head = ["weighting", *(f"{what}, {steps:g} steps" for what, steps in columns)]
    return ReportTable(f"At many steps: {sampler}", caption, head, rows)


def _read(folder, kind, runs):
    """The tables/<kind>-<run>.csv that are there, as one, or None."""
    frames = [frame for run in runs if (frame := read(folder, f"{kind}-{run_name(*run)}")) is not None]
    return pd.concat(frames, ignore_index=True) if frames else None
