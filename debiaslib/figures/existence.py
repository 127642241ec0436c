"""Figures of notebook 01: the factor by which an error grows, its anatomy, and what sampling makes of it. No torch."""

import numpy as np

from ..study.saved_tables import parse_run
from .grids import Row, image_grid
from .lines import TIMESTEP, listed, preferred, seed_list
from .one_step import TABLE, estimate_row, load_one_step, short
from .registry import NothingToDraw, figure
from .style import count, label, legend_below, log_axis, look, new_figure, ordered

NOTEBOOK = "01_bias_existence"
_HERO = ("constant", "debiased", "p2")
_HERO_STEPS = (3, 5, 10, 50, 1000)


def load_snr(tables):
    table = tables.read(*tables.find("tables/weights.csv"), "t snr").drop_duplicates("t").sort_values("t")
    return {"T": int(table.t.max()) + 1}, table.reset_index(drop=True)


@figure("Signal-to-noise ratio by timestep", NOTEBOOK, "tables/weights.csv", load_snr)
def snr(table):
    """SNR(t) of the noise schedule, and the factor 1/sqrt(SNR(t)) by which an error in epsilon grows into an error of
    the one-step estimate of x0 (paper, figure 2 left). {T} timesteps, t = 0 the least noisy. {NO_DATA}
    """
    drawn, [[ax]] = new_figure(height=3.4)
    table = table[table.snr > 0]
    for values, who, name in (
        (table.snr, "optimum", r"$\mathrm{SNR}(t)$"),
        (table.snr**-0.5, "debiased", r"$1\,/\sqrt{\mathrm{SNR}(t)}$"),
    ):
        ax.plot(table.t, values, color=look(who).colour, linestyle="-", linewidth=2.2, label=name)
    ax.axhline(1, color="0.7", linewidth=0.9, zorder=1)
    one = int(table.t[np.log(table.snr).abs().idxmin()])
    ax.plot([one], [1], "o", color="0.3", label=f"SNR = 1 near t = {one}")
    log_axis(ax.yaxis)
    ax.margins(x=0.01)
    ax.set(xlabel=TIMESTEP, ylabel="ratio, no unit (log scale)")
    legend_below(drawn)
    return drawn


@figure("Anatomy of a one-step estimate", NOTEBOOK, TABLE, load_one_step)
def one_step_anatomy(arrays, shown):
    """A noisy image x_t, the estimate x0_hat from one call of the network, and the amplified error x0 - x0_hat =
    (epsilon_hat - epsilon) / sqrt(SNR(t)), for {weightings} (paper, figure 2 right). The noise is the same in all.
    {CLIPPED} The error is clipped to [-1, 1] and drawn around grey. One training image: an illustration, no error bars.
    """
    rows = [Row([arrays["x0"][0], *arrays["x_t"][:, 0]], "$x_t$")]
    for who in shown:
        for array, name in (("x0_hat", f"{short(who)}  $\\hat x_0$"), ("amplified_error", "error")):
            images = arrays[array][arrays["names"].index(who), :, 0]
            rows.append(Row([None, *images], name, look(who).colour, gap=array == "x0_hat"))
    return image_grid(rows, ["$x_0$", *(f"{t}" for t in arrays["t"])], "timestep $t$")


@figure("What is behind the noise? One call at a large timestep", NOTEBOOK, TABLE, load_one_step)
def one_call(arrays, shown, images=8):
    """Training images x0; the noisy images x_t made of them at one large t; and the estimates x0_hat from one call of
    {weightings}. The optimum is the exact mean of x0 given x_t. {CLIPPED} Below each estimate: its mean colour, and the
    root mean square of its error before clipping, in [-1, 1]. The first images, not chosen; no error bars.
    """
    x0, at = arrays["x0"][:images], int(np.abs(arrays["t"] - 900).argmin())
    rows = [Row(list(x0), "$x_0$"), Row(list(arrays["x_t"][at][:images]), "$x_t$")]
    rows += [estimate_row(arrays["x0_hat"][arrays["names"].index(who), at][:images], x0, who) for who in shown]
    return image_grid(rows, [""] * len(x0), f"t = {arrays['t'][at]}")


def load_samples(tables, wanted=None):
    """(facts, {weighting: arrays steps and images of its first seed}) of all weightings, or of those wanted."""
    runs = [(*parse_run(path.stem.removeprefix("samples-")), path) for path in tables.find("tables/samples-*.npz")]
    first = {who: (seed, path) for who, seed, path in sorted(runs, key=lambda run: -run[1])}
    shown = preferred(first, wanted) if wanted else ordered(first)
    samples = {who: tables.read(first[who][1], "steps images") for who in shown}
    return {"weightings": listed(shown), "seeds": seed_list(first[who][0] for who in shown)}, samples


def load_hero(tables):
    facts, samples = load_samples(tables, _HERO)
    return facts, samples, load_one_step(tables)[1]["x0"]


@figure("Samples by number of steps", NOTEBOOK, "tables/samples-*.npz", load_hero)
def samples_by_steps(samples, real, images=8):
    """Samples of {weightings} by number of sampling steps (paper, figure 1), networks of {seeds}. {SAME_NOISE} Above:
    training images, to compare with; they belong to no sample below.
    """
    common = common_steps(samples)
    steps = [s for s in common if s in _HERO_STEPS] or common[-4:]
    rows = [Row(list(real[:images]), "real", look("real").colour)]
    for who in ordered(samples):
        for s in steps:
            shown = samples[who]["images"][list(samples[who]["steps"]).index(s)][:images]
            name, first = count(s), s == steps[0]
            rows.append(Row(list(shown), f"{label(who)}  {name}" if first else name, look(who).colour, gap=first))
    return image_grid(rows, [""] * max(len(row.images) for row in rows), "steps")


def common_steps(samples):
    """The numbers of steps that all weightings have, in order. Raises NothingToDraw without one."""
    steps = sorted(set.intersection(*({int(s) for s in arrays["steps"]} for arrays in samples.values())))
    if not steps:
        raise NothingToDraw("The weightings were sampled with no number of steps in common.")
    return steps
