"""Verdicts: for each claim what would refute it, what the tables of an experiment say, and whether it holds.

A claim is about the ratio of debiased to another arm, paired by training seed:

    no difference  the 95 % interval lies within 0.9 to 1.1
    holds          else: it lies on the claimed side of 1
    refuted        it lies on the other side
    open           none of these
    one seed: yes, one seed: no    a single seed has no interval; it can show what happens, not what usually happens
    no interval    the tables give a number without one
    not testable   a training of one of the two arms has missed the gate

Everything is computed from saved tables, also where the claim fails. Imports no torch.
"""

import itertools
import math

import pandas as pd

from ..metrics.statistics import mean_interval, paired_ratio, within_margin
from ..training.arms import parse_arm
from .results_read import ResultTables, name_of

COLUMNS = ["claim", "what would refute it", "found here", "verdict"]
_OURS, _BASE, _OPTIMUM = "debiased", "constant", "optimum"
_EARLY, _LATE = 50, 900
_QUANTITIES = {"x0_mse": "error of x0", "excess": "excess"}


def verdicts(chapter, folder):
    """The verdicts of a chapter, 1 to 7, from the tables of results/<experiment> `folder`: a DataFrame, COLUMNS.

    A claim whose table is not there is left out; the frame may be empty.
    """
    rows = [row for row in _CHAPTERS[chapter](ResultTables(folder)) if row is not None]
    return pd.DataFrame(rows, columns=COLUMNS)


def all_verdicts(folder):
    """The verdicts of all chapters, with the column chapter first."""
    parts = [verdicts(chapter, folder).assign(chapter=chapter) for chapter in _CHAPTERS]
    return pd.concat(parts, ignore_index=True)[["chapter", *COLUMNS]]


def verdict_of(interval, claimed="below"):
    """The verdict on a paired ratio (ratio, low, high) that is claimed to lie "below" or "above" 1."""
    ratio, low, high = interval
    if claimed == "above":
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    if math.isnan(low):
        return "one seed: yes" if ratio < 1 else "one seed: no"
    if within_margin(interval):
        return "no difference"
    return "holds" if high < 1 else "refuted" if low > 1 else "open"


def ratio_text(interval, n):
    """A ratio as text: `0.14 [0.10, 0.19], 6 seeds`; without brackets for one seed."""
    return interval_text(interval) + (" (one seed)" if math.isnan(interval[1]) else f", {n} seeds")


def interval_text(interval):
    """`0.14 [0.10, 0.19]` in three digits, four where three would round to 1. No brackets where the bounds are NaN."""
    ratio, low, high = (f"{one:.4g}" if f"{one:.3g}" == "1" else f"{one:.3g}" for one in interval)
    return ratio if low == "nan" else f"{ratio} [{low}, {high}]"


def paired_claim(claim, refuted_by, what, ours, base, claimed="below"):
    """A row on the ratio of two Series by seed, paired; None where no seed has both.

    Where an unbiased distance is 0 or less there is no ratio, and the row is on the difference, claimed below 0.
    """
    seeds = ours.index.intersection(base.index)
    if not len(seeds):
        return None
    ours, base = ours[seeds], base[seeds]
    if (ours > 0).all() and (base > 0).all():
        interval = paired_ratio(ours, base)
        return _row(claim, refuted_by, f"{what}: {ratio_text(interval, len(seeds))}", verdict_of(interval, claimed))
    mean, low, high = mean_interval(ours - base)
    verdict = "holds" if high < 0 else "refuted" if low > 0 else "open"
    interval = f"difference [{low:.3g}, {high:.3g}], {len(seeds)} seeds"
    if math.isnan(low):
        verdict, interval = "one seed: yes" if mean < 0 else "one seed: no", "one seed"
    return _row(claim, refuted_by, f"{what}: {ours.mean():.3g} against {base.mean():.3g} ({interval})", verdict)


def _row(claim, refuted_by, found, verdict):
    """verdict: text, or whether a claim without a ratio holds."""
    verdict = verdict if isinstance(verdict, str) else "holds" if verdict else "refuted"
    return dict(zip(COLUMNS, (claim, refuted_by, found, verdict), strict=True))


