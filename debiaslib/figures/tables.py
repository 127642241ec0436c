"""From saved tables to the arguments of the figures, and to the facts that their captions state. Imports no torch.

Each loader takes `Tables` and returns (arguments of the plotting function, facts for the caption).
"""

import pandas as pd

from ..errors import InputError
from ..metrics.statistics import check_equal_n
from ..study.saved_tables import PAPER_CURVES, parse_run
from ..training.run import Run
from . import bias as bias_plots
from . import colour as colour_plots
from . import distances as distance_plots
from .style import label, ordered


def weights(tables):
    table = tables.frame(*tables.find("tables/weights.csv"), "t snr weighting prediction_type raw normalized share")
    return {"table": table}, {"T": int(table.t.max()) + 1, "weightings": _listed(table.weighting)}


def snr(tables):
    arguments, facts = weights(tables)
    return {"table": arguments["table"].drop_duplicates("t").sort_values("t").reset_index(drop=True)}, facts


def gradient_noise(tables):
    columns = "weighting way images_seen batches batch_size variance variance_se noise_to_signal"
    table = tables.frame(*tables.find("tables/gradient_noise.csv"), columns)
    hidden = [who for who in table.weighting.unique() if not (table[table.weighting == who].noise_to_signal > 0).any()]
    left_out = f" Left out, its expected gradient being hidden by noise: {_listed(hidden)}." if hidden else ""
    counts = {name: _range(table[name]) for name in ("batches", "batch_size", "images_seen")}
    return {"table": table}, {**counts, "left_out": left_out}


def _one_step(tables):
    return tables.arrays(*tables.find("tables/one_step.npz"), "t names x0 x_t x0_hat amplified_error")


def anatomy(tables):
    arrays = _one_step(tables)
    shown = _preferred([str(name) for name in arrays["names"] if name != "optimum"])
    identity = f" It holds to {arrays['residual'].max():.1g} in every pixel." if "residual" in arrays else ""
    return {"arrays": arrays, "weightings": shown}, {"weightings": _listed(shown), "identity": identity}


def estimates(tables):
    arrays = _one_step(tables)
    shown = [*_preferred([str(name) for name in arrays["names"] if name != "optimum"]), "optimum"]
    shown = [who for who in shown if who in arrays["names"]]
    return {"arrays": arrays, "weightings": shown}, {"weightings": _listed(shown)}


def errors(tables, split="train"):
    table = tables.frame(
        *tables.find("tables/mse.csv"), "split seed model t quantity mean se n difference difference_se"
    )
    table = table[table.split == split]
    trained = table[~table.model.isin(["optimum", "initial"])]
    seeds, n = trained.seed.nunique(), int(table.n.max()) if len(table) else 0
    if table.empty:
        over = f": the data set has no {split} images"
    elif seeds > 1:
        over = f" and, of its logarithm, over {_seeds(trained.seed)}; bands: 95 % t-intervals over the seeds"
        over += _fewer(trained, "model")
    else:
        over = f", {_seeds(trained.seed)}; bands: 95 % intervals over the images, without the spread between seeds"
    return {"table": table}, {"n": n, "over": over}


def heldout(tables):
    return errors(tables, "heldout")


def bias(tables):
    """The rows of training images, whose optimum is known in every experiment, for two weightings."""
    columns = "quantity split model seed t channel frequency weight value se n"
    table = tables.frame(*tables.find("tables/bias.csv"), columns)
    table = table[table.split == "train"]
    shown = _preferred([who for who in table.model.unique() if who != "optimum" and ";" not in who])
    seeds = table.seed.dropna()
    spread = f"mean over {_seeds(seeds)}; bands: 95 % t-intervals over them"
    one = f"{_seeds(seeds)}; bands: 95 % intervals over the images, without the spread between seeds"
    facts = {"weightings": _listed(shown), "n": _range(table.n), "seeds": _seeds(seeds)}
    facts["spread"] = spread if seeds.nunique() > 1 else one
    return {"table": table, "weightings": shown}, facts


def bias_spectrum(tables):
    arguments, facts = bias(tables)
    return arguments, {**facts, "times": ", ".join(map(str, bias_plots.shown_timesteps(arguments["table"].t)))}


def samples(tables, only_two=False):
    paths = {parse_run(path.stem.removeprefix("samples-")): path for path in tables.find("tables/samples-*.npz")}
    first = {}
    for weighting, seed in sorted(paths, key=lambda key: key[1]):
        first.setdefault(weighting, (seed, paths[weighting, seed]))
    shown = _preferred(first) if only_two else ordered(first)
    loaded = {who: tables.arrays(first[who][1], "steps images") for who in shown}
    return {"samples": loaded}, {"weightings": _listed(shown), "seeds": _seeds(first[who][0] for who in shown)}


def two_samples(tables):
    return samples(tables, only_two=True)


