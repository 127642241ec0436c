"""The figures on how a weight is applied: as a density on the axis of log SNR, and the noise of its gradients.

Tables in, a matplotlib Figure out, as in `plotting.py`. Imports no torch.
"""

import numpy as np

from .style import label, legend_below, log_axis, look, new_figure, note, ordered, style

__all__ = ["gradient_noise", "logsnr_density", "weights_logsnr"]

_MARKERS = ("o", "s", "D")  # of the ways to apply a weight; colours are the weightings'


def logsnr_density(weight, snr):
    """(ln SNR, density): the weight of an epsilon loss per unit of ln SNR, with integral 1 over the schedule's range.

    weight, snr: (T,), w(t) and SNR(t), the timesteps drawn uniformly: density = w(t) / |d ln SNR/dt|, normalised.
    Timesteps of no signal, where ln SNR is -infinity, are left out. Both arrays rise along ln SNR.
    """
    weight, snr = np.asarray(weight, float), np.asarray(snr, float)
    shown = np.isfinite(weight) & (snr > 0)
    log_snr = np.log(snr[shown])
    density = weight[shown] / np.abs(np.gradient(log_snr))
    return log_snr[::-1], (density / np.abs(np.trapezoid(density, log_snr)))[::-1]


@style()
def weights_logsnr(table):
    """Weight of the epsilon loss per unit of ln SNR, least noise at the left. `table`: weights.csv."""
    figure, [[ax]] = new_figure(height=4.0)
    rows = table[table.prediction_type == "epsilon"]
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[rows.weighting == who].sort_values("t")
        log_snr, density = logsnr_density(one.raw, one.snr)
        # Markers evenly spread over the axis; every line's begin at another place.
        at = np.searchsorted(log_snr, np.linspace(log_snr[0], log_snr[-1], 9)[1:-1] + 0.25 * i)
        ax.plot(np.exp(log_snr), density, **look(who).line, label=label(who),
                markevery=np.unique(at.clip(max=len(log_snr) - 1)).tolist())  # fmt: skip
    log_axis(ax.xaxis)
    ax.invert_xaxis()
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.set(xlabel="SNR (log scale; the noisy end is at the right)", ylabel=r"weight per unit of $\ln\,$SNR")
    legend_below(figure, [ax])
    return figure


@style()
def gradient_noise(table):
    """Noise of a batch's gradient over its signal, by weighting and way to apply it. `table`: gradient_noise.csv."""
    if table.empty:
        return note("One network, trained elsewhere: it has no weighting whose gradient could be measured.")
    rows = table[table.noise_to_signal > 0]
    if rows.empty:
        return note("In so few batches, noise hides the gradient of every weighting.")
    weightings, ways = ordered(table.weighting), list(dict.fromkeys(table.way))
    figure, [[ax]] = new_figure(height=1.4 + 0.55 * len(weightings))
    for j, way in enumerate(ways):
        one = rows[rows.way == way]
        y = [weightings.index(who) + 0.2 * (j - (len(ways) - 1) / 2) for who in one.weighting]
        spread = np.exp(1.96 * one.variance_se / one.variance)  # an interval of the logarithm
        colours = [look(who).colour for who in one.weighting]
        ax.scatter(one.noise_to_signal, y, c=colours, marker=_MARKERS[j % 3], s=42, zorder=3)
        ax.hlines(y, one.noise_to_signal / spread, one.noise_to_signal * spread, colors=colours, linewidth=1.2)
        ax.scatter([], [], c="0.3", marker=_MARKERS[j % 3], s=42, label=way)
    log_axis(ax.xaxis)
    ax.set_yticks(range(len(weightings)), [label(who) for who in weightings])
    ax.set_ylim(len(weightings) - 0.5, -0.5)
    ax.set_xlabel("variance of one batch's gradient / squared norm of the expected gradient")
    legend_below(figure, [ax])
    return figure