def _of_errors(tables, claim, refuted_by, quantity="x0_mse", t=_LATE, ours=_OURS, base=_BASE, claimed="below"):
    """The paired claim on an error at a timestep."""
    what = f"{name_of(ours)} / {name_of(base)}, {_QUANTITIES[quantity]} at t = {t}"
    pair = (tables.errors(quantity, t, arm) for arm in (ours, base))
    return _testable(tables, paired_claim(claim, refuted_by, what, *pair, claimed), ours, base)


def _of_distances(tables, claim, refuted_by, metric, steps, base=_BASE):
    """The paired claim on a distance of samples by so many steps."""
    pair = (tables.distances(metric, steps, arm) for arm in (_OURS, base))
    row = paired_claim(claim, refuted_by, f"debiased / {name_of(base)}, {metric} at {steps} steps", *pair)
    return _testable(tables, row, _OURS, base)


def _testable(tables, row, *arms):
    """The row, without a verdict where a training of one of its arms has missed the gate."""
    return row and {**row, "verdict": "not testable" if tables.missed & {*arms} else row["verdict"]}


def _chapter_1(tables):
    gate = tables["gate.csv"]
    if gate is not None and _BASE in set(gate.arm):
        both = gate[gate.arm.isin([_BASE, _OURS])]
        refuted_by = f"constant or debiased exceeds 1.25 times the optimum's error at t = {gate.t.min()}"
        refuted_by += f" or twice x_t's at t = {gate.t.max()}"
        found = (f"t = {t}: at most {g.error.max():.3g}, limit {g.limit.min():.3g}" for t, g in both.groupby("t"))
        yield _row("The networks have learned their task.", refuted_by, "; ".join(found), both.passes.all())
    yield _of_errors(
        tables, "Constant's estimate of x0 at large t is worse than it could be.",
        "its error at t = 900 is that of the optimum", ours=_BASE, base=_OPTIMUM, claimed="above",
    )  # fmt: skip
    yield _of_errors(tables, "The weight mends it.", "debiased has as large an error of x0 at t = 900 as constant")
    for steps in tables.steps[:1]:
        refuted_by = f"the energy distance of colours at {steps} steps is not smaller"
        yield _of_distances(tables, "Samples by few steps have truer mean colours.", refuted_by, "colour_energy", steps)


def _chapter_2(tables):
    claim = "The weight is to blame for the excess over the optimum."
    yield _of_errors(tables, claim, "debiased is no nearer to the optimum at t = 900", "excess")
    whole, colour = (tables.errors(quantity, _LATE, _BASE) for quantity in ("excess", "colour_excess"))
    if len(whole) and len(colour):
        share = paired_ratio(colour, whole)
        refuted_by = "the mean colour has no more than a tenth of the excess at t = 900"
        found = f"share of the mean colour: {ratio_text(share, len(whole))}"
        verdict = verdict_of([part / 0.1 for part in share], "above")
        yield _testable(tables, _row("Over a tenth of constant's excess is colour.", refuted_by, found, verdict), _BASE)
    floor = tables.errors("floor", _LATE, _OPTIMUM).mean()
    if floor == floor and tables.arms:
        lowest = min(float(tables.errors("x0_mse", _LATE, arm).min()) for arm in tables.arms)
        refuted_by = "a network's mean error at t = 900 is below the optimum's by more than a tenth"
        found = f"smallest error of a network {lowest:.3g}, the optimum's {floor:.3g}"
        yield _row("No network beats the optimum.", refuted_by, found, lowest > 0.9 * floor)


def _chapter_3(tables):
    yield _of_errors(tables, "There is a gain at large t.", "the error of x0 at t = 900 is not smaller")
    yield _of_errors(tables, "The price at small t is nothing.", "the error of x0 at t = 50 is larger", t=_EARLY)
    for other in [arm for arm in tables.arms if arm not in (_OURS, _BASE)]:
        refuted_by = f"{name_of(other)} has as small an error of x0 at t = 900"
        yield _of_errors(tables, f"It is this weight, and not {name_of(other)}.", refuted_by, base=other)
    bias = tables["bias.csv"]  # of one seed without these rows
    if bias is not None and "excess_common" in set(bias.quantity[(bias.model == _BASE) & (bias.t == _LATE)]):
        rows = bias[(bias.model == _BASE) & (bias.t == _LATE) & (bias.split == "train") & bias.frequency.isna()]
        mean = rows.groupby("quantity").value.mean()
        share = mean["excess_common"] / (mean["excess_common"] + mean["excess_between"])
        refuted_by = "the training seeds share less than half of the excess at t = 900"
        claim, found = "Constant's excess is a bias and not a variance.", f"shared by all seeds: {share:.0%}"
        yield _testable(tables, _row(claim, refuted_by, found, "no interval"), _BASE)
    t_star, alone, swapped = tables.swap()
    for side, where in ((">", "large"), ("<=", "small")) if t_star is not None else ():
        claim = f"The estimate at {where} t spoils a part of constant's colours."
        refuted_by = f"with the exact optimum at t {side} {t_star} the colours are as far from the data's"
        what = f"layout_energy of constant with the optimum at t {side} {t_star}, over constant alone"
        yield _testable(tables, paired_claim(claim, refuted_by, what, swapped[side], alone), _BASE)


