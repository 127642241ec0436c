"""Verdicts: for each claim what would refute it, what the tables of an experiment say, and whether it holds.

Everything is computed from saved tables, also where the claim fails. Imports no torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..diffusion.strategies import parse_strategy
from ..study.saved_tables import read_rows
from .judge import COLUMNS, difference_claim, paired_claim, plain_claim, ratio_text, verdict_of
from .results_read import ResultTables

__all__ = ["all_verdicts", "swap_verdicts", "verdicts"]

_OURS, _BASE = "debiased", "constant"
_EARLY, _LATE = 50, 900


def verdicts(chapter, folder):
    """The verdicts of a chapter, 1 to 7, from the tables of results/<experiment> `folder`: a DataFrame, COLUMNS.

    A claim whose table is not there is left out; the frame may be empty.
    """
    rows = _CHAPTERS[chapter](ResultTables(Path(folder) / "tables"))
    return pd.DataFrame([row for row in rows if row is not None], columns=COLUMNS)


def swap_verdicts(folder):
    """Of chapter 7's verdicts those of the oracle swap, as `verdicts` returns them."""
    rows = _swap(ResultTables(Path(folder) / "tables"))
    return pd.DataFrame([row for row in rows if row is not None], columns=COLUMNS)


def all_verdicts(folder):
    """The verdicts of all chapters, with the column chapter first."""
    parts = [verdicts(chapter, folder).assign(chapter=chapter) for chapter in _CHAPTERS]
    return pd.concat(parts, ignore_index=True)[["chapter", *COLUMNS]]


def _name(arm):
    return parse_strategy(arm).label


def _chapter_1(tables):
    gate, late = tables["gate.csv"], {m: tables.errors("x0_mse", _LATE, m) for m in (_OURS, _BASE, "optimum")}
    if gate is not None:
        base = gate[gate.arm == _BASE]
        yield plain_claim(
            "The networks have learned their task.",
            "constant fails the gate: 1.25 times the optimum's error at t = 600, twice the input's at t = 900",
            "; ".join(f"t = {t}: {g.error.max():.3g}, limit {g.limit.min():.3g}" for t, g in base.groupby("t")),
            base.passes.all(),
        )
    if len(late[_BASE]) and len(late["optimum"]):
        yield paired_claim(
            "Constant's estimate of x0 at large t is far from what is possible.",
            "its error at t = 900 is that of the optimum",
            "constant / optimum, error of x0 at t = 900",
            late[_BASE], late["optimum"], "above",
        )  # fmt: skip
    yield paired_claim(
        "The weight mends it.",
        "debiased has as large an error of x0 at t = 900 as constant",
        "debiased / constant, error of x0 at t = 900",
        late[_OURS], late[_BASE],
    )  # fmt: skip
    for steps in tables.steps[:1]:
        yield paired_claim(
            "Samples by few steps have truer colours.",
            f"the energy distance of colours at {steps} steps is not smaller",
            f"debiased / constant, colour_energy at {steps} steps",
            tables.distances("colour_energy", steps, _OURS), tables.distances("colour_energy", steps, _BASE),
        )  # fmt: skip


def _chapter_2(tables):
    ours, base = (tables.errors("excess", _LATE, arm) for arm in (_OURS, _BASE))
    yield paired_claim(
        "The weight is to blame for the excess over the optimum.",
        "debiased is no nearer to the optimum at t = 900",
        "debiased / constant, excess at t = 900",
        ours, base,
    )  # fmt: skip
    colour = tables.errors("colour_excess", _LATE, _BASE)
    if len(base) and len(colour):
        share = float((colour / base).mean())
        yield plain_claim(
            "Constant's excess is a shift of colour.",
            "the mean colour has no more than a tenth of the excess at t = 900",
            f"share of the mean colour: {share:.0%}",
            share > 0.1,
        )
    floor = tables.errors("floor", _LATE, "optimum")
    if len(floor) and tables.arms:
        lowest = min(float(tables.errors("x0_mse", _LATE, arm).min()) for arm in tables.arms)
        yield plain_claim(
            "No network beats the optimum.",
            "a network's mean error at t = 900 is below the optimum's by more than a tenth",
            f"smallest error of a network {lowest:.3g}, the optimum's {float(floor.mean()):.3g}",
            lowest > 0.9 * float(floor.mean()),
        )


def _chapter_3(tables):
    yield paired_claim(
        "There is a gain at large t.",
        "the error of x0 at t = 900 is not smaller",
        "debiased / constant, error of x0 at t = 900",
        tables.errors("x0_mse", _LATE, _OURS), tables.errors("x0_mse", _LATE, _BASE),
    )  # fmt: skip
    yield paired_claim(
        "The price at small t is nothing.",
        "the error of x0 at t = 50 is larger",
        "debiased / constant, error of x0 at t = 50",
        tables.errors("x0_mse", _EARLY, _OURS), tables.errors("x0_mse", _EARLY, _BASE),
    )  # fmt: skip
    for other in tables.rivals(_OURS, _BASE):
        yield paired_claim(
            f"It is this weight, and not {_name(other)}.",
            f"{_name(other)} has as small an error of x0 at t = 900",
            f"debiased / {_name(other)}, error of x0 at t = 900",
            tables.errors("x0_mse", _LATE, _OURS), tables.errors("x0_mse", _LATE, other),
        )  # fmt: skip
    yield _common(tables)


