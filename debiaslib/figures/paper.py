"""The paper's own FID figure, as digitised, with the ratios to constant beside ours (notebook 06). No torch."""

from ..errors import InputError
from ..study.saved_tables import PAPER_CURVES
from .distances import DISTANCES, METRICS, NOTEBOOK, load_by_steps
from .lines import curve, summarise
from .registry import NothingToDraw, figure
from .style import legend_below, log_axis, look, new_figure, ordered, ticks_at

_SERIES = {"DDPM_constant": "constant", "P2": "p2", "Min-SNR": "min_snr", "Ours": "debiased"}
_OURS = ("fid", "fd_cifar10", "fd_minifaces", *DISTANCES)  # the first that was measured stands beside the paper's FID


def load_paper(tables):
    table = tables.frame(*tables.find(PAPER_CURVES), "panel series x fid10k uncertainty")
    name, _, T = table.series.str.partition("_T").T.to_numpy()
    ratios, ours = load_our_ratios(tables)
    facts = {"low": table.uncertainty.min(), "high": table.uncertainty.max(), "ours": ours}
    return facts, table.assign(weighting=[_SERIES[one] for one in name], T=T), ratios


def load_our_ratios(tables):
    """(rows of one distance with its ratio to constant, paired by seed and steps; or None; and what they are)."""
    try:
        facts, table, _ = load_by_steps(tables, DISTANCES)
    except (InputError, NothingToDraw):
        return None, "this experiment has none to put beside it."
    metric = next(name for name in _OURS if (table.metric == name).any())
    rows = table[(table.metric == metric) & (table["value"] > 0)]
    base = rows[rows.weighting == "constant"].set_index(["seed", "steps"])["value"]
    rows = rows[rows.weighting != "constant"].join(base.rename("base"), on=["seed", "steps"]).dropna(subset="base")
    if rows.empty:
        return None, "this experiment has none to put beside it."
    ours = f"(d) of this experiment: {METRICS[metric]}, {facts['n']} samples; {facts['spread']}."
    return rows.assign(ratio=rows["value"] / rows["base"], se=float("nan")), ours


@figure(
    "paper_fid", NOTEBOOK, PAPER_CURVES, load_paper,
    title="The paper's FID, and its ratio to constant beside ours",
    caption="""Above: the paper's own FID-10k, digitised from its figure, not measured here: (a) by training iterations,
    (b) by sampling steps; debiased is its "Ours". The digitising is uncertain by {low:g} to {high:g}, mostly less than
    the markers; the paper shows no repeated seeds. The data set is not named there, FFHQ is probable. Below: ratio to
    constant at the same number of steps, (c) of the paper's (b);
    {ours}""",
)  # fmt: skip
def draw_paper(table, ratios=None):
    """table: fid-curves.csv with columns weighting and T; ratios: columns weighting, steps, ratio, or None."""
    drawn, axes = new_figure(2, 2, height=5.9, panels=3 if ratios is None else 4)
    (training, steps), (paper, ours) = axes
    for ax, panel in ((training, "a"), (steps, "b")):
        for (who, T), rows in table[table.panel == panel].groupby(["weighting", "T"], sort=False):
            line = look(who).line
            if T == "100":
                line |= {"markerfacecolor": "white", "markeredgecolor": line["color"], "linewidth": 1.1}
            ax.plot(rows.x, rows.fid10k, **line)
        ax.set_ylim(bottom=0)
    by_steps = table[table.panel == "b"]
    base = by_steps[by_steps.weighting == "constant"].set_index("x").fid10k
    rows = by_steps[by_steps.weighting != "constant"]
    panels = [(paper, rows.assign(steps=rows.x, ratio=rows.fid10k / rows.x.map(base)))]
    if ratios is not None:
        panels.append((ours, ratios))
        ours.set_title("(d) ours / our constant")
        ours.sharey(paper)
    for ax, rows in panels:
        _ratios(ax, rows)
    for ax, _ in panels:
        log_axis(ax.yaxis)
    training.set(title="(a) T = 1000; hollow: T = 100", xlabel="iterations (thousands)", ylabel="FID-10k of the paper")
    steps.set(title="(b) after 500k iterations", xlabel="sampling steps")
    paper.set(title="(c) paper / its constant", ylabel="ratio (below 1: better)")
    log_axis(steps.xaxis)
    ticks_at(steps.xaxis, by_steps.x, limit=6)
    legend_below(drawn, [paper, ours])
    return drawn


def _ratios(ax, rows):
    ax.axhline(1, **{**look("constant").line, "marker": ""}, label="constant")
    found = summarise(rows, ["weighting", "steps"], value="ratio", se="uncertain", scale="log")
    for who in ordered(found.weighting):
        curve(ax, found[found.weighting == who], "steps", who)
    ax.set_xlabel("sampling steps")
    log_axis(ax.xaxis)
    ticks_at(ax.xaxis, rows.steps, limit=6)
