"""Figures of notebook 04: the loss weights, samples of all weightings. No torch."""

from .existence import common_steps, load_samples
from .grids import Row, image_grid
from .lines import TIMESTEP, listed
from .registry import figure
from .style import count, label, log_axis, look, ordered, panel_grid

NOTEBOOK, TABLE = "04_weighting_comparison", "tables/weights.csv"
_PANELS = {  # title: prediction_type and column
    r"$\epsilon$ loss, as defined": ("epsilon", "raw"),
    r"$\epsilon$ loss, divided by its mean": ("epsilon", "normalized"),
    "the same as an $x_0$ loss": ("sample", "normalized"),
    "the same as a $v$ loss": ("v_prediction", "normalized"),
}


def load_weights(tables):
    table = tables.read(*tables.find(TABLE), "t weighting prediction_type raw normalized")
    return {"T": int(table.t.max()) + 1, "weightings": listed(table.weighting)}, table


@figure("Loss weights", NOTEBOOK, TABLE, load_weights)
def weights(table):
    """Weight of the squared error by timestep for {weightings}: of epsilon, as defined (paper, figure 5 left) and
    divided by its mean over the {T} timesteps; and the divided one as a weight of a squared error of x0 (times SNR)
    and of v (times SNR / (1 + SNR)). {NO_DATA}
    """

    def paint(ax, title):
        kind, column = _PANELS[title]
        for i, who in enumerate(ordered(table.weighting)):
            rows = table[(table.weighting == who) & (table.prediction_type == kind) & (table[column] > 0)]
            # A few markers, at other places for each weighting.
            line = {**look(who).line, "markevery": (0.03 + 0.03 * i, 0.25)}
            ax.plot(rows.t, rows[column], **line, label=label(who))
        log_axis(ax.yaxis)
        ax.margins(x=0.02)
        ax.set(title=title, xlabel=TIMESTEP if ax.get_subplotspec().is_last_row() else "")

    return panel_grid([*_PANELS], paint, height=2.5, sharex=True)


@figure("Samples of all weightings by number of steps", NOTEBOOK, "tables/samples-*.npz", load_samples)
def samples_all(samples, images=2):
    """Samples of {weightings} by number of sampling steps (paper, figure 5 right), networks of {seeds}. {SAME_NOISE}"""
    steps, rows = common_steps(samples), []
    for who in ordered(samples):
        shown = samples[who]["images"][[list(samples[who]["steps"]).index(s) for s in steps]]
        for i, one in enumerate(shown.swapaxes(0, 1)[:images]):
            rows.append(Row(list(one), "" if i else label(who), look(who).colour, gap=i == 0))
    return image_grid(rows, [count(s) for s in steps], "steps")
