"""The oracle swap: which part of a network's error spoils its samples, that at large t or that at small t?

A sampler asks one denoiser above a timestep t_star and another one from there down. With the exact optimum in the place
of a network above t_star, what is left of the colour shift was made below it; with the optimum below, what is left was
made above. If constant's colour shift goes once the optimum answers at large t, the paper's mechanism is confirmed for
these networks; if it stays, it is refuted.
"""

import itertools

import numpy as np
import torch

from ..diffusion.prediction import call_network, to_x0_epsilon
from ..diffusion.sampling import sample
from .common import optimal_denoiser, trained
from .distances import Metrics
from .samples import image_seeds

ORACLE = "optimum"
_SHOWN = 8  # images of each swap in the grid


def swapped(above, below, t_star):
    """The denoiser (x_t, t) -> x0_hat that is `above` at t > t_star and `below` elsewhere; t: int64 (N,), all equal."""
    return lambda x_t, t: (above if int(t[0]) > t_star else below)(x_t, t)


def as_denoiser(models, schedule, prediction_type):
    """The function (x_t, t) -> x0_hat of networks' mean answer; one network is a list of one."""

    def answer(x_t, t):
        output = torch.stack([call_network(model, x_t, t) for model in models]).mean(dim=0)
        return to_x0_epsilon(output, x_t, t.cpu(), schedule, prediction_type)[0]

    return answer


def swaps(experiment):
    """The (above, below, t_star) to sample: each arm with the optimum, both arms crossed, and each alone (t_star -1).

    The arms are the experiment's first two weightings.
    """
    first, second = experiment.weightings[:2]
    pairs = [(ORACLE, first), (first, ORACLE), (ORACLE, second), (second, ORACLE), (first, second), (second, first)]
    alone = [(who, who, -1) for who in (first, second, ORACLE)]
    return alone + [(*pair, t_star) for pair in pairs for t_star in experiment.swap_timesteps]


def oracle_swap(study):
    """Distances from the data of the swaps' samples, tables/oracle_swap.csv: a DataFrame, a row a metric.

    Columns: above, below, t_star (-1: one denoiser at all t), seed, steps, and those of `metrics.evaluate`. Seed "mean"
    is the mean of all seeds' answers at each call. The samples of one number of steps start from equal noise.
    """
    e = study.experiment
    metrics, arms = Metrics(study, e.swap_images), e.weightings[:2]
    inputs = {**trained(study, e.seeds, arms), **metrics.inputs, "swaps": swaps(e), "steps": e.swap_steps}
    inputs |= {"clip": e.clip_x0, "optimum": e.optimum_images, "sampler": e.sampler}

    def rows():
        # The optimum alone has no training seed: once.
        asked = {seed: [s for s in swaps(e) if seed == e.seeds[0] or s[:2] != (ORACLE, ORACLE)] for seed in e.seeds}
        if len(e.seeds) > 1:
            asked["mean"] = [(arm, arm, -1) for arm in arms]
        found = []
        for name, of_seed in asked.items():
            seeds = e.seeds if name == "mean" else [name]
            denoisers = _denoisers(study, seeds)
            for steps, (above, below, t_star) in itertools.product(e.swap_steps, of_seed):
                images = _draw(study, denoisers, (above, below, t_star), seeds[0], steps)
                found += metrics.rows(images, above=above, below=below, t_star=t_star, seed=name, steps=steps)
        return found

    return study.csv("oracle_swap.csv", inputs, rows, digits=10)


def oracle_swap_samples(study):
    """Samples of the first seed's swaps at the last number of steps: a dict of arrays.

    names (M,), each "above | below"; t_star (K,); images uint8 (M, K, N, 3, R, R).
    """
    e, seed = study.experiment, study.experiment.seeds[0]
    inputs = {**trained(study, [seed], e.weightings[:2]), "swaps": swaps(e), "steps": e.swap_steps[-1]}
    inputs |= {"clip": e.clip_x0, "optimum": e.optimum_images, "sampler": e.sampler, "n": _SHOWN}

    def make():
        denoisers, pairs = _denoisers(study, [seed]), list(dict.fromkeys(swap[:2] for swap in swaps(e)))
        more = (seed, e.swap_steps[-1], _SHOWN)
        images = [[_draw(study, denoisers, (*pair, t), *more) for t in e.swap_timesteps] for pair in pairs]
        names = np.array([" | ".join(pair) for pair in pairs])
        return {"names": names, "t_star": np.array(e.swap_timesteps), "images": np.array(images)}

    return study.arrays("oracle_swap_samples.npz", inputs, make)


def _denoisers(study, seeds):
    """{name: (x_t, t) -> x0_hat} of the optimum and of the first two weightings: the mean of these seeds' networks."""
    found = {ORACLE: optimal_denoiser(study)[0]}
    for arm in study.experiment.weightings[:2]:
        models = [study.model(arm, seed) for seed in seeds]
        found[arm] = as_denoiser(models, study.schedule, study.prediction_type_of(arm))
    return found


def _draw(study, denoisers, swap, seed, steps, count=None):
    """Samples of a swap (above, below, t_star) from the starting noise of a training seed's samples."""
    above, below, t_star = swap
    e, config = study.experiment, study.config
    model, seeds = swapped(denoisers[above], denoisers[below], t_star), image_seeds(seed, count or e.swap_images)
    options = {"sampler": e.sampler, "steps": steps, "prediction_type": "sample", "clip_x0": e.clip_x0}
    options |= {"shape": (3, config.resolution, config.resolution), "batch_size": e.sampling_batch_size}
    return sample(model, study.schedule, seeds, device=config.device, **options)
