"""Samplers: one object that walks down a chain of alpha_bar, from x_T to the image, with one network call a step.

With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar), a prime for the next node of the chain, and x0_hat, epsilon_hat
from the network at x:

    ddim          x' = a' x0_hat + s' epsilon_hat                    (Song et al. 2021, eq. 12, eta = 0)
    ddpm          x' ~ the posterior q(x' | x, x0_hat) of the chain             (Ho et al. 2020, eq. 7)

The network is called at `steps` timesteps from T-1 to 0; the last step, to alpha_bar = 1, gives x0_hat itself. The
authors' DPM-Solver and UniPC are in diffusers, whose pipelines take our networks; its own DDIM takes other steps.
"""

import numpy as np
import torch

from ..errors import check_choice, check_number
from .schedule import Schedule
from .variance import log_variance


def respaced_timesteps(steps, T):
    """`steps` timesteps spread evenly over [0, T-1], highest first: a list of ints. One step is t = T-1 alone.

    This is the rule of the authors' code (ADM's): a running sum of (T-1) / (steps-1), rounded at each step, whose own
    rounding counts. For one step theirs is t = 0, which takes pure noise for an almost clean image. Raises InputError
    for a number of steps outside [1, T].
    """
    check_number("steps", steps, minimum=1, maximum=T, integer=True)
    if steps == 1:
        return [T - 1]
    strides = np.full(steps, (T - 1) / (steps - 1))
    strides[0] = 0.0
    return strides.cumsum().round().astype(int)[::-1].tolist()


def solver(sampler, steps, schedule):
    """The sampler of that name that calls the network `steps` times, at its `timesteps`.

    Raises InputError for an unknown sampler and for a number of steps outside [1, T].
    """
    check_choice("sampler", sampler, SOLVERS)
    timesteps = respaced_timesteps(steps, schedule.T)
    found = SOLVERS[sampler]([*schedule.alpha_bar[timesteps].tolist(), 1.0])
    found.timesteps = timesteps
    return found


class DDIM:
    """Made from a chain of alpha_bar: the nodes of the network calls, the noisiest first, and 1 at the end."""

    noisy = False  # whether each step but the last takes noise

    def __init__(self, alpha_bar):
        self.tables = [(after**0.5, (1 - after) ** 0.5) for after in alpha_bar[1:]]

    def step(self, i, x, x0, epsilon, noise, values):
        """x at the next node, from x at node i.

        x0, epsilon: the network's estimates at x, of its shape and dtype. noise: standard normal or None. values: those
        of a learned variance or None; "ddpm" alone uses them.
        """
        signal, direction = self.tables[i]
        return signal * x0 + direction * epsilon


class DDPM:
    """The mean of the posterior, with its own variance ("fixed small"), or the learned one."""

    noisy = True

    def __init__(self, alpha_bar):
        self.tables = []
        for ab, after in zip(alpha_bar, alpha_bar[1:], strict=False):
            alpha = ab / after
            mean = after**0.5 * (1 - alpha) / (1 - ab), alpha**0.5 * (1 - after) / (1 - ab)
            self.tables.append((*mean, ((1 - after) / (1 - ab) * (1 - alpha)) ** 0.5))
        respaced, steps = Schedule(alpha_bar[-2::-1], "respaced"), torch.arange(len(self.tables), device="cpu")
        like = torch.zeros(1, dtype=torch.float64, device="cpu")
        ends = [log_variance(end, steps, respaced, like=like) for end in (-1.0, 1.0)]
        self.log_variances = [(low, high - low) for low, high in zip(*(e.tolist()[::-1] for e in ends), strict=True)]

    def step(self, i, x, x0, epsilon, noise, values):
        """As `DDIM.step`; drawn around the posterior's mean, or that mean where noise is None."""
        of_x0, of_x, sigma = self.tables[i]
        mean = of_x0 * x0 + of_x * x
        if noise is None:
            return mean
        if values is not None:
            low, spread = self.log_variances[i]
            sigma = (low + (values + 1) / 2 * spread).exp() ** 0.5
        return mean + sigma * noise


SOLVERS = {"ddim": DDIM, "ddpm": DDPM}
