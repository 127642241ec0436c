"""What happened here: the sentences and the verdicts that a chapter shows, computed from the saved tables.

    from debiaslib.report import here
    here.one_call(study.folder)         # a sentence, which a notebook shows as text
    here.verdicts(1, study.folder)      # a table, in which no text is cut

A sentence says what the tables hold, whichever way they fall; where they do not hold it, it says that. No torch.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from ..figures.registry import Sentence
from ..metrics.statistics import mean_interval, paired_ratio
from . import verdicts as judged
from .numbers_as_text import bracketed
from .results_read import ResultTables, name_of, seeds_text

__all__ = ["Table", "colour_error", "colours", "control_ratios", "distance_means", "distance_ratios", "distances",
           "epsilon_plateau", "error_ratios", "excess", "few_steps", "one_call", "order", "swap", "verdicts",
           "x0_errors"]  # fmt: skip

_NOT_MEASURED = Sentence("Here: the tables of this experiment do not hold these numbers.")
_NOTHING_TO_COMPARE = Sentence("One network is shown, so there is nothing to compare it with.")
_OURS, _BASE, _OPTIMUM, _LATE = "debiased", "constant", "optimum", 900
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


def _of_each(values, form="{:.3g}"):
    """ "constant 0.5, debiased 0.3" of {arm: value}."""
    return ", ".join(f"{name_of(arm)} {form.format(value)}" for arm, value in values.items())


def one_call(folder):
    """How far off one call's estimate is near t = 900: root mean square error of each network and of the optimum."""
    path = Path(folder) / "tables" / "one_step.npz"
    if not path.is_file():
        return _NOT_MEASURED
    with np.load(path, allow_pickle=False) as arrays:
        at = int(np.abs(arrays["t"] - _LATE).argmin())
        rms = np.sqrt(((arrays["x0_hat"][:, at] - arrays["x0"]) ** 2).mean(axis=(1, 2, 3, 4)))
        t, n, names = int(arrays["t"][at]), len(arrays["x0"]), [str(name) for name in arrays["names"]]
    found = dict(zip(names, rms, strict=True))
    optimum = found.pop(_OPTIMUM)
    return Sentence(
        f"Here: at t = {t}, over {n} images, the root mean square errors are {_of_each(found)}; "
        f"the optimum's is {optimum:.3g}, which no network can beat on average."
    )


def colour_error(folder):
    """The colour error near t = 900 beside the optimum's."""
    tables = ResultTables(folder)
    t = tables.timestep(_LATE)
    best = tables.errors("colour_mse", t, _OPTIMUM).mean()
    if np.isnan(best) or not tables.arms:
        return _NOT_MEASURED
    times = {arm: tables.errors("colour_mse", t, arm).mean() / best for arm in tables.arms}
    return Sentence(
        f"Here: at t = {t} the squared error of the mean colour is {best:.3g} for the optimum. As multiples of that, "
        f"the networks' errors are: {_of_each(times)}; {tables.seeds}."
    )


def epsilon_plateau(folder):
    """Whether a network's error of epsilon goes on falling at large t, as the optimum's does."""
    tables = ResultTables(folder)
    t, late = tables.timestep(700), tables.timestep(950)
    if not tables.arms or t == late:
        return _NOT_MEASURED
    who = _BASE if _BASE in tables.arms else tables.arms[0]
    share = {
        one: tables.errors("epsilon_mse", late, one).mean() / tables.errors("epsilon_mse", t, one).mean()
        for one in (who, _OPTIMUM)
    }
    return Sentence(
        f"Here: from t = {t} to t = {late} the error of epsilon of {name_of(who)} falls to {share[who]:.0%} of what it "
        f"was, and the optimum's to {share[_OPTIMUM]:.0%}; {tables.seeds}."
    )


def x0_errors(folder):
    """Where debiased's error of x0 is smaller than constant's, where it is larger, and by how much at most."""
    tables = ResultTables(folder)
    if not {_OURS, _BASE} <= set(tables.arms):
        return _NOT_MEASURED
    times = sorted(set(tables["mse.csv"].t))
    ratio = {t: _ratio(tables.errors("x0_mse", t, _OURS), tables.errors("x0_mse", t, _BASE)) for t in times}
    parts = []
    for word, furthest, found in (
        ("smaller than constant's", min, [t for t in times if ratio[t] < 1]),
        ("larger", max, [t for t in times if ratio[t] > 1]),
    ):
        if found:
            t = furthest(found, key=ratio.get)
            parts.append(f"{word} at t = {', '.join(f'{t:g}' for t in found)} ({ratio[t]:.2f} times it at t = {t})")
    return Sentence(f"Here: debiased's error of x0 is {' and '.join(parts) or 'equal'}; {tables.seeds}.")


def _ratio(ours, base):
    """The geometric mean of the seeds' ratios."""
    return float(np.exp(np.log(ours / base).mean()))


def excess(folder):
    """How much of each network's error of x0 near t = 900 could be avoided."""
    tables = ResultTables(folder)
    t = tables.timestep(_LATE)
    floor = tables.errors("floor", t, _OPTIMUM).mean()
    if np.isnan(floor) or not tables.arms:
        return _NOT_MEASURED
    parts = {arm: [tables.errors(name, t, arm).mean() for name in ("excess", "x0_mse")] for arm in tables.arms}
    shares = _of_each({arm: left / whole for arm, (left, whole) in parts.items()}, "{:.0%}")
    return Sentence(
        f"Here: at t = {t} the floor is {floor:.3g}. Share of the excess in the error: {shares}; {tables.seeds}."
    )


