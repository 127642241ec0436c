"""Figures of notebook 02: one-step estimates beside the exact optimum, and the error of their mean colour. No torch."""

import numpy as np

from .grids import Row, image_grid
from .lines import listed, preferred
from .mse_curves import error_panel, load_errors
from .registry import figure
from .style import label, legend_below, look, new_figure

NOTEBOOK, TABLE = "02_one_step_estimation", "tables/one_step.npz"


def load_one_step(tables):
    """(facts, arrays of one_step.npz, the names that are shown: two weightings, then the optimum where it is there).

    Arrays: t (K,), names, a list of M, x0 (n, 3, R, R), x_t (K, n, 3, R, R), x0_hat (M, K, n, 3, R, R) and others.
    """
    arrays = tables.read(*tables.find(TABLE), "t names x0 x_t x0_hat amplified_error")
    names = arrays["names"] = [str(name) for name in arrays["names"]]
    shown = preferred([name for name in names if name != "optimum"]) + ["optimum"] * ("optimum" in names)
    return {"weightings": listed(shown)}, arrays, shown


def short(who):
    """The label without its formula."""
    return label(who).partition(" $")[0]


def estimate_row(estimates, x0, who, clean=(), **more):
    """A Row of estimates of `x0`, with the root mean square of their errors below, which clipping hides.

    clean: images without such a number before them.
    """
    errors = np.sqrt(((estimates - x0) ** 2).mean(axis=(1, 2, 3)))
    notes = [""] * len(clean) + [f"{error:.3f}" for error in errors]
    return Row([*clean, *estimates], short(who), look(who).colour, notes=notes, **more)


@figure("One-step estimates and the exact optimum", NOTEBOOK, TABLE, load_one_step)
def one_step_estimates(arrays, shown, images=3):
    """One-step estimates x0_hat of the same training images with the same noise, for {weightings} (paper, figure 3).
    The optimum E[x0|x_t], where it is shown, is exact over the training images, or under their law where that is known:
    no network has a smaller expected squared error. {CLIPPED} Below each estimate: its mean colour, and the root mean
    square of its error x0_hat - x0 before clipping, in [-1, 1]. The first images, not chosen; no error bars.
    """
    rows = []
    for image, x0 in enumerate(arrays["x0"][:images]):
        for who in shown:
            first, estimates = who == shown[0], arrays["x0_hat"][arrays["names"].index(who), :, image]
            rows.append(estimate_row(estimates, x0, who, [x0 if first else None], gap=first))
    return image_grid(rows, ["$x_0$", *(f"{t}" for t in arrays["t"])], "timestep $t$")


@figure("Colour error of one-step estimates", NOTEBOOK, "tables/mse.csv", load_errors)
def colour_error(table):
    """Squared error of the mean colour of the one-step estimate: mean over R, G and B of (mean of x0_hat - mean of
    x0)^2 in each image, not clipped. {INITIAL} {BANDS}
    """
    drawn, [[ax]] = new_figure(height=3.5)
    error_panel(ax, table[table.quantity == "colour_mse"])
    legend_below(drawn)
    return drawn
