"""Figures of notebook 02: one-step estimates beside the exact optimum, and the error of their mean colour. No torch."""

import numpy as np

from .facts import listed, preferred
from .grids import Row, image_grid
from .mse_curves import BANDS, draw_errors, load_errors
from .registry import figure
from .style import label, look

NOTEBOOK = "02_one_step_estimation"
CLIPPED = "x0_hat is clipped to [-1, 1] for display alone."


def load_one_step(tables):
    """(arrays of one_step.npz, the names that are shown of it: two weightings, then the optimum where it is there).

    Arrays: t (K,), names (M,), x0 (n, 3, R, R), x0_hat (M, K, n, 3, R, R) and others.
    """
    arrays = tables.arrays(*tables.find("tables/one_step.npz"), "t names x0 x_t x0_hat amplified_error")
    names = [str(name) for name in arrays["names"]]
    return arrays, preferred([name for name in names if name != "optimum"]) + ["optimum"] * ("optimum" in names)


def load_estimates(tables):
    arrays, shown = load_one_step(tables)
    return {"weightings": listed(shown)}, arrays, shown


@figure(
    "one_step_estimates", NOTEBOOK, "tables/one_step.npz", load_estimates,
    title="One-step estimates and the exact optimum",
    caption=f"""One-step estimates x0_hat of the same training images with the same noise, for {{weightings}} (paper,
    figure 3). The optimum E[x0|x_t], where it is shown, is exact over the training images: no network can have a
    smaller mean squared error on them. {CLIPPED} Below each estimate: its mean colour, and the root mean square of its
    error x0_hat - x0 before clipping, in [-1, 1]. The first images, not chosen; no error bars.""",
)  # fmt: skip
def draw_estimates(arrays, shown, images=3):
    """For each of a few images a row of x0_hat of each of the names `shown`: the clean x0, then a column for each t.

    Clipping hides how far an estimate leaves the range of images, so its error stands below it in numbers.
    """
    names, rows = list(arrays["names"]), []
    for image in range(min(images, arrays["x0"].shape[0])):
        for who in shown:
            estimates = arrays["x0_hat"][names.index(who), :, image]
            errors = np.sqrt(np.mean((estimates - arrays["x0"][image]) ** 2, axis=(1, 2, 3)))
            clean = arrays["x0"][image] if who == shown[0] else None
            name, first = label(who).partition(" $")[0], who == shown[0]
            notes = ["", *(f"{error:.2g}" for error in errors)]
            rows.append(Row([clean, *estimates], name, look(who).colour, gap=first and image > 0, notes=notes))
    return image_grid(rows, ["$x_0$", *(f"{t}" for t in arrays["t"])], "timestep $t$", breaks=(1,))


figure(
    "colour_error", NOTEBOOK, "tables/mse.csv", lambda tables: (*load_errors(tables), ["colour_mse"]),
    title="Colour error of one-step estimates",
    caption=f"""Squared error of the mean colour of the one-step estimate: mean over R, G and B of (mean of x0_hat -
    mean of x0)^2 in each image, not clipped. Initial: x_t itself in the place of the estimate. Training images.
    {BANDS}""",
)(draw_errors)  # fmt: skip
