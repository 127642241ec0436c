"""Multistep solvers of the probability flow ODE: DPM-Solver++ and UniPC, on x0_hat, with coefficients in float64.

In lambda = log(a / s), half the log SNR, the flow from one node of the chain to the next is (Lu et al. 2022b, eq. 8)

    x' = s'/s x + a' integral over lambda of e^(lambda - lambda') x0_hat(lambda)        h = lambda' - lambda

and a solver of order k replaces x0_hat(lambda) by what the last k nodes say of it. The libraries' schedulers were not
taken: they compute in float32, put other timesteps in place of the paper's, 2^-24 in place of a terminal SNR of 0, and
their DPM-Solver++ of order 3 is of order 2 (below). Where they can be made to agree, a test says so.
"""

import math

import numpy as np


class _Multistep:
    """What the solvers share: the order of each step, and the x0_hat of the last nodes, the newest first.

    A step has lower order where fewer nodes lie behind it, and towards the end: the last step, to alpha_bar = 1, has
    order 1 and gives x0_hat itself, the one before at most order 2 (the authors' `lower_order_final`, whatever the
    number of steps). A node of SNR = 0 lies infinitely far away; it says nothing of slopes, so it does not count.
    """

    def __init__(self, alpha_bar, order):
        self.nodes, self.memory = list(range(len(alpha_bar) - 1)), order
        self.a, self.s, self.lam = _coordinates(alpha_bar)
        steps = len(self.nodes)
        finite = np.cumsum(np.isfinite(self.lam[:-1]))
        orders = [max(1, min(order, steps - i, int(finite[i]))) for i in range(steps - 1)]
        self.tables = [self._table(i, order) for i, order in enumerate(orders)]

    def start(self):
        self.history = []

    def draws(self, call):
        return False

    def _remember(self, x0):
        self.history = [x0, *self.history[: self.memory - 1]]

    def _ratios(self, i, order):
        """h of step i, and how far behind its start the nodes before lie, in units of h."""
        h = self.lam[i + 1] - self.lam[i]
        return h, [float((self.lam[i] - self.lam[i - j]) / h) for j in range(1, order)]


class DPMSolverPlusPlus(_Multistep):
    """DPM-Solver++ (Lu et al. 2022b): order 2 is the paper's algorithm 2; order 3 takes x0_hat's second derivative too.

    Order 3 is the paper's Taylor expansion with divided differences through three nodes. The authors' code and
    diffusers give its last term half the weight that the expansion has, which leaves it at order 2; here it has the
    whole. Order 2 has no such fault: it is that of the paper and of the libraries.
    """

    def step(self, call, x, x0, epsilon, noise, values):
        if call == len(self.tables):
            return x0
        self._remember(x0)
        return _combine(*self.tables[call], x, self.history)

    def _table(self, i, order):
        h, behind = self._ratios(i, order)
        phi = np.expm1(-h)
        m = np.eye(order)  # the x0_hat of the last nodes as unit vectors: what follows is what multiplies each
        weights = -phi * m[0]
        if order == 2:
            weights = weights - phi / 2 * (m[0] - m[1]) / behind[0]
        elif order == 3:
            r0, r1 = behind[0], behind[1] - behind[0]
            first, second = (m[0] - m[1]) / r0, (m[1] - m[2]) / r1
            slope = first + r0 / (r0 + r1) * (first - second)
            curvature = 2 * (first - second) / (r0 + r1)
            weights = weights + (phi / h + 1) * slope - ((phi + h) / h**2 - 0.5) * curvature
        return self.s[i + 1] / self.s[i], self.a[i + 1] * weights


class UniPC(_Multistep):
    """UniPC (Zhao et al. 2023) on x0_hat with B(h) = e^(-h) - 1 ("bh2"): a predictor, and a corrector that is free.

    The network's answer at a node serves twice: it corrects the step to the node and predicts the next one, so a step
    costs one call, and a predictor of order 3 makes a solver of order 4. As in the authors' code the predictor of order
    2 and the corrector of order 1 have weight 1/2, and the last step is not corrected. Not defined from SNR = 0: the
    corrector's nodes would lie infinitely far apart.
    """

    def start(self):
        super().start()
        self.base = None  # x at the last node, corrected

    def step(self, call, x, x0, epsilon, noise, values):
        if call == len(self.tables):
            return x0
        if call > 0:
            keep, _, weights = self.tables[call - 1]
            x = _combine(keep, weights, self.base, [x0, *self.history])
        self._remember(x0)
        self.base = x
        keep, weights, _ = self.tables[call]
        return _combine(keep, weights, x, self.history)

    def _table(self, i, order):
        h, behind = self._ratios(i, order)
        B = np.expm1(-h)
        at = np.array([-r for r in behind] + [1.0])  # the nodes before and the one ahead, from the start, in h
        phi, moments = np.expm1(-h) / -h - 1, []
        for k in range(1, order + 1):
            moments.append(phi * math.factorial(k) / B)
            phi = phi / -h - 1 / math.factorial(k + 1)
        powers, moments = np.vander(at, order, increasing=True).T, np.array(moments)
        predict = np.array([0.5]) if order == 2 else np.linalg.solve(powers[:-1, :-1], moments[:-1])
        correct = np.array([0.5]) if order == 1 else np.linalg.solve(powers, moments)
        # Unit vectors again, the node ahead first, then the start of the step and the nodes before it.
        m = np.eye(order + 1)
        slopes = [(m[j + 1] - m[1]) / at[j - 1] for j in range(1, order)] + [m[0] - m[1]]
        predicted = -B * (m[1] + sum(w * d for w, d in zip(predict, slopes[:-1], strict=True)))
        corrected = -B * (m[1] + sum(w * d for w, d in zip(correct, slopes, strict=True)))
        return self.s[i + 1] / self.s[i], self.a[i + 1] * predicted[1:], self.a[i + 1] * corrected


def _coordinates(alpha_bar):
    """(a, s, lambda) of a chain, float64: lambda is -inf where alpha_bar = 0 and inf where it is 1."""
    alpha_bar = np.asarray(alpha_bar, dtype=np.float64)
    with np.errstate(divide="ignore"):
        lam = 0.5 * (np.log(alpha_bar) - np.log1p(-alpha_bar))
    return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), lam


def _combine(keep, weights, x, history):
    """keep x + sum of weights times the x0_hat in `history`, the newest first."""
    total = x * float(keep)
    for weight, x0 in zip(weights, history, strict=False):
        total.add_(x0, alpha=float(weight))
    return total