def _common(tables):
    """Is constant's excess at large t shared by the training seeds? None for one seed."""
    bias = tables["bias.csv"]
    if bias is None or "excess_common" not in set(bias.quantity):
        return None
    rows = bias[(bias.model == _BASE) & (bias.t == _LATE) & (bias.split == "train") & bias.frequency.isna()]
    mean = rows.groupby("quantity").value.mean()
    share = mean["excess_common"] / (mean["excess_common"] + mean["excess_between"])
    return plain_claim(
        "Constant's excess is a bias and not a variance.",
        "the training seeds share less than half of the excess at t = 900",
        f"shared by all seeds: {share:.0%}",
        share > 0.5,
    )


def _chapter_4(tables):
    weights, steps = tables["weights.csv"], tables.steps
    if weights is None or not steps:
        return
    few, metric = steps[0], tables.feature_distance
    late = weights[(weights.prediction_type == "epsilon") & (weights.t == 500)].set_index("weighting").share
    values = {arm: tables.distances(metric, few, arm).mean() for arm in tables.arms}
    values = {arm: value for arm, value in values.items() if np.isfinite(value)}
    if len(values) > 2 and set(values) <= set(late.index):
        by_share = sorted(values, key=lambda arm: late[arm])  # the smallest share below t = 500 first
        by_value = sorted(values, key=values.get)
        yield plain_claim(
            "Weight at the noisy end is the cause.",
            f"the order by share of the weight at t > 500 is not the order by {metric} at {few} steps",
            f"by share: {', '.join(map(_name, by_share))}; by {metric}: {', '.join(map(_name, by_value))}",
            by_share == by_value,
        )
    if "inverse_snr" in values:
        yield paired_claim(
            "The root is the right power.",
            f"1/SNR gives as small a {metric} at {few} steps",
            f"debiased / 1/SNR, {metric} at {few} steps",
            tables.distances(metric, few, _OURS), tables.distances(metric, few, "inverse_snr"),
        )  # fmt: skip


def _chapter_5(tables):
    parts = sorted(tables.folder.glob("distances-*-s*.csv"))
    if not parts:
        return
    metric, table = tables.feature_distance, pd.concat([read_rows(path) for path in parts])
    table = table[(table.metric == metric) & (table.network == "ema") & (table.variant.fillna("") == "")]
    seen = sorted(table.images_seen.dropna().unique())
    if len(seen) < 2:
        return
    first = table[table.images_seen == seen[0]]
    steps = first.steps.iloc[0]
    ours, base = (
        first[(first.weighting == arm) & (first.steps == steps)].set_index("seed").value for arm in (_OURS, _BASE)
    )
    yield paired_claim(
        "It trains faster.",
        f"{metric} after the first {seen[0]:,.0f} images is not smaller",
        f"debiased / constant, {metric} at {steps:.0f} steps after {seen[0]:,.0f} images",
        ours, base,
    )  # fmt: skip


def _chapter_6(tables):
    metric, steps = tables.feature_distance, tables.steps
    for count in dict.fromkeys((steps[0], steps[-1])) if steps else ():
        for other in tables.rivals(_OURS):
            yield paired_claim(
                f"Better samples than {_name(other)} in {count} steps.",
                f"{metric} at {count} steps is not smaller",
                f"debiased / {_name(other)}, {metric}",
                tables.distances(metric, count, _OURS), tables.distances(metric, count, other),
            )  # fmt: skip


def _chapter_7(tables):
    controls = tables["controls.csv"]
    if controls is not None:
        for row in controls[~controls.outcome.str.startswith("x0_mse")].itertuples():
            interval = (row.ratio, row.low, row.high)
            yield dict(zip(COLUMNS, (
                f"The gain in {row.outcome} stays: {row.condition}.",
                "the ratio under this condition is not below 1",
                f"{row.arm} / {row.baseline}: {ratio_text(interval, row.n)}",
                verdict_of(interval),
            ), strict=True))  # fmt: skip
    yield from _swap(tables)


def _swap(tables):
    """Whose error spoils constant's colours: that above t = 600, or that below?"""
    table = tables["oracle_swap.csv"]
    if table is None:
        return
    table = table[(table.metric == "layout_energy") & (table.seed.astype(str) != "mean")]
    table = table[table.steps == table.steps.max()]
    t_star = min((t for t in set(table.t_star) if t >= 0), key=lambda t: abs(t - 600), default=None)
    if t_star is None:
        return

    def values(above, below, t):
        chosen = (table.above == above) & (table.below == below) & (table.t_star == t)
        return table[chosen].set_index("seed").value

    alone = values(_BASE, _BASE, -1)
    what = f"layout_energy of constant with the optimum at t {{}} {t_star}, over constant alone"
    for side, swapped in ((">", values("optimum", _BASE, t_star)), ("<=", values(_BASE, "optimum", t_star))):
        where = "large" if side == ">" else "small"
        claim = f"The estimate at {where} t spoils constant's colours."
        refuted_by = f"with the exact optimum at t {side} {t_star} the colours are as far from the data's"
        judge = paired_claim if (swapped > 0).all() else difference_claim
        yield judge(claim, refuted_by, what.format(side), swapped, alone)


_CHAPTERS = {1: _chapter_1, 2: _chapter_2, 3: _chapter_3, 4: _chapter_4, 5: _chapter_5, 6: _chapter_6, 7: _chapter_7}