def training_log(tables):
    logs = {path.parent.name: path for path in tables.find("runs/*/log.jsonl")}
    name = tables.chosen_run(logs)
    rows = pd.DataFrame(Run(logs[name].parent).log())
    if not len(rows) or not {"images", "loss"} <= set(rows):
        raise InputError(f"{logs[name]} holds no row with images and loss yet")
    tables.use(logs[name])
    return {"log": rows, "weighting": parse_run(name)[0]}, {"run": name, "weighting": label(parse_run(name)[0])}


def training_snapshots(tables):
    paths = {path.stem.removeprefix("training-"): path for path in tables.find("tables/training-*.npz")}
    name = tables.chosen_run(paths)
    arrays = tables.arrays(paths[name], "images_seen seeds images")
    return {"arrays": arrays, "weighting": parse_run(name)[0]}, {"run": name, "weighting": label(parse_run(name)[0])}


def _distances(tables):
    paths = tables.find("tables/distances-*.csv")
    columns = "weighting seed sampler steps images_seen metric value se features n n_reference"
    frames = {path.stem: tables.frame(path, columns) for path in paths}
    real = frames.pop("distances-real", None)
    if not frames:
        raise InputError(
            f"tables/distances-<run>.csv is missing in {tables.folder}; notebook 06_fid_evaluation makes it"
        )
    table = pd.concat(list(frames.values()), ignore_index=True)
    for column in ("value", "se"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    if "network" in table:
        table = table[table.network == "ema"].copy()
    check_equal_n(table)
    table["images_seen"] = table.images_seen.fillna(table.images_seen.max()).fillna(0)
    return table[table["value"].notna()], real


def _distance_facts(table, real):
    seeds = table.seed.nunique()
    many = f"mean over {seeds} training seeds; bands: 95 % t-intervals over them{_fewer(table, 'weighting')}"
    one = "one training seed; bands, where drawn: 95 % from the metric's own standard error, not between seeds"
    with_real = (
        " Grey: other real images in the place of samples, n as in their table, what a perfect sampler would get."
    )
    return {
        "spread": many if seeds > 1 else one,
        "n": _range(table.n),
        "n_reference": _range(table.n_reference),
        "samplers": ", ".join(sorted(table.sampler.dropna().astype(str).unique())),
        "real": with_real if real is not None else " No real images were measured for comparison.",
    }


def by_steps(tables, metrics=tuple(distance_plots.METRICS)):
    """Rows of the fully trained networks, of the experiment's first sampler alone."""
    table, real = _distances(tables)
    last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
    table = table[(table.images_seen == last) & (table.sampler == _first_sampler(table))]
    return {"table": table, "real": real}, _distance_facts(table[table.metric.isin(metrics)], real)


def _first_sampler(table):
    """The one that the snapshots were sampled by too, or else the first in the table."""
    return table.sampler[table.images_seen.idxmin()]


def colour_by_steps(tables):
    return by_steps(tables, colour_plots.DISTANCES)


def colour_spread(tables):
    return by_steps(
        tables, [f"{what}_{channel}" for what in ("mean", "spread") for channel in ("red", "green", "blue")]
    )


def by_images(tables):
    """Rows of those numbers of steps at which the networks were measured during training."""
    table, real = _distances(tables)
    snapshots = table.groupby("steps").images_seen.transform("nunique")
    table = table[snapshots > 1] if (snapshots > 1).any() else table.iloc[:0]
    return {"table": table, "real": real}, _distance_facts(table[table.metric.isin(distance_plots.METRICS)], real)


def learning_rates(tables):
    table = tables.frame(*tables.find("tables/learning_rates.csv"), "weighting lr outcome mean low high n")
    return {"table": table}, {"n": _range(table.n)}


def controls(tables):
    table = tables.frame(*tables.find("tables/controls.csv"), "condition outcome ratio low high n")
    return {"table": table}, {"n": _range(table.n)}


def paper(tables):
    table = tables.frame(*tables.find(PAPER_CURVES), "panel series x fid10k uncertainty")
    return {"table": table}, {"low": table.uncertainty.min(), "high": table.uncertainty.max()}


def _preferred(names):
    """Constant and debiased, or whichever is there, or the first two weightings."""
    names = ordered(names)
    return [name for name in names if name in ("constant", "debiased")] or names[:2]


def _fewer(table, column):
    """Which weightings have fewer training seeds than others; empty where all have as many."""
    counts = table.groupby(column).seed.nunique()
    few = [f"{label(who)} ({counts[who]})" for who in ordered(counts.index) if counts[who] < counts.max()]
    return f", but for those with fewer seeds: {', '.join(few)}" if few else ""


def _listed(names):
    return ", ".join(label(name) for name in ordered(names))


def _seeds(seeds):
    seeds = sorted({int(seed) for seed in seeds})
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"


def _range(counts):
    counts = counts.dropna()
    if counts.empty:
        return "?"
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
