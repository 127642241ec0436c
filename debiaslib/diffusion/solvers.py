"""Samplers: one object that walks down a chain of alpha_bar, from x_T to the image, with one network call a step.

With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar), a prime for the next node of the chain, and x0_hat, epsilon_hat
from the network at x:

    ddim          x' = a' x0_hat + sqrt(s'^2 - sigma^2) epsilon_hat + sigma z             (Song et al. 2021, eq. 12)
    ddpm          x' ~ the posterior q(x' | x, x0_hat) of the chain                       (Ho et al. 2020, eq. 7)
    ddpm-large    the same mean, with the variance beta = 1 - alpha_bar / alpha_bar' of the chain
    dpm-solver-2  multistep DPM-Solver of order 2 on epsilon_hat                          (Lu et al. 2022)
    unipc         UniPC of order 3 on x0_hat, B(h) = h ("bh1")                            (Zhao et al. 2023)

The paper's authors use ddpm, ddim and the last two, with these settings. The first three call the network at `steps`
timesteps from T-1 to 0; their last step, to alpha_bar = 1, gives x0_hat itself. The last two have `steps` + 1
timesteps, call the network at all but the last one, t = 0, and return x there. The authors place these at fractions of
a timestep; ours are whole, as in diffusers.

diffusers' own compute in float32, replace a terminal SNR of 0 by 2^-24, and its DDIM takes other steps. The tests
compare with them, given our timesteps where theirs differ.
"""

import math

import numpy as np
import torch

from ..errors import InputError, check_choice, check_number
from .schedule import Schedule
from .variance import log_variance

MULTISTEP = ("dpm-solver-2", "unipc")


def respaced_timesteps(steps, T):
    """`steps` timesteps spread evenly over [0, T-1], highest first: a list of ints. One step is t = T-1 alone.

    This is the rule of the authors' code (ADM's): a running sum of (T-1) / (steps-1), rounded at each step. For 278 of
    the counts up to 1000, none of them a usual one, the sum's own rounding moves a timestep by one. For one step theirs
    is t = 0, which would take pure noise for an image that is almost clean; ours is T-1. Raises InputError for a number
    of steps outside [1, T].
    """
    check_number("steps", steps, minimum=1, maximum=T, integer=True)
    if steps == 1:
        return [T - 1]
    strides = np.full(steps, (T - 1) / (steps - 1))
    strides[0] = 0.0
    return strides.cumsum().round().astype(int)[::-1].tolist()


def solver(sampler, steps, schedule, eta=0.0):
    """The `Solver` of that name that calls the network `steps` times; its `timesteps` are those of the calls.

    Raises InputError for an unknown sampler, for a number of steps outside [1, T], or [1, T-1] for the multistep
    solvers, which need one timestep more than calls, for an eta that is not 0 with another sampler than "ddim", and for
    a multistep solver where SNR(T-1) = 0, which is infinitely far away on its axis of log SNR.
    """
    check_choice("sampler", sampler, SOLVERS)
    check_number("eta", eta, minimum=0, maximum=1)
    if eta and sampler != "ddim":
        raise InputError(f"eta is {eta}; it is the noise of 'ddim', and the sampler is {sampler!r}")
    multistep = sampler in MULTISTEP
    check_number("steps", steps, minimum=1, maximum=schedule.T - multistep, integer=True)
    timesteps = respaced_timesteps(steps + multistep, schedule.T)
    alpha_bar = schedule.alpha_bar[timesteps].tolist()
    if multistep and alpha_bar[0] == 0:
        raise InputError(f"sampler {sampler!r} is not defined from SNR = 0; use 'ddim' or 'ddpm'")
    settings = {"eta": eta} if sampler == "ddim" else {}
    found = SOLVERS[sampler](alpha_bar if multistep else [*alpha_bar, 1.0], **settings)
    found.timesteps = timesteps[:steps]
    return found


