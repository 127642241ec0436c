"""Figures of notebook 03 on the size of the error: by timestep, over the optimum, and on held-out images. No torch.

Those on its sign and its parts are in `bias.py`.
"""

from .facts import fewer_seeds, seed_list
from .lines import TIMESTEP, curve, summarise
from .registry import NothingToDraw, figure
from .style import label, legend_below, log_axis, look, new_figure, ordered

NOTEBOOK = "03_mse_step_curves"
BANDS = "Lines: mean over {n} images{over}."
_RATIO = """Initial: x_t itself in the place of the estimate. All see the same images, timesteps and noise, so the
ratio's interval is that of paired differences. Training images."""
QUANTITIES = {
    "epsilon_mse": r"MSE of $\hat\epsilon$ (per pixel)",
    "x0_mse": r"MSE of $\hat x_0$ (per pixel, $[-1,1]^2$)",
    "colour_mse": r"MSE of the mean colour ($[-1,1]^2$)",
}
_HELDOUT = ("epsilon_mse", "x0_mse")
FLOOR = r"floor $E\,\mathrm{Var}(x_0|x_t)$"


def load_errors(tables, split="train"):
    """(facts, rows of mse.csv for one split)."""
    columns = "split seed model t quantity mean se n difference difference_se"
    table = tables.frame(*tables.find("tables/mse.csv"), columns)
    table = table[table.split == split]
    if table.empty:
        raise NothingToDraw("This data set has no held-out images." if split == "heldout" else f"No {split} images.")
    trained = table[~table.model.isin(["optimum", "initial"])]
    over = f", {seed_list(trained.seed)}; bands: 95 % intervals over the images, without the spread between seeds"
    if trained.seed.nunique() > 1:
        over = f" and, of its logarithm, over {seed_list(trained.seed)}; bands: 95 % t-intervals over the seeds"
        over += fewer_seeds(trained, "model")
    return {"n": int(table.n.max()), "over": over}, table


@figure(
    "mse_epsilon", NOTEBOOK, "tables/mse.csv", lambda tables: (*load_errors(tables), "epsilon_mse"),
    title="Error of epsilon by timestep",
    caption=f"""Mean squared error of epsilon_hat by timestep (paper, figure 4), and its ratio to that of the first
    weighting. {_RATIO} {BANDS}""",
)  # fmt: skip
@figure(
    "mse_x0", NOTEBOOK, "tables/mse.csv", lambda tables: (*load_errors(tables), "x0_mse"),
    title="Error of x0 by timestep",
    caption=f"""Mean squared error of the one-step estimate x0_hat by timestep, not clipped (paper, figure 4), and its
    ratio to that of the first weighting. {_RATIO} {BANDS}""",
)  # fmt: skip
def draw_mse(table, quantity):
    """Error by timestep, and below it the ratio to the first weighting's error, paired.

    table: rows whose `difference` is from that weighting (constant, where it is there). With a single weighting the
    lower panel is left out.
    """
    rows = table[table.quantity == quantity]
    trained = rows[~rows.model.isin(["optimum", "initial"]) & rows.difference.notna()]
    largest = trained.groupby("model").difference.apply(lambda values: values.abs().max())
    base = [who for who in ordered(largest.index) if largest[who] == 0]
    compared = trained[~trained.model.isin(base)]
    if compared.empty or not base:
        drawn, axes = new_figure(height=3.8)
    else:
        drawn, axes = new_figure(2, 1, height=5.8, sharex=True, height_ratios=(3, 2))
        _ratio_panel(axes[1, 0], compared, base[0])
    _error_panel(axes[0, 0], rows, QUANTITIES[quantity])
    axes[0, 0].set_xlabel(TIMESTEP if len(axes) == 1 else "")
    legend_below(drawn, axes)
    return drawn


def _ratio_panel(ax, rows, base):
    baseline = rows["mean"] - rows.difference
    rows = rows.assign(ratio=rows["mean"] / baseline, ratio_se=rows.difference_se / baseline)
    found = summarise(rows, ["model", "t"], value="ratio", se="ratio_se", scale="log")
    ax.axhline(1, color=look(base).colour, linestyle=look(base).dashes, linewidth=1.4)
    for who in ordered(found.model):
        curve(ax, found[found.model == who], "t", who)
    log_axis(ax.yaxis)
    ax.set(xlabel=TIMESTEP, ylabel=f"MSE / MSE of {label(base)}\n(below 1: better)")


def _error_panel(ax, rows, ylabel):
    found = summarise(rows[rows["mean"] > 0], ["model", "t"], value="mean", scale="log")
    for who in ordered(found.model):
        curve(ax, found[found.model == who], "t", who)
    ax.margins(x=0.02)
    # At low t the optimum over a finite set is exact up to rounding, twelve decades below anything trained: the axis
    # ends where the networks do.
    trained = found[found.model != "optimum"]["mean"]
    if len(trained):
        ax.set_ylim(0.3 * trained.min(), 3 * found["mean"].max())
    log_axis(ax.yaxis)
    ax.set(xlabel=TIMESTEP, ylabel=ylabel)


@figure(
    "excess", NOTEBOOK, "tables/mse.csv", load_errors,
    title="Floor and excess of the error of x0",
    caption=f"""For x0 drawn from the training images, E|x0_hat - x0|^2 is the floor E Var(x0|x_t), which no network
    avoids (black), plus the excess E|x0_hat - E[x0|x_t]|^2, which training left: in all pixels, and in the mean colour.
    Per pixel, in [-1, 1]^2. {BANDS}""",
)  # fmt: skip
def draw_excess(table):
    """What training left over the floor that no network avoids, in pixels and in the mean colour."""
    kinds = {"excess": "All pixels", "colour_excess": "Mean colour"}
    kinds = {kind: title for kind, title in kinds.items() if (table.quantity == kind).any()}
    if not kinds:
        raise NothingToDraw("The table has no excess over the optimum: the optimum was not measured.")
    drawn, axes = new_figure(len(kinds), 1, height=0.8 + 2.5 * len(kinds), sharex=True)
    floor = table[(table.quantity == "floor") & (table["mean"] > 0)].groupby("t")["mean"].mean()
    for ax, (kind, title) in zip(axes.flat, kinds.items(), strict=True):
        _error_panel(ax, table[table.quantity == kind], r"$|\hat x_0 - E[x_0|x_t]|^2$")
        ax.set_title(title)
        ax.label_outer()
    if len(floor):
        bottom, top = axes[0, 0].get_ylim()
        axes[0, 0].plot(floor.index, floor, **look("optimum").line, label=FLOOR)
        axes[0, 0].set_ylim(bottom, max(top, 3 * floor.max()))
    legend_below(drawn, axes)
    return drawn


@figure(
    "mse_heldout", NOTEBOOK, "tables/mse.csv", lambda tables: (*load_errors(tables, "heldout"), _HELDOUT),
    title="Error on held-out images",
    caption=f"""Mean squared error by timestep on images that no network was trained on; the optimum is shown only where
    the law of the data is known. {BANDS}""",
)  # fmt: skip
def draw_errors(table, quantities):
    """A panel of error by timestep for each quantity, one below the other. table: the rows for one split."""
    drawn, axes = new_figure(len(quantities), 1, height=0.8 + 2.7 * len(quantities), sharex=True)
    for ax, quantity in zip(axes.flat, quantities, strict=True):
        _error_panel(ax, table[table.quantity == quantity], QUANTITIES[quantity])
        ax.label_outer()
    legend_below(drawn, axes)
    return drawn
