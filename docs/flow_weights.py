"""Which noise levels a flow-matching objective attends to: its density times its weight, on the axis of log SNR.

    python docs/flow_weights.py                               # the table of docs/flow_matching.md
    python docs/flow_weights.py --figure docs/figures/flow_matching.png

With sigma in [0, 1], log SNR = 2 log((1 - sigma) / sigma), whose slope is -2 / (sigma (1 - sigma)). An objective that
draws sigma with density p and weighs |u_hat - u|^2 by w attends to log SNR with p w sigma (1 - sigma) / 2.
"""

import argparse

import torch

from debiaslib import loss_weight
from debiaslib.diffusion.flow import FlowSchedule

LABELS = {
    "uniform": "uniform: $w = 1$",
    "logit_normal": "logit-normal(0, 1)",
    "sigma_sqrt": r"sigma_sqrt: $w = \sigma^{-2}$",
    "cosmap": r"cosmap: $w = 2 / (\pi (1 - 2\sigma + 2\sigma^2))$",
    "constant": r"constant for $\epsilon$: $w = (1 - \sigma)^2$",
    "inverse_snr": r"1/SNR for $\epsilon$: $w = \sigma^2$",
    "debiased": r"debiased: $w = \sigma (1 - \sigma)$",
}
LINES = {
    "uniform": ("#999999", "-"),
    "logit_normal": ("#0072B2", "--"),
    "sigma_sqrt": ("#D55E00", ":"),
    "cosmap": ("#CC79A7", "-."),
    "constant": ("#E69F00", (0, (1, 2))),
    "inverse_snr": ("#009E73", (0, (5, 1, 1, 1))),
    "debiased": ("#000000", "-"),
}


def grid(T=1000):
    """sigma = 1/T ... (T-1)/T, as diffusers trains on but for the last, where log SNR is minus infinity: (T-1,)."""
    return FlowSchedule.uniform(T).sigma[:-1]


def attention(name, sigma):
    """p(sigma) w(sigma) of an objective in use, up to a factor: float64, of sigma's shape."""
    if name == "uniform":
        return torch.ones_like(sigma)
    if name == "logit_normal":  # the density alone: w = 1
        logit = (sigma / (1 - sigma)).log()
        return torch.exp(-(logit**2) / 2) / (sigma * (1 - sigma))
    if name == "sigma_sqrt":
        return sigma**-2
    if name == "cosmap":
        return 2 / (torch.pi * (1 - 2 * sigma + 2 * sigma**2))
    return loss_weight(name, FlowSchedule(sigma), "flow_prediction")


def on_log_snr(name, sigma):
    """(log SNR, share): the objective's attention as a density over log SNR of area 1 on the grid, each (T-1,)."""
    log_snr, height = 2 * ((1 - sigma) / sigma).log(), attention(name, sigma) * sigma * (1 - sigma) / 2
    return log_snr, height / -torch.trapezoid(height, log_snr)


def table():
    """Mean and standard deviation of log SNR under each objective, sums over the grid, as lines of Markdown."""
    lines = ["| objective | mean of log SNR | its standard deviation |", "| --- | --- | --- |"]
    log_snr = 2 * ((1 - grid()) / grid()).log()
    for name in LABELS:
        share = attention(name, grid())
        share = share / share.sum()
        mean = (share * log_snr).sum()
        spread = (share * (log_snr - mean) ** 2).sum().sqrt()
        lines.append(f"| `{name}` | {mean + 0:.2f} | {spread:.2f} |".replace("| -0.00 |", "| 0.00 |"))
    return "\n".join(lines)


def draw(path):
    """Save the figure. Needs matplotlib."""
    from debiaslib.figures.style import new_figure, style

    with style():
        figure, [[ax]] = new_figure(1, 1, height=4.6)
        for name, label in LABELS.items():
            log_snr, share = on_log_snr(name, grid())
            colour, dashes = LINES[name]
            width = 2.4 if name == "debiased" else 1.6
            ax.plot(log_snr, share, color=colour, linestyle=dashes, linewidth=width, label=label)
        ax.set(xlabel=r"log SNR $= 2 \log((1 - \sigma) / \sigma)$", ylabel="share of the objective",
               xlim=(-10, 14), ylim=(0, 0.32))  # fmt: skip
        ax.legend(loc="upper left", fontsize=8.5)
        figure.savefig(path, metadata={"Software": None})
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Which noise levels a flow-matching objective attends to.")
    parser.add_argument("--figure", metavar="PATH", help="draw the figure there instead of printing the table")
    given = parser.parse_args()
    if given.figure:
        draw(given.figure)
    else:
        print(table())