class Solver:
    """Made from a chain of alpha_bar: the nodes of the network calls, the noisiest first, and the end of the walk.

    `tables` has the coefficients of each step, from one node to the next.
    """

    def start(self):
        """To be called before each batch: forget the last one."""

    def draws(self, i):
        """Whether step i takes noise."""
        return False

    def step(self, i, x, x0, epsilon, noise, values):
        """x at the next node, from x at node i.

        x0, epsilon: the network's estimates at x, of its shape and dtype. noise: standard normal or None. values: those
        of a learned variance or None; "ddpm" alone uses them.
        """
        raise NotImplementedError


class DDIM(Solver):
    """sigma^2 = eta^2 s'^2 / s^2 (1 - alpha_bar / alpha_bar'): eta = 0 is deterministic, eta = 1 as noisy as DDPM."""

    def __init__(self, alpha_bar, eta=0.0):
        self.eta, self.tables = eta, []
        for ab, after in zip(alpha_bar, alpha_bar[1:], strict=False):
            sigma2 = eta**2 * (1 - after) / (1 - ab) * (1 - ab / after)
            self.tables.append((after**0.5, max(1 - after - sigma2, 0.0) ** 0.5, sigma2**0.5))

    def draws(self, i):
        return self.eta > 0 and i < len(self.tables) - 1

    def step(self, i, x, x0, epsilon, noise, values):
        signal, direction, sigma = self.tables[i]
        x = signal * x0 + direction * epsilon
        return x if noise is None else x + sigma * noise


class DDPM(Solver):
    """The mean of the posterior and its own variance, "fixed small", or beta, "fixed large", or a learned one between.

    A network that has learned its variance decides with "fixed small"; with "fixed large" it is not asked.
    """

    def __init__(self, alpha_bar, large=False):
        self.large, self.tables = large, []
        for ab, after in zip(alpha_bar, alpha_bar[1:], strict=False):
            alpha = ab / after
            mean = after**0.5 * (1 - alpha) / (1 - ab), alpha**0.5 * (1 - after) / (1 - ab)
            variance = 1 - alpha if large else (1 - after) / (1 - ab) * (1 - alpha)
            self.tables.append((*mean, variance**0.5))
        respaced, steps = Schedule(alpha_bar[-2::-1], "respaced"), torch.arange(len(self.tables), device="cpu")
        like = torch.zeros(1, dtype=torch.float64, device="cpu")
        ends = [log_variance(end, steps, respaced, like=like) for end in (-1.0, 1.0)]
        self.log_variances = [(low, high - low) for low, high in zip(*(e.tolist()[::-1] for e in ends), strict=True)]

    def draws(self, i):
        return i < len(self.tables) - 1

    def step(self, i, x, x0, epsilon, noise, values):
        of_x0, of_x, sigma = self.tables[i]
        mean = of_x0 * x0 + of_x * x
        if noise is None:
            return mean
        if values is not None and not self.large:
            low, spread = self.log_variances[i]
            sigma = (low + (values + 1) / 2 * spread).exp() ** 0.5
        return mean + sigma * noise


class Multistep(Solver):
    """A step on the axis of lambda = log(a / s), h = lambda' - lambda, from the estimates at the last `order` nodes.

    Between two nodes the flow is linear in x0_hat, or in epsilon_hat. A solver of order k takes it for a polynomial
    through the last k nodes. Fewer nodes lie behind the first steps, whose order is lower. Coefficients are float64.
    """

    order = 2

    def __init__(self, alpha_bar):
        alpha_bar = np.array(alpha_bar)
        self.a, self.s = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        self.lam = np.log(self.a) - np.log(self.s)
        self.steps = len(alpha_bar) - 1
        self.tables = [self._table(i, min(self.order, i + 1, self._highest(i))) for i in range(self.steps)]

    def start(self):
        self.history = []

    def _remember(self, estimate):
        self.history = [estimate, *self.history[: self.order - 1]]

    def _distances(self, i, order):
        """h of step i, and how far behind its start the nodes before lie, in units of h."""
        h = self.lam[i + 1] - self.lam[i]
        return h, [(self.lam[i] - self.lam[i - j]) / h for j in range(1, order)]


