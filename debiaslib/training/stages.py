"""Stages of an experiment: its trainings in the order of their worth, and what is left of it when some are missing.

    stages:
      - {arms: [constant, debiased], seeds: [0, 1, 2]}
      - {arms: [inverse_snr], seeds: [0]}

An experiment without stages trains every arm with every seed. With them it trains what they list, in that order, so
that whatever time allows is already a result. Imports no torch.
"""

import dataclasses

from ..errors import InputError, check_choice, shown
from .arms import parse_arm

__all__ = ["complete_part", "staged_runs"]


def staged_runs(stages, arms, seeds):
    """Every (arm, seed) that the stages list, in their order, seed by seed within a stage.

    stages: mappings with `arms` and `seeds`, of the experiment's; the first of `arms` is the one that others are
    compared with. Raises InputError for anything else, a training listed twice, a seed without the first arm, and an
    arm without the first seed.
    """
    runs = [run for stage in stages for run in _runs_of(stage, arms, seeds)]
    twice = [run for run in dict.fromkeys(runs) if runs.count(run) > 1]
    if twice:
        raise InputError(f"stages lists {_named(twice[0])} twice")
    needed = [(arms[0], seed) for seed in seeds] + [(arm, seeds[0]) for arm in arms]
    for run in needed:
        if run not in runs:
            raise InputError(f"stages leaves out {_named(run)}, without which the others cannot be compared")
    return runs


def _runs_of(stage, arms, seeds):
    if set(stage) != {"arms", "seeds"}:
        raise InputError(f"stages holds {shown(stage)}; a stage is like {{arms: [constant, debiased], seeds: [0, 1]}}")
    for name, values in stage.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"stages has {name} {shown(values)}; it must be a list with at least one")
    named = [str(parse_arm(arm)) for arm in stage["arms"]]
    for arm in named:
        check_choice("arm in stages", arm, arms)
    for seed in stage["seeds"]:
        if type(seed) is not int or seed not in seeds:
            raise InputError(f"stages names the seed {shown(seed)}; the experiment's: {', '.join(map(str, seeds))}")
    return [(arm, seed) for seed in stage["seeds"] for arm in named]


def complete_part(experiment, complete):
    """The experiment reduced to what can be compared of the `complete` (arm, seed): an `Experiment`, or None.

    Kept are the seeds with which the first arm is complete, the arms that are complete with the first of those, and
    their trainings. None where fewer than two weightings are left, or debiased, of which the notebooks tell, is not
    among them. The experiment itself is returned if nothing is missing.
    """
    complete = [run for run in experiment.runs if run in set(complete)]
    if len(complete) == len(experiment.runs):
        return experiment
    first = experiment.weightings[0]
    seeds = [seed for seed in experiment.seeds if (first, seed) in complete]
    arms = [arm for arm in experiment.arms if seeds and (arm, seeds[0]) in complete]
    weightings = [arm for arm in arms if arm in experiment.weightings]
    if len(weightings) < 2 or ("debiased" in experiment.weightings and "debiased" not in weightings):
        return None
    stages = [{"arms": [arm], "seeds": [seed]} for arm, seed in complete if arm in arms and seed in seeds]
    variants = [arm for arm in arms if arm not in weightings]
    return dataclasses.replace(
        experiment, weightings=tuple(weightings), variants=tuple(variants), seeds=tuple(seeds), stages=tuple(stages)
    )


def _named(run):
    return f"{run[0]} with seed {run[1]}"