def swap(folder):
    """What is left of constant's colour error with the exact optimum above t = 600, and with it below."""
    t, alone, swapped = ResultTables(folder).swap()
    if t is None or not len(alone):
        return _NOT_MEASURED
    above, below = (swapped[side].mean() for side in (">", "<="))
    return Sentence(
        f"Here: layout_energy of constant's samples is {alone.mean():.3g}. With the exact optimum at t > {t} it is "
        f"{above:.3g}, with the optimum at t <= {t} it is {below:.3g}; {seeds_text(len(alone))}."
    )


def error_ratios(folder, *quantities, timesteps=None):
    """Errors of each weighting over those of the first, by timestep and paired by training seed: a DataFrame of text.

    quantities: such as "x0_mse" and "excess". timesteps: those of tables/mse.csv that are to be shown; None for all.
    Intervals are 95 % t-intervals over the seeds, without brackets for one seed. A sentence where there is one network.
    """
    tables = ResultTables(folder)
    known = [t for t in sorted(set(tables["mse.csv"].t)) if timesteps is None or t in set(timesteps)]
    return _ratios(tables, "t", known, {q: functools.partial(tables.errors, q) for q in quantities})


def distance_ratios(folder, metric=""):
    """Distances of each weighting over those of the first, by sampling steps: as `error_ratios`."""
    tables = ResultTables(folder)
    metric = metric or tables.feature_distance
    return _ratios(tables, "steps", tables.steps, {metric: functools.partial(tables.distances, metric)})


def _ratios(tables, index, rows, columns):
    """columns: {name: a function of (row, arm) that gives the values by seed}."""
    base, *others = tables.arms
    found = {
        (name, name_of(other)): {row: _ratio_text(values(row, other), values(row, base)) for row in rows}
        for name, values in columns.items() for other in others
    }  # fmt: skip
    if not found:
        return _NOTHING_TO_COMPARE
    return pd.DataFrame(found).rename_axis(index).rename_axis([f"ratio to {name_of(base)}", tables.seeds], axis=1)


def _ratio_text(ours, base):
    seeds = ours.index.intersection(base.index)
    return bracketed(*paired_ratio(ours[seeds], base[seeds])) if len(seeds) else "–"


def control_ratios(folder):
    """tables/controls.csv as a `Table`: condition by outcome, the ratio debiased / constant and its 95 % interval."""
    rows = ResultTables(folder)["controls.csv"]
    rows["text"] = [bracketed(row.ratio, row.low, row.high) for row in rows.itertuples()]
    shown = rows.pivot(index="condition", columns="outcome", values="text")
    return Table(shown.loc[rows.condition.unique(), rows.outcome.unique()].reset_index())


def distance_means(folder, metric, arms):
    """Mean of a distance over training seeds with its 95 % t-interval, by sampling steps: a DataFrame of text."""
    tables = ResultTables(folder)
    found = {
        name_of(arm): {n: bracketed(*mean_interval(tables.distances(metric, n, arm))) for n in tables.steps}
        for arm in arms
    }
    return pd.DataFrame(found).rename_axis("steps").rename_axis(f"{metric}, {tables.seeds}", axis=1)


def distances(folder, metric=""):
    """A distance of every weighting at the fewest and the most steps, beside other real images in their place."""
    tables = ResultTables(folder)
    metric, lines, real = metric or tables.feature_distance, [], tables["distances-real.csv"]
    for steps in dict.fromkeys((*tables.steps[:1], *tables.steps[-1:])):
        values = {arm: tables.distances(metric, steps, arm).mean() for arm in tables.arms}
        values = {arm: value for arm, value in values.items() if np.isfinite(value)}
        if values:
            lines.append(f"at {steps} steps {_of_each(values)}")
    if not lines:
        return _NOT_MEASURED
    real = real[real.metric == metric]["value"] if real is not None else ()
    last = f"; other real images {real.mean():.3g}" if len(real) else ""
    return Sentence(f"Here: {metric} is {'; '.join(lines)}{last}. {tables.seeds.capitalize()}.")


def colours(folder):
    """The energy distance of mean colours, as `distances`."""
    return distances(folder, "colour_energy")


def order(folder, metric=""):
    """The order of the weightings by a distance, at each number of steps."""
    tables, lines = ResultTables(folder), []
    metric = metric or tables.feature_distance
    for steps in tables.steps:
        values = {arm: tables.distances(metric, steps, arm).mean() for arm in tables.arms}
        measured = [arm for arm in values if np.isfinite(values[arm])]
        lines.append(f"at {steps} steps {', '.join(map(name_of, sorted(measured, key=values.get)))}")
    if not lines:
        return _NOT_MEASURED
    return Sentence(f"Here, the smallest {metric} first: {'; '.join(lines)}. {tables.seeds.capitalize()}.")


def few_steps(folder):
    """Is debiased further ahead with few steps than with many, as in the paper? Its ratio to each other weighting."""
    tables = ResultTables(folder)
    metric, ends, said = tables.feature_distance, (tables.steps or [0])[:: max(1, len(tables.steps) - 1)], []
    for other in tables.rivals(_OURS) if len(ends) > 1 else ():
        few, many = (_ratio(*(tables.distances(metric, n, arm) for arm in (_OURS, other))) for n in ends)
        if np.isfinite([few, many]).all():
            where = "few" if few < many else "many"
            said.append(f"{name_of(other)} {few:.2f} and {many:.2f} (lower with {where})")
    if not said:
        return _NOT_MEASURED
    return Sentence(
        f"Here: {metric} of debiased over that of another weighting, at {ends[0]} and at {ends[1]} steps: "
        f"{'; '.join(said)}. {tables.seeds.capitalize()}."
    )
