"""Answers to the questions of docs/preregistration.md, by the rules written down there, from an experiment's tables.

The outcomes are those of the pre-registration; in place of fd_cifar10 stands the Fréchet distance that the experiment
has. Every comparison is paired by training seed. Imports no torch.
"""

import math

import pandas as pd

from ..metrics.statistics import holm, paired_ratio, paired_test
from .results_read import ResultTables

COLUMNS = ["question", "outcome", "against", "ratio", "low", "high", "n", "p", "p_holm", "answer"]
FEW, MANY = 10, 50  # sampling steps
MARGIN = 0.9  # "no difference": the interval lies within 0.9 to 1 / 0.9
T_STAR = 600  # of the oracle swap
_OURS, _BASE = "debiased", "constant"
_RIVALS = ("constant; prediction_type=v_prediction", "p2(k=1,gamma=1)", "min_snr(gamma=5)")
UNTESTABLE = "not testable with these networks"
QUESTIONS = {
    "Q1": "Is debiased's estimate of x0 nearer to the optimum at large t, and at what price at small t?",
    "Q2": "Are debiased's samples better than those of a tuned constant weight?",
    "Q3": "Is it this weight, and not P2, Min-SNR or constant, predicting v?",
    "Q4": "Is it the estimate at large t that spoils constant's colours?",
}
_YES = {"lower": "yes", "higher": "no, it is worse"}


def answers(folder):
    """A row for each comparison of results/<experiment> `folder`: a DataFrame, COLUMNS.

    ratio: debiased over the other arm, of Q4 constant with the optimum over constant alone; the geometric mean over
    n seeds with its 95 % t interval. p: two-sided, of the paired t test of the logarithms; p_holm: corrected within the
    question. Where a distance is not above 0, ratio is that of the means, low and high are NaN, and p is of the
    differences. Where a training of constant or debiased fails the gate, these networks cannot test anything.
    """
    tables = ResultTables(folder)
    found = pd.DataFrame(list(filter(None, (compared(*one) for one in _comparisons(tables)))), columns=COLUMNS)
    for question, part in found.groupby("question"):
        if question != "Q4":
            found.loc[part.index, "p_holm"] = holm(part.p)
    found["answer"] = [answer_to(row) for row in found.itertuples()]
    gate = tables["gate.csv"]
    if gate is not None and not gate[gate.arm.isin([_OURS, _BASE])].passes.all():
        found["answer"] = UNTESTABLE
    return found


def _comparisons(tables):
    """(question, outcome, against, ours, base) of all that is compared; ours and base are Series by seed."""
    for t in (900, 50):
        pair = (tables.errors("excess", t, arm) for arm in (_OURS, _BASE))
        yield "Q1", f"excess of x0 at t = {t}", _BASE, *pair
    asked = [("Q2", metric, _BASE) for metric in (tables.feature_distance, "layout_energy")]
    for question, metric, rival in [*asked, *(("Q3", tables.feature_distance, rival) for rival in _RIVALS)]:
        for steps in (MANY, FEW):
            pair = (tables.distances(metric, steps, arm) for arm in (_OURS, rival))
            yield question, f"{metric}, {steps} steps", rival, *pair
    t_star, alone, swapped = tables.swap()
    for side, values in swapped.items() if t_star == T_STAR else ():
        steps = tables["oracle_swap.csv"].steps.max()
        outcome = f"layout_energy, {steps:.0f} steps, with the optimum at t {side} {T_STAR}"
        yield "Q4", outcome, f"{_BASE} alone", values, alone


def compared(question, outcome, against, ours, base):
    """The row of one comparison, without its answer; None where no seed has both."""
    from scipy.stats import ttest_1samp  # lazy: it is slow to import

    seeds = ours.index.intersection(base.index)
    if not len(seeds):
        return None
    ours, base = ours[seeds], base[seeds]
    if (ours > 0).all() and (base > 0).all():
        bounds, p = paired_ratio(ours, base), paired_test(ours, base)
    else:
        p = float(ttest_1samp(ours - base, 0).pvalue) if len(seeds) > 1 else math.nan
        bounds = 1 + (ours - base).mean() / abs(base.mean()), math.nan, math.nan
    return question, outcome, against, *bounds, len(seeds), p, math.nan, ""


def answer_to(row):
    """The registered answer to a row of COLUMNS with its corrected p; of Q4 to the swap."""
    if row.n < 2:
        return "one seed"
    if row.question == "Q4":
        return _swap_answer(row)
    if row.p_holm < 0.05:
        return "lower" if row.ratio < 1 else "higher"
    return "no difference" if row.low >= MARGIN and row.high <= 1 / MARGIN else "not decided"


def _swap_answer(row):
    """What the optimum leaves of the colour error; at large t it is the paper's account that is judged."""
    if not row.outcome.endswith(f"t > {T_STAR}"):
        return "for comparison"
    if row.ratio <= 0.5 and (row.high < 1 if math.isfinite(row.high) else row.p < 0.05):
        return "confirmed"
    return "refuted" if row.low >= 0.9 else "partly"


def conclusions(found):
    """What `answers` found as one answer to each question, by the registered rules: columns question, asked, answer."""
    parts = found.groupby("question")
    said = {one: UNTESTABLE if UNTESTABLE in set(part.answer) else _CONCLUDE[one](part) for one, part in parts}
    return pd.DataFrame([(one, QUESTIONS[one], said[one]) for one in said], columns=["question", "asked", "answer"])


def _conclude_1(rows):
    late, early = (rows[rows.outcome.str.endswith(f"= {t}")] for t in (900, 50))
    parts = [_YES.get(answer, answer) for answer in late.answer]
    return "; ".join([*parts, *(f"at t = 50 its excess is {ratio:.2f} times constant's" for ratio in early.ratio)])


def _conclude_2(rows):
    own = rows[~rows.outcome.str.startswith("layout")]
    return "; ".join(f"in {row.outcome.split(', ')[1]}: {_YES.get(row.answer, row.answer)}" for row in own.itertuples())


def _conclude_3(rows):
    few = rows[rows.outcome.str.endswith(f", {FEW} steps") & rows.against.isin(_RIVALS[1:])]
    if (few.n < 2).any():
        return "one seed"
    if not (few.answer == "lower").all():
        return "not this weight in particular"
    return "this weight" if set(few.against) == set(_RIVALS[1:]) else "not answered: P2 or Min-SNR was not measured"


_CONCLUDE = {"Q1": _conclude_1, "Q2": _conclude_2, "Q3": _conclude_3, "Q4": lambda rows: rows.answer.iloc[0]}