def _chapter_4(tables):
    weights, steps = tables["weights.csv"], tables.steps
    if weights is None or not steps:
        return
    few, metric = steps[0], tables.feature_distance
    late = weights[(weights.prediction_type == "epsilon") & (weights.t == 500)].set_index("weighting").share
    values = {arm: tables.distances(metric, few, arm) for arm in tables.arms}
    values = pd.DataFrame({arm: value for arm, value in values.items() if len(value)}).dropna()  # seeds of all
    if len(values) and len(values.columns) > 2 and set(values) <= set(late.index):
        by_share = sorted(values, key=late.get)  # the smallest share below t = 500 first
        by_value = sorted(values, key=lambda arm: values[arm].mean())
        refuted_by = f"two weightings have {metric} at {few} steps in another order than their weight at t > 500"
        found = f"by weight: {', '.join(map(name_of, by_share))}; by {metric}: {', '.join(map(name_of, by_value))}"
        pairs = [verdict_of(paired_ratio(values[a], values[b])) for a, b in itertools.combinations(by_share, 2)]
        worst = next((one for one in ("refuted", "one seed: no", "open", "no difference") if one in pairs), pairs[0])
        verdict = "open" if worst == "no difference" else worst
        yield _testable(tables, _row("Weight at the noisy end is the cause.", refuted_by, found, verdict), *values)
    if "inverse_snr" in values:
        refuted_by = f"1/SNR gives as small a {metric} at {few} steps"
        yield _of_distances(tables, "The root is the right power.", refuted_by, metric, few, "inverse_snr")


def _chapter_5(tables):
    metric = tables.feature_distance
    table = tables.judged[(tables.judged.metric == metric) & (tables.judged.variant == "")]
    seen = sorted(table.images_seen.dropna().unique())
    if len(seen) > 1:
        first = table[table.images_seen == seen[0]]
        first = first[first.steps == first.steps.iloc[0]]
        pair = (first[first.weighting == arm].set_index("seed").value for arm in (_OURS, _BASE))
        what = f"debiased / constant, {metric} at {first.steps.iloc[0]:.0f} steps after {seen[0]:,.0f} images"
        refuted_by = f"{metric} after the first {seen[0]:,.0f} images is not smaller"
        yield _testable(tables, paired_claim("It trains faster.", refuted_by, what, *pair), _OURS, _BASE)


def _chapter_6(tables):
    metric, steps = tables.feature_distance, tables.steps
    for count in dict.fromkeys((*steps[:1], *steps[-1:])):
        for other in [arm for arm in tables.arms if arm != _OURS]:
            claim = f"Smaller {metric} than {name_of(other)} in {count} steps."
            refuted_by = f"{metric} at {count} steps is not smaller"
            yield _of_distances(tables, claim, refuted_by, metric, count, other)


def _chapter_7(tables):
    controls = tables["controls.csv"]
    for row in () if controls is None else controls.itertuples():
        if not row.condition.startswith(("baseline", "each at", "against")) or row.outcome.startswith("x0_mse"):
            continue  # no claim: it stands in the table of all conditions
        interval = (row.ratio, row.low, row.high)
        claim = f"There is a gain in {row.outcome}{'' if row.condition == 'baseline' else ': ' + row.condition}."
        found = f"{parse_arm(row.arm).label} / {parse_arm(row.baseline).label}: {ratio_text(interval, row.n)}"
        judged = _row(claim, "the ratio under this condition is not below 1", found, verdict_of(interval))
        yield _testable(tables, judged, row.arm, row.baseline)


_CHAPTERS = {1: _chapter_1, 2: _chapter_2, 3: _chapter_3, 4: _chapter_4, 5: _chapter_5, 6: _chapter_6, 7: _chapter_7}
