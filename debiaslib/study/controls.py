"""How much of the gain is the weighting? Contrasts between the arms of an experiment, from its saved tables.

An outcome is one number a training, lower being better: a distance of its samples from the data or an error of its
one-step estimates. A contrast is the ratio of an outcome between two arms, paired by training seed, with Student's t
interval of its logarithm. Imports no torch.
"""

import math

import pandas as pd

from ..errors import InputError
from ..metrics.statistics import mean_interval, paired_ratio
from ..training.arms import Arm, parse_arm

# name: (metric, sampling steps) of the distances, or (quantity, timestep) of the errors
OUTCOMES = {
    "colour error, 5 steps": ("layout_energy", 5),
    "colour error, 20 steps": ("layout_energy", 20),
    "fd_pooled, 20 steps": ("fd_pooled", 20),
    "fd_minifaces, 20 steps": ("fd_minifaces", 20),
    "fd_minifaces, 50 steps": ("fd_minifaces", 50),
    "fd_cifar10, 10 steps": ("fd_cifar10", 10),
    "fd_cifar10, 50 steps": ("fd_cifar10", 50),
    "x0_mse, t = 50": ("x0_mse", 50),
    "x0_mse, t = 900": ("x0_mse", 900),
}
# Settings that change nothing for a weight of 1 at every t: a constant arm without them is their counterpart.
_OF_THE_WEIGHT = ("max_weight", "normalize_weight", "timestep_sampling")
BASE = "baseline"  # our own: equal rates, raw weights, no clipping
BEST = "each at its best learning rate"


def outcomes(distances, errors):
    """The outcomes of every training: arm, weighting, variant, network, seed, outcome, value.

    distances: rows of distances-<run>.csv, of which those of the last snapshot count; errors: arm_errors.csv. An
    outcome that is 0 or less in any training, as the unbiased energy distance can be, has no ratios and is left out.
    """
    last = distances.groupby(["weighting", "variant", "seed"]).images_seen.transform("max")
    distances = distances[(distances.images_seen == last) & (distances.sampler == distances.sampler.iloc[0])]
    renamed = {"metric": "what", "steps": "at", "quantity": "what", "t": "at"}
    columns = ["weighting", "variant", "network", "seed", "what", "at", "value"]
    rows = pd.concat([part.rename(columns=renamed)[columns] for part in (distances, errors)], ignore_index=True)
    names = {key: name for name, key in OUTCOMES.items()}
    rows["outcome"] = [names.get(key) for key in zip(rows.what, rows["at"].astype(int), strict=True)]
    rows = rows[rows.outcome.notna()].drop(columns=["what", "at"])
    if rows.empty:
        first = next(iter(OUTCOMES))
        raise InputError(f"07_controls: of its outcomes, such as {first}, the experiment has measured none")
    rows = rows[rows.groupby("outcome").value.transform("min") > 0].reset_index(drop=True)
    return rows.assign(arm=rows.weighting + ("; " + rows.variant).where(rows.variant != "", ""))


def contrasts(table):
    """The ratio debiased / constant of every outcome under every condition: a DataFrame, a row a condition and outcome.

    Columns: condition, arm, baseline, network, outcome, ratio, low, high (95 % t interval over the seeds), n (seeds),
    share: log ratio over that of the baseline, the part of its gain that is left. Conditions: the baseline; each at its
    best learning rate; each variant of debiased against constant with the same variant; debiased against each variant
    of constant, and each arm of another prediction type, that it lacks, except further rates; and the weights of the
    last step in place of their average.
    """
    rows, measured = [], set(table.outcome)
    for condition, arm, baseline, network in _conditions(table):
        for outcome in filter(measured.__contains__, OUTCOMES):
            pair = [one if isinstance(one, str) else one[outcome] for one in (arm, baseline)]
            chosen = table[(table.outcome == outcome) & (table.network == network)]
            if not {*pair} <= {*chosen.arm}:
                continue  # raw weights are judged by the steps of the samples at the end alone
            seeds = chosen.pivot(index="seed", columns="arm", values="value")[pair].dropna()
            rows.append((condition, *pair, network, outcome, *paired_ratio(*(seeds[one] for one in pair)), len(seeds)))
    columns = ["condition", "arm", "baseline", "network", "outcome", "ratio", "low", "high", "n"]
    found = pd.DataFrame(rows, columns=columns)
    whole = found[found.condition == BASE].set_index("outcome").ratio
    found["share"] = found.ratio.map(math.log) / found.outcome.map(whole).map(math.log)
    return found


def _conditions(table):
    """(condition, arm, baseline, network); arm and baseline are {outcome: arm} where they depend on the outcome."""
    arms = list(dict.fromkeys(table.arm))
    if not {"constant", "debiased"} <= set(arms):
        raise InputError(f"controls compare constant and debiased; the experiment has {'; '.join(arms) or 'no arms'}")
    yield BASE, "debiased", "constant", "ema"
    swept = {who: [arm for arm in arms if _swept(arm, who)] for who in ("debiased", "constant")}
    if both := min(map(len, swept.values())) > 1:
        best = {who: {o: best_arm(table, o, swept[who]) for o in set(table.outcome)} for who in swept}
        yield BEST, best["debiased"], best["constant"], "ema"
    # A rate that constant alone has been given is one of those for its best, and no condition by itself.
    for arm in [arm for arm in arms if not (both and arm in swept["constant"])]:
        parsed = parse_arm(arm)
        constant, variant = parsed.weighting == "constant", parsed.variant.replace("=", " ")
        if parsed.weighting == "debiased" and variant:
            kept = tuple((key, value) for key, value in parsed.settings if key not in _OF_THE_WEIGHT)
            baseline = str(Arm(parse_arm("constant").strategy, kept))
            if baseline in arms:
                yield variant, arm, baseline, "ema"
        elif (constant and variant or "prediction_type" in variant) and f"debiased; {parsed.variant}" not in arms:
            yield f"against {parsed.strategy.label} with {variant}", "debiased", arm, "ema"
    if {"constant", "debiased"} <= set(table.arm[table.network == "raw"]):
        yield "weights of the last step, no EMA", "debiased", "constant", "raw"


def _swept(arm, weighting):
    parsed = parse_arm(arm)
    return parsed.weighting == weighting and all(key == "lr" for key, _ in parsed.settings)


def best_arm(table, outcome, arms):
    """Of the arms the one whose outcome has the lowest geometric mean over the seeds, on which it is judged then."""
    chosen = table[(table.outcome == outcome) & (table.network == "ema") & table.arm.isin(arms)]
    return chosen.assign(log=chosen.value.map(math.log)).groupby("arm", sort=False).log.mean().idxmin()


def sweep(table, rate):
    """Every outcome by learning rate, rate(arm): outcome, weighting, lr, mean, low, high (t interval of its log), n."""
    swept = table[table.network == "ema"]
    swept = swept[[_swept(arm, parse_arm(arm).weighting) for arm in swept.arm]]
    rows, by = [], ["outcome", "weighting", "lr"]
    for key, part in swept.assign(lr=swept.arm.map(rate)).groupby(by, sort=False):
        rows.append((*key, *map(math.exp, mean_interval(part.value.map(math.log))), len(part)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"]).sort_values(by, ignore_index=True)
