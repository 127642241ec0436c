"""The oracle swap: which part of a network's error spoils its samples, that at large t or that at small t?

A sampler asks one denoiser above a timestep t_star and another one from there down. With the exact optimum in the place
of a network above t_star, what is left of the colour shift was made below it; with the optimum below, what is left was
made above. If constant's colour shift goes once the optimum answers at large t, the paper's mechanism is confirmed for
these networks; if it stays, it is refuted.
"""

import itertools

import numpy as np

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


def as_denoiser(model, schedule, prediction_type):
    """The function (x_t, t) -> x0_hat of a network."""
    return lambda x_t, t: to_x0_epsilon(call_network(model, x_t, t), x_t, t.cpu(), schedule, prediction_type)[0]


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

    Columns: above, below, t_star (-1: one denoiser at all t), seed, steps, and those of `metrics.evaluate`. The samples
    of one number of steps start from equal noise. The optimum alone stands under the first seed.
    """
    e, metrics = study.experiment, Metrics(study, study.experiment.swap_images)
    inputs = {**trained(study, e.seeds, e.weightings[:2]), **metrics.inputs, **_inputs(e), "steps": e.swap_steps}

    def rows():
        found = []
        for seed in e.seeds:
            draw = _sampler(study, seed)
            asked = [swap for swap in swaps(e) if seed == e.seeds[0] or swap[:2] != (ORACLE, ORACLE)]
            for steps, (above, below, t_star) in itertools.product(e.swap_steps, asked):
                facts = {"above": above, "below": below, "t_star": t_star, "seed": seed, "steps": steps}
                found += metrics.rows(draw(above, below, t_star, steps, e.swap_images), **facts)
        return found

    return study.csv("oracle_swap.csv", inputs, rows, digits=10)


def oracle_swap_samples(study):
    """Samples of the first seed's swaps at the largest number of steps: a dict of arrays.

    names (M,), each "above | below"; t_star (K,); images uint8 (M, K, N, 3, R, R).
    """
    e, seed = study.experiment, study.experiment.seeds[0]
    inputs = {**trained(study, [seed], e.weightings[:2]), **_inputs(e), "steps": max(e.swap_steps), "n": _SHOWN}

    def make():
        draw, pairs = _sampler(study, seed), list(dict.fromkeys(swap[:2] for swap in swaps(e)))
        images = [[draw(*pair, t, max(e.swap_steps), _SHOWN) for t in e.swap_timesteps] for pair in pairs]
        names = np.array([" | ".join(pair) for pair in pairs])
        return {"names": names, "t_star": np.array(e.swap_timesteps), "images": np.array(images)}

    return study.arrays("oracle_swap_samples.npz", inputs, make)


def _inputs(e):
    return {"swaps": swaps(e), "clip": e.clip_x0, "optimum": e.optimum_images, "sampler": e.sampler}


def _sampler(study, seed):
    """The function (above, below, t_star, steps, count) that draws a swap's samples of a training seed."""
    e, config = study.experiment, study.config
    denoisers = {ORACLE: optimal_denoiser(study)[0]}
    for arm in e.weightings[:2]:
        denoisers[arm] = as_denoiser(study.model(arm, seed), study.schedule, study.prediction_type_of(arm))
    options = {"sampler": e.sampler, "prediction_type": "sample", "clip_x0": e.clip_x0, "device": config.device}
    options |= {"shape": (3, config.resolution, config.resolution), "batch_size": e.sampling_batch_size}

    def draw(above, below, t_star, steps, count):
        model = swapped(denoisers[above], denoisers[below], t_star)
        return sample(model, study.schedule, image_seeds(seed, count), steps=steps, **options)

    return draw
