"""What happened here: the sentences and the verdicts that a chapter shows, computed from the saved tables.

    from debiaslib.report import here
    here.one_call(study.folder)         # a sentence, which a notebook shows as text
    here.verdicts(1, study.folder)      # a table, in which no text is cut

A sentence says what the tables hold, whichever way they fall; where they do not hold it, it says that. No torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..diffusion.strategies import parse_strategy
from ..errors import InputError
from ..figures.registry import Sentence
from . import verdicts as judged
from .results_read import ResultTables

__all__ = ["Table", "colour_error", "colours", "distances", "epsilon_plateau", "excess", "few_steps", "one_call",
           "swap", "verdicts", "x0_errors"]  # fmt: skip

_NOT_MEASURED = Sentence("Here: the tables of this experiment do not hold these numbers.")
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
    return _table(judged.verdicts(chapter, folder))


def swap(folder):
    """The verdicts of the oracle swap alone; a sentence where it was not measured."""
    return _table(judged.swap_verdicts(folder))


def _table(frame):
    return Sentence("The tables of this experiment judge none of these claims.") if frame.empty else Table(frame)


def _name(arm):
    try:
        return parse_strategy(arm).label
    except InputError:  # a network that others trained
        return str(arm)


def _of_each(values, form="{:.3g}"):
    """ "constant 0.5, debiased 0.3" of {arm: value}."""
    return ", ".join(f"{_name(arm)} {form.format(value)}" for arm, value in values.items())


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
        f"the optimum {optimum:.3g}, which no network can beat on average."
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
        f"Here: at t = {t} the squared error of the mean colour is {best:.3g} for the optimum. "
        f"The networks have so many times that: {_of_each(times)}."
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
        f"Here: from t = {t} to t = {late} the error of epsilon of {_name(who)} falls to {share[who]:.0%} of what it "
        f"was, and the optimum's to {share[_OPTIMUM]:.0%}."
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
    seeds = tables["mse.csv"].seed.nunique()
    over = "one training seed" if seeds == 1 else f"mean of {seeds} training seeds"
    return Sentence(f"Here: debiased's error of x0 is {' and '.join(parts) or 'equal'}; {over}.")


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
    return Sentence(f"Here: at t = {t} the floor is {floor:.3g}. Share of the excess in the error: {shares}.")


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
    return Sentence(f"Here: {metric} is {'; '.join(lines)}{last}.")


def colours(folder):
    """The energy distance of mean colours, as `distances`."""
    return distances(folder, "colour_energy")


def few_steps(folder):
    """Is debiased further ahead with few steps than with many, as in the paper? Its ratio to each other weighting."""
    tables = ResultTables(folder)
    metric, ends, said = tables.feature_distance, (tables.steps or [0])[:: max(1, len(tables.steps) - 1)], []
    for other in tables.rivals(_OURS) if len(ends) > 1 else ():
        few, many = (_ratio(*(tables.distances(metric, n, arm) for arm in (_OURS, other))) for n in ends)
        if np.isfinite([few, many]).all():
            where = "few" if few < many else "many"
            said.append(f"{_name(other)} {few:.2f} and {many:.2f} (lower with {where})")
    if not said:
        return _NOT_MEASURED
    return Sentence(
        f"Here: {metric} of debiased over that of another weighting, at {ends[0]} and at {ends[1]} steps: "
        f"{'; '.join(said)}."
    )
