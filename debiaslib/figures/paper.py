"""The paper's own FID figure, as digitised, with the ratios to constant beside ours (notebook 06). No torch."""

from ..study.saved_tables import PAPER_CURVES
from .distances import DISTANCES, METRICS, NOTEBOOK, TABLE, by_steps
from .lines import curves, summarise
from .registry import figure
from .style import legend_below, log_axis, look, new_figure, ticks_at

_SERIES = {"DDPM_constant": "constant", "P2": "p2", "Min-SNR": "min_snr", "Ours": "debiased"}
_OURS = ("fid", "fd_cifar10", "fd_minifaces", *DISTANCES)  # the first that was measured stands beside the paper's FID


def load_paper(tables):
    """(facts, fid-curves.csv with weighting and T, rows of one distance with its ratio to constant)."""
    table = tables.read(*tables.find(PAPER_CURVES), "panel series x fid10k uncertainty")
    name, _, T = table.series.str.partition("_T").T.to_numpy()
    table = table.assign(weighting=[_SERIES[one] for one in name], T=T, steps=table.x, value=table.fid10k)
    facts, ours, _ = by_steps(*DISTANCES)(tables)
    metric = next(name for name in _OURS if (ours.metric == name).any())
    ratios = _to_constant(ours[(ours.metric == metric) & (ours["value"] > 0)], ["seed", "steps"])
    said = f"(d) of this experiment: {METRICS[metric]}, {facts['n']} samples; {facts['spread']}."
    if ratios.empty:
        said = "this experiment has none to put beside it."
    return {"low": table.uncertainty.min(), "high": table.uncertainty.max(), "ours": said}, table, ratios


def _to_constant(rows, on):
    """The rows of other weightings with their ratio to constant's at equal `on`."""
    base = rows[rows.weighting == "constant"].set_index(on)["value"].rename("base")
    rows = rows[rows.weighting != "constant"].join(base, on=on).dropna(subset="base")
    return rows.assign(ratio=rows["value"] / rows.base, se=float("nan"))


@figure("The paper's FID, and its ratio to constant beside ours", NOTEBOOK, TABLE, load_paper)
def paper_fid(table, ratios):
    """Above: the paper's own FID-10k, digitised from its figure, not measured here: (a) by training iterations, (b) by
    sampling steps; debiased is its "Ours". The digitising is uncertain by {low:g} to {high:g}, mostly less than the
    markers; the paper shows no repeated seeds. The data set is not named there, FFHQ is probable. Below: ratio to
    constant at the same number of steps, (c) of the paper's (b); {ours}
    """
    drawn, axes = new_figure(2, 2, height=5.9, panels=3 if ratios.empty else 4)
    (training, steps), (paper, ours) = axes
    for ax, panel in ((training, "a"), (steps, "b")):
        for (who, T), rows in table[table.panel == panel].groupby(["weighting", "T"], sort=False):
            line = look(who).line
            if T == "100":
                line |= {"markerfacecolor": "white", "markeredgecolor": line["color"], "linewidth": 1.1}
            ax.plot(rows.x, rows.fid10k, **line)
        ax.set_ylim(bottom=0)
    by_steps = table[table.panel == "b"]
    panels = [(paper, _to_constant(by_steps, ["steps"]))]
    if len(ratios):
        panels.append((ours, ratios))
        ours.set_title("(d) ours / our constant")
        ours.sharey(paper)
    for ax, rows in panels:
        ax.axhline(1, **{**look("constant").line, "marker": ""}, label="constant")
        curves(ax, summarise(rows, ["weighting", "steps"], value="ratio", scale="log"), "steps")
        log_axis(ax.yaxis)
    for ax, rows in ((steps, by_steps), *panels):
        log_axis(ax.xaxis)
        ticks_at(ax.xaxis, rows.steps, limit=6)
        ax.set_xlabel("sampling steps")
    training.set(title="(a) 1,000 steps; hollow: 100", xlabel="iterations (thousands)", ylabel="FID-10k of the paper")
    steps.set_title("(b) after 500k iterations")
    paper.set(title="(c) paper / its constant", ylabel="ratio (below 1: better)")
    legend_below(drawn)
    return drawn