class DPMSolver(Multistep):
    """x' = a'/a x - s' (e^h - 1) D, D = epsilon_hat + (epsilon_hat - that of the node before) / (2 r), r of that node.

    With fewer than 15 steps the last one has order 1 (`lower_order_final`), as in DPM-Solver's documentation and
    diffusers. The authors' copy of its code has 10 in place of 15: from 10 to 14 steps theirs is another solver, with
    10 steps worse than DDIM on an exact optimum.
    """

    def _highest(self, i):
        return self.steps - i if self.steps < 15 else self.order

    def _table(self, i, order):
        h, behind = self._distances(i, order)
        weights = np.array([1 + 0.5 / behind[0], -0.5 / behind[0]] if order == 2 else [1.0])
        return self.a[i + 1] / self.a[i], -self.s[i + 1] * np.expm1(h) * weights

    def step(self, i, x, x0, epsilon, noise, values):
        self._remember(epsilon)
        return _combine(*self.tables[i], x, self.history)


class UniPC(Multistep):
    """x' = s'/s x + a' (1 - e^-h) x0_hat + a' h sum_k rho_k D_k: a predictor, and a corrector that costs no call.

    D_k are the slopes of x0_hat towards the nodes before and, in the corrector, towards the one ahead. The network's
    answer at a node serves twice: it corrects the step to the node and predicts the next one, so order 3 makes a solver
    of order 4. As published, the predictor of order 2 and the corrector of order 1 have rho = 1/2; the order falls
    towards the end, to 1 in the last step, which is not corrected.
    """

    order = 3

    def start(self):
        super().start()
        self.base = None  # x at the last node, corrected

    def _highest(self, i):
        return self.steps - i

    def _table(self, i, order):
        h, behind = self._distances(i, order)
        at = np.array([-r for r in behind] + [1.0])  # the nodes before and the one ahead, from the start, in h
        phi, moments = np.expm1(-h) / -h - 1, []
        for k in range(1, order + 1):
            moments.append(phi * math.factorial(k) / -h)
            phi = phi / -h - 1 / math.factorial(k + 1)
        powers, moments = np.vander(at, order, increasing=True).T, np.array(moments)
        predict = np.array([0.5]) if order == 2 else np.linalg.solve(powers[:-1, :-1], moments[:-1])
        correct = np.array([0.5]) if order == 1 else np.linalg.solve(powers, moments)
        # Each x0_hat as a unit vector, the node ahead first, then the start and the nodes before: so the sums below are
        # what multiplies each of them.
        m = np.eye(order + 1)
        slopes = [(m[j + 1] - m[1]) / at[j - 1] for j in range(1, order)] + [m[0] - m[1]]
        first = -np.expm1(-h) * m[1]
        predicted = first + h * sum(rho * slope for rho, slope in zip(predict, slopes[:-1], strict=True))
        corrected = first + h * sum(rho * slope for rho, slope in zip(correct, slopes, strict=True))
        return self.s[i + 1] / self.s[i], self.a[i + 1] * predicted[1:], self.a[i + 1] * corrected

    def step(self, i, x, x0, epsilon, noise, values):
        if i > 0:
            keep, _, weights = self.tables[i - 1]
            x = _combine(keep, weights, self.base, [x0, *self.history])
        self._remember(x0)
        self.base = x
        keep, weights, _ = self.tables[i]
        return _combine(keep, weights, x, self.history)


def _combine(keep, weights, x, history):
    """keep x + the sum of weights times the estimates in `history`, the newest first."""
    total = x * float(keep)
    for weight, estimate in zip(weights, history, strict=False):
        total.add_(estimate, alpha=float(weight))
    return total


SOLVERS = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "ddpm-large": lambda alpha_bar: DDPM(alpha_bar, large=True),
    "dpm-solver-2": DPMSolver,
    "unipc": UniPC,
}
