"""Figures of notebook 04: the loss weights, samples of all weightings. No torch."""

from .existence import common_steps, load_samples
from .grids import Row, image_grid
from .lines import TIMESTEP, dense, listed
from .registry import figure
from .style import count, label, legend_below, log_axis, look, new_figure, ordered, panel_grid

NOTEBOOK, TABLE = "04_weighting_comparison", "tables/weights.csv"
_UNITS = {"epsilon": r"of an $\epsilon$ loss", "sample": r"of an $x_0$ loss", "v_prediction": r"of a $v$ loss"}


def load_weights(tables):
    """(facts, weights.csv, its rows of the epsilon loss)."""
    table = tables.frame(*tables.find(TABLE), "t snr weighting prediction_type raw normalized share")
    facts = {"T": int(table.t.max()) + 1, "weightings": listed(table.weighting)}
    return facts, table, table[table.prediction_type == "epsilon"]


@figure("Loss weights", NOTEBOOK, TABLE, load_weights)
def weights(_, rows):
    """Weight of the squared error of epsilon by timestep for {weightings}, as defined and divided by its mean over the
    {T} timesteps (paper, figure 5 left). {NO_DATA}
    """
    panels = {"As defined": ("raw", "weight"), "Divided by its mean": ("normalized", "weight / mean weight")}
    paint = lambda ax, title: _weight_panel(ax, rows, *panels[title], title)  # noqa: E731
    return panel_grid([*panels], paint, height=2.8, base=0, columns=1, sharex=True)


@figure("The same weights in three parametrisations", NOTEBOOK, TABLE, load_weights)
def weights_units(table, _):
    """The same objectives as weights of a squared error of epsilon, of x0 (weight times SNR) and of v (weight times
    SNR / (1 + SNR)), each divided by the mean of its epsilon form. {NO_DATA}
    """

    def paint(ax, unit):
        rows = table[table.prediction_type == unit]
        _weight_panel(ax, rows, "normalized", "weight / mean", f"Weight {_UNITS[unit]}")

    known = [unit for unit in _UNITS if (table.prediction_type == unit).any()]
    return panel_grid(known, paint, height=2.1, base=0.8, columns=1, sharex=True)


def _weight_panel(ax, rows, column, ylabel, title):
    dense(ax, rows[rows[column] > 0], "t", column)
    log_axis(ax.yaxis)
    ax.margins(x=0.02)
    ax.set(title=title, xlabel=TIMESTEP, ylabel=ylabel)
    ax.label_outer()


@figure("Share of the weight by timestep", NOTEBOOK, TABLE, load_weights)
def weight_share(_, rows):
    """Share of the whole weight of the epsilon loss that lies at timesteps up to t, for {weightings}. {NO_DATA}"""
    drawn, [[ax]] = new_figure(height=3.8)
    dense(ax, rows, "t", "share")
    ax.set(xlabel=TIMESTEP, ylabel=r"share of all weight at timesteps $\leq t$", ylim=(-0.02, 1.02))
    ax.margins(x=0.01)
    legend_below(drawn)
    return drawn


@figure("Samples of all weightings by number of steps", NOTEBOOK, "tables/samples-*.npz", load_samples)
def samples_all(samples, images=2):
    """Samples of {weightings} by number of sampling steps (paper, figure 5 right), networks of {seeds}. {SAME_NOISE}"""
    steps, rows = common_steps(samples), []
    for who in ordered(samples):
        shown = samples[who]["images"][[list(samples[who]["steps"]).index(s) for s in steps]]
        for i, one in enumerate(shown.swapaxes(0, 1)[:images]):
            rows.append(Row(list(one), "" if i else label(who), look(who).colour, gap=i == 0))
    return image_grid(rows, [count(s) for s in steps], "steps")
