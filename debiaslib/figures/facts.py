"""Words for captions, and which weightings a figure of a few shows. Imports no torch."""

from .style import label, ordered


def preferred(names, wanted=("constant", "debiased")):
    """Those weightings that are wanted (by name, whatever their arguments), or else the first two; in order."""
    names = ordered(names)
    return [name for name in names if name.partition("(")[0] in wanted] or names[:2]


def listed(names):
    """ "constant, debiased, P2" """
    return ", ".join(label(name) for name in ordered(names))


def seed_list(seeds):
    """ "seed 0", "seeds 0, 1, 2", "no seed" """
    seeds = sorted({int(seed) for seed in seeds})
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"


def number_range(counts):
    """ "500", "500 to 1,000", "?" of a column of counts."""
    counts = counts.dropna()
    if counts.empty:
        return "?"
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def fewer_seeds(table, column):
    """Which weightings have fewer training seeds than others; empty where all have as many."""
    counts = table.groupby(column).seed.nunique()
    few = [f"{label(who)} ({counts[who]})" for who in ordered(counts.index) if counts[who] < counts.max()]
    return f", but for those with fewer seeds: {', '.join(few)}" if few else ""
