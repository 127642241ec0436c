"""Samplers as solvers: one object that walks down a chain of alpha_bar, from x_T to the image, a network call a step.

A chain is alpha_bar at the respaced timesteps, the noisiest first, and 1 at its end. With a = sqrt(alpha_bar) and
s = sqrt(1 - alpha_bar), the prime for the next node of the chain, and x0_hat, epsilon_hat from the network at x:

    ddim            x' = a' x0_hat + sqrt(s'^2 - sigma^2) epsilon_hat + sigma z            (Song et al. 2021, eq. 12)
    ddpm            x' ~ the posterior q(x' | x, x0_hat) of the chain                      (Ho et al. 2020, eq. 7)
    ddpm-large      the same mean, with the variance beta = 1 - alpha_bar / alpha_bar' of the chain
    dpm-solver++2, dpm-solver++3, unipc                                                    (multistep.py)
    heun            the trapezoidal rule in s/a, two calls a step                          (Karras et al. 2022, alg. 1)

The last step, to alpha_bar = 1, gives x0_hat itself with every one of them: no noise is added, no slope corrected.
"""

import numpy as np
import torch

from ..errors import InputError, check_choice, check_number
from .multistep import DPMSolverPlusPlus, UniPC
from .schedule import Schedule
from .variance import log_variance


def solver(sampler, alpha_bar, eta=0.0):
    """The solver of that name on a chain of alpha_bar, the noisiest first: n nodes and 1.0.

    It has `nodes`, the index in the chain at which each network call is made; `start()`, before each batch;
    `draws(call)`, whether the step after that call takes noise; and `step(call, x, x0, epsilon, noise, values)`, which
    returns where the next call is made, or the image after the last one. x0 and epsilon are the network's estimates at
    x, of one shape and dtype; noise is standard normal or None; values are those of a learned variance or None, and
    "ddpm" alone takes them.

    Raises InputError for an unknown sampler, for an eta that is not 0 with another one than "ddim", and for "unipc" and
    "heun" on a chain that starts at SNR = 0, which lies infinitely far away in their coordinates.
    """
    check_choice("sampler", sampler, SOLVERS)
    check_number("eta", eta, minimum=0, maximum=1)
    if eta and sampler != "ddim":
        raise InputError(f"eta is {eta}; it is the noise of 'ddim', and the sampler is {sampler!r}")
    if sampler in ("unipc", "heun") and len(alpha_bar) > 2 and alpha_bar[0] == 0:
        raise InputError(f"sampler {sampler!r} is not defined from SNR = 0; use 'dpm-solver++2', 'ddim' or 'ddpm'")
    alpha_bar = [float(value) for value in alpha_bar]
    return DDIM(alpha_bar, eta) if sampler == "ddim" else SOLVERS[sampler](alpha_bar)


def evaluations(sampler, steps):
    """Network calls that an image costs: 2 steps - 1 for "heun", else as many as steps."""
    check_choice("sampler", sampler, SOLVERS)
    check_number("steps", steps, minimum=1, integer=True)
    return 2 * steps - 1 if sampler == "heun" else steps


class DDIM:
    """sigma^2 = eta^2 s'^2 / s^2 (1 - alpha_bar / alpha_bar'): eta = 0 is deterministic, eta = 1 as noisy as DDPM."""

    def __init__(self, alpha_bar, eta=0.0):
        self.nodes, self.eta, self.tables = list(range(len(alpha_bar) - 1)), eta, []
        for ab, after in zip(alpha_bar, alpha_bar[1:], strict=False):
            sigma2 = eta**2 * (1 - after) / (1 - ab) * (1 - ab / after)
            self.tables.append((after**0.5, max(1 - after - sigma2, 0.0) ** 0.5, sigma2**0.5))

    def start(self):
        """Nothing is carried from step to step."""

    def draws(self, call):
        return self.eta > 0 and call < len(self.nodes) - 1

    def step(self, call, x, x0, epsilon, noise, values):
        signal, direction, sigma = self.tables[call]
        x = signal * x0 + direction * epsilon
        return x if noise is None else x + sigma * noise


class DDPM:
    """The mean of the posterior and its own variance, "fixed small", or beta, "fixed large", or a learned one between.

    A network that has learned its variance decides with "fixed small"; with "fixed large" it is not asked.
    """

    def __init__(self, alpha_bar, large=False):
        self.nodes, self.large, self.tables = list(range(len(alpha_bar) - 1)), large, []
        for ab, after in zip(alpha_bar, alpha_bar[1:], strict=False):
            alpha = ab / after
            mean = after**0.5 * (1 - alpha) / (1 - ab), alpha**0.5 * (1 - after) / (1 - ab)
            variance = 1 - alpha if large else (1 - after) / (1 - ab) * (1 - alpha)
            self.tables.append((*mean, variance**0.5))
        respaced, steps = Schedule(alpha_bar[-2::-1], "respaced"), torch.arange(len(self.nodes))
        ends = [log_variance(end, steps, respaced, like=torch.zeros(1, dtype=torch.float64)) for end in (-1.0, 1.0)]
        self.log_variances = [(low, high - low) for low, high in zip(*(e.tolist()[::-1] for e in ends), strict=True)]

    def start(self):
        """Nothing is carried from step to step."""

    def draws(self, call):
        return call < len(self.nodes) - 1

    def step(self, call, x, x0, epsilon, noise, values):
        of_x0, of_x, sigma = self.tables[call]
        mean = of_x0 * x0 + of_x * x
        if noise is None:
            return mean
        if values is not None and not self.large:
            low, spread = self.log_variances[call]
            sigma = (low + (values + 1) / 2 * spread).exp() ** 0.5
        return mean + sigma * noise


class Heun:
    """Heun's rule for dx/dsigma = epsilon_hat in x/a and sigma = s/a, without churn: a DDIM step, then its correction.

    With the x0_hat m at the node and m' at the end of the DDIM step, half of both slopes is

        x' = x'_ddim + a'/2 (e^h - 1) (m' - m)        e^h = sigma / sigma'

    which keeps the digits that x/a loses where a is small. The weight grows with the step: in a few steps from a high
    sigma the correction is far too large, as it is in the published form.
    """

    def __init__(self, alpha_bar):
        steps = len(alpha_bar) - 1
        self.nodes = [0] + [node for node in range(1, steps) for _ in range(2)]
        a, s = np.sqrt(alpha_bar), np.sqrt(1 - np.array(alpha_bar))
        self.tables = []
        for i in range(steps - 1):
            gain = float(a[i + 1] * (s[i] / a[i] * a[i + 1] / s[i + 1] - 1) / 2)
            self.tables.append((float(s[i + 1] / s[i]), float(a[i + 1] - s[i + 1] / s[i] * a[i]), gain))

    def start(self):
        self.first = None  # x0_hat at the node that the step starts from

    def draws(self, call):
        return False

    def step(self, call, x, x0, epsilon, noise, values):
        if call == len(self.nodes) - 1 and self.first is None:
            return x0
        keep, of_x0, gain = self.tables[call // 2]
        if self.first is None:
            self.first = x0
            return keep * x + of_x0 * x0
        change, self.first = x0 - self.first, None
        return x + gain * change


SOLVERS = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "ddpm-large": lambda alpha_bar: DDPM(alpha_bar, large=True),
    "dpm-solver++2": lambda alpha_bar: DPMSolverPlusPlus(alpha_bar, 2),
    "dpm-solver++3": lambda alpha_bar: DPMSolverPlusPlus(alpha_bar, 3),
    "unipc": lambda alpha_bar: UniPC(alpha_bar, 3),
    "heun": Heun,
}
