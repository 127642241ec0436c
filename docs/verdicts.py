"""The published experiments: all verdicts, ours beside what the paper says, and what was trained.

Ours are computed by `debiaslib.report.verdicts` from the tables of an experiment. What the paper says is from its
abstract, the captions of figures 1 to 5, its FID figure as we digitised it (results/reference/paper) and the public
reviews of its first version; its tables we have not seen, so none of their numbers stand here.

python docs/verdicts.py            # writes the tables into README.md and docs/{verdicts,retest,reviewers,weights}.md
"""

import functools
import itertools
import json
import math
import re
import sys
from pathlib import Path

import pandas as pd

from debiaslib.figures.style import ordered
from debiaslib.metrics.statistics import holm, paired_ratio
from debiaslib.paths import checkout
from debiaslib.report.here import control_ratios
from debiaslib.report.results_read import ResultTables, name_of
from debiaslib.report.retest import COLUMNS, FEW, QUESTIONS, T_STAR, UNTESTABLE, answer_to, compared, conclusions
from debiaslib.report.verdicts import interval_text

DOCS, PUBLISHED = Path(__file__).parent, checkout() / "results/reference"
MARKS = re.compile(r"(<!-- table (\w+): python docs/verdicts.py -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_OWN = "a check of ours, without a counterpart"
_FIGURE_5 = 'figure 5: P2 and Min-SNR "still suffer from bias and artifacts during the initial generation stage"'
SAYS = [  # the beginning of a claim: what the paper says
    ("The networks have learned", _OWN),
    ("Constant's estimate of x0 at large t", "figure 2: the amplified error at several t; no optimum seen beside it"),
    ("The weight mends it", "figure 3: debiased's one-step estimates of faces beside constant's; no number seen"),
    (
        "Samples by few steps have truer",
        "figure 1: constant green-brown and violet with few steps; no measure of colour seen",
    ),
    ("The weight is to blame", "says so; no optimum seen beside it"),
    ("Over a tenth of constant's excess", "calls it a colour shift and shows images; no measure of colour seen"),
    ("No network beats", _OWN),
    ("There is a gain at large t", "figure 4: curves of MSE by t; heights not seen"),
    ("The price at small t", "a public review reads figure 4: debiased is slightly worse near t = 0"),
    ("It is this weight, and not P2", _FIGURE_5),
    ("It is this weight, and not Min-SNR", _FIGURE_5),
    ("It is this weight", "no comparison with this weighting seen"),
    ("Smaller", "no comparison with this weighting seen"),
    ("Constant's excess is a bias", "calls it a bias; no repeated seeds seen"),
    ("Weight at the noisy end", "figure 5 draws the weights; an order of samples by them is not claimed"),
    ("The root is the right power", "takes the root as milder than 1/SNR; no comparison seen"),
    ("There is a gain in", "one learning rate for all; no such control seen"),
    ("The estimate at large t spoils", "says so, of the first steps of sampling; no such test seen"),
    ("The estimate at small t spoils", "not claimed"),
]
_SERIES = {"constant": "DDPM_constant", "P2": "P2", "Min-SNR": "Min-SNR"}


def paper_says(claim):
    """What the paper says to a claim, as a sentence; a claim that no line here knows is an error."""
    found = re.match(r"Smaller \S+ than (constant|P2|Min-SNR).* in (\d+) steps", claim)
    if found:
        return _fid_by_steps(found[1], int(found[2]))
    if claim.startswith("It trains faster"):
        return _fid_by_iterations()
    return next(says for beginning, says in SAYS if claim.startswith(beginning))


def _curves(panel):
    rows = pd.read_csv(PUBLISHED / "paper/fid-curves.csv").query(f"panel == '{panel}'")
    return rows.pivot(index="x", columns="series", values="fid10k")


def _fid_by_steps(other, steps):
    curves = _curves("b")
    at = min(curves.index, key=lambda x: abs(x / steps - 1) if x >= steps else float("inf"))
    ours, theirs = curves.loc[at, "Ours"], curves.loc[at, _SERIES[other]]
    return f"FID at {at} steps {ours:g} against {theirs:g}: {ours / theirs:.2f}"


def _fid_by_iterations():
    curves = _curves("a")
    constant, ours = (curves.loc[x, f"{name}_T1000"] for x, name in ((600, "DDPM_constant"), (200, "Ours")))
    return f"FID after 200,000 iterations {ours:g}, constant's after 600,000 {constant:g}"


def table(path):
    """The verdicts.csv of an experiment as a Markdown table, with the paper's column; its controls as another."""
    rows = pd.read_csv(path)
    rows.insert(2, "the paper", [paper_says(claim) for claim in rows.claim])
    rows = rows.rename(columns={"found here": "here"}).drop(columns="what would refute it")
    if not (path.parent / "controls.csv").exists():
        return markdown(rows)
    # The claims of chapter 7 differ in condition and outcome alone: a row a condition is read more easily.
    said = f"The other {(rows.chapter == 7).sum()} claims, of chapter 7, are of the lines that begin with 'baseline',"
    said += f" 'each at' and 'against'. Of the paper: {paper_says('There is a gain in')}."
    return f"{markdown(rows[rows.chapter != 7])}\n\n{said}\n\n{markdown(control_ratios(path.parents[1]).frame)}"


def markdown(rows):
    """A DataFrame as a Markdown table."""
    lines = [rows.columns.tolist(), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def counted(path):
    """ "24 claims: holds 4, refuted 1, ..." of a verdicts.csv."""
    counts = pd.read_csv(path).verdict.value_counts()
    return f"{counts.sum()} claims: {', '.join(f'{verdict} {n}' for verdict, n in counts.items())}."


def tables(*names):
    """A section for each published experiment that has verdicts, or for those of these names, repeated seeds first."""
    paths = [path for path in PUBLISHED.glob("*/tables/verdicts.csv") if not names or path.parts[-3] in names]
    paths = sorted(paths, key=lambda path: (not (path.parent / "retest.csv").exists(), path.parts[-3]))
    heads = {path: f"## {path.parts[-3]}\n\n{_of_config(path.parts[-3])}" for path in paths}
    return "\n\n".join(f"{head}\n\n{counted(path)}\n\n{table(path)}" for path, head in heads.items()) + "\n"


def retests():
    """A section for each published experiment of several seeds: the answers, and the comparisons behind them."""
    sections = []
    for path in sorted(PUBLISHED.glob("*/tables/retest.csv")):
        found = pd.read_csv(path)
        folder = f"../results/reference/{path.parts[-3]}"
        head = f"## {path.parts[-3]}\n\n{_of_config(path.parts[-3])} [Tables and figures]({folder}).\n\n"
        sections.append(head + markdown(conclusions(found)) + "\n\n" + markdown(_comparisons(found)))
    return "\n\n".join(sections or ["Nothing has been published yet."]) + "\n"


def _of_config(name):
    """The comment at the top of an experiment's file."""
    lines = (checkout() / "config" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))


def _comparisons(found):
    ratios = [interval_text(row) for row in found[["ratio", "low", "high"]].to_numpy()]
    numbers = {name: ["" if math.isnan(p) else f"{p:.2g}" for p in found[name]] for name in ("p", "p_holm")}
    kept = found[["question", "outcome", "against"]].assign(ratio=ratios, n=found.n, **numbers)
    return kept.assign(found=found.answer).rename(columns={"p_holm": "p, Holm"})


def finding():
    """Ratios of each weighting to constant, paired by seed, of the published experiments with repeated seeds."""
    return "\n\n".join(_ratios_to_constant(PUBLISHED / name) for name in REPEATED if (PUBLISHED / name).is_dir()) + "\n"


def _ratios_to_constant(folder):
    tables = ResultTables(folder)
    features, others = tables.feature_distance, [arm for arm in _arms(tables) if arm != "constant"]
    rows = []
    for what, metric in (("colour error of the samples", "layout_energy"), (f"`{features}`", features)):
        rows += [(f"{what}, {steps} steps", functools.partial(tables.distances, metric, steps)) for steps in (50, 10)]
    optimum = "excess of one estimate"
    rows += [(f"{optimum}, t = {t}", functools.partial(tables.errors, "excess", t)) for t in (900, 50)]
    texts = [[what, *(_paired_interval(of(arm), of("constant")) for arm in others)] for what, of in rows]
    seeds = len(tables.errors("excess", 900, "constant"))
    head = f"{REPEATED[folder.name]}, {seeds} training seeds: ratio to constant"
    return markdown(pd.DataFrame(texts, columns=[head, *(_short(tables.named(arm)) for arm in others)]))


def _paired_interval(ours, base):
    seeds = ours.index.intersection(base.index)
    return interval_text(paired_ratio(ours[seeds], base[seeds])) if len(seeds) else "not measured"


def swaps():
    """The colour error of every swap of the two weightings and the optimum, over that of constant alone: two tables."""
    found = {REPEATED[name]: _swap_ratios(PUBLISHED / name) for name in REPEATED if (PUBLISHED / name).is_dir()}
    found = pd.DataFrame(found).fillna("not measured").rename_axis(["T*", "above", "below"]).reset_index()
    at_600 = found[found["T*"].isin([-1, T_STAR])].drop(columns="T*")
    at_600 = at_600.rename(columns={"above": f"at t > {T_STAR}", "below": f"at t <= {T_STAR}"})
    faces = found[found["T*"] >= 0].assign(pair=found.above + " above, " + found.below + " below")
    faces = faces.pivot(index="pair", columns="T*", values=REPEATED["quick-seeds"]).rename_axis(columns=None)
    faces = faces.rename(columns=lambda t_star: f"T* = {t_star:.0f}").reset_index(names=REPEATED["quick-seeds"])
    return f"{markdown(at_600)}\n\n{markdown(faces)}\n"


def _swap_ratios(folder):
    """{(t_star, above, below): ratio as text} at the most sampling steps; t_star -1: one denoiser at all t."""
    found = ResultTables(folder)["oracle_swap.csv"].query("metric == 'layout_energy'")
    found = found[found.steps == found.steps.max()].set_index("seed").groupby(["t_star", "above", "below"]).value
    base = found.get_group((-1, "constant", "constant"))
    return {swap: _ratio_of_signed(ours, base) for swap, ours in found if swap != (-1, "constant", "constant")}


def _ratio_of_signed(ours, base):
    """As `_paired_interval`; of an unbiased distance that is not above 0 in every seed the ratio of the means alone."""
    seeds = ours.index.intersection(base.index)
    if (ours[seeds] > 0).all():
        return _paired_interval(ours, base)
    return f"{ours[seeds].mean() / base[seeds].mean():.2g}*"


def clipped():
    """Debiased / constant of the excess as it is and of x0_hat clipped to [-1, 1], by timestep."""
    rows = []
    for name, data in DATA.items():
        tables = ResultTables(PUBLISHED / name)
        for t in (50, 600, 900, 999) if (PUBLISHED / name).is_dir() else ():
            row = {"data": data, "t": t}
            for words, quantity in (("not clipped", "excess"), ("clipped", "clipped_excess")):
                ours, base = (tables.errors(quantity, t, arm) for arm in ("debiased", "constant"))
                row[f"{words}, constant"], row[f"{words}, ratio"] = f"{base.mean():.3g}", _paired_interval(ours, base)
            rows.append({**row, "n": len(base)})
    return markdown(pd.DataFrame(rows)) + "\n"


def rivals():
    """Debiased over each other arm, paired by seed: errors and distances of the experiments with repeated seeds."""
    rows = []
    for name in [name for name in REPEATED if (PUBLISHED / name).is_dir()]:
        tables = ResultTables(PUBLISHED / name)
        asked = {"excess, t = 900": functools.partial(tables.errors, "excess", 900)}
        asked["error of x0, t = 900"] = functools.partial(tables.errors, "x0_mse", 900)
        for metric, steps in itertools.product(("layout_energy", tables.feature_distance), (50, 10)):
            asked[f"{metric}, {steps} steps"] = functools.partial(tables.distances, metric, steps)
        others = [arm for arm in _arms(tables) if arm not in ("constant", "debiased")]
        for what, of in asked.items():
            row = {"data": REPEATED[name], "outcome": what}
            rows.append(row | {_short(name_of(other)): _paired_interval(of("debiased"), of(other)) for other in others})
    return markdown(pd.DataFrame(rows).fillna("not in this experiment")) + "\n"


def by_images():
    """Fréchet distance and colour error of each weighting over constant's, by seed, in the course of training."""
    rows = []
    for name in [name for name in REPEATED if (PUBLISHED / name).is_dir()]:
        tables = ResultTables(PUBLISHED / name)
        judged = tables.judged[tables.judged.sampler == tables.judged.sampler.iloc[0]]
        last = judged.images_seen.max()
        steps = judged[judged.images_seen < last].steps.max()  # those of the snapshots
        judged = judged[judged.steps == steps]
        others = [arm for arm in _arms(tables) if arm != "constant"]
        metrics, snapshots = (tables.feature_distance, "layout_energy"), sorted({*judged.images_seen})
        for metric, seen in itertools.product(metrics, snapshots):
            part = judged[(judged.metric == metric) & (judged.images_seen == seen)]
            arms = part.weighting + ("; " + part.variant).where(part.variant != "", "")
            values = {arm: of_arm.set_index("seed").value for arm, of_arm in part.groupby(arms)}
            row = {"data": REPEATED[name], "outcome": f"{metric}, {steps:.0f} steps"}
            row |= {"images seen": f"{seen:,.0f} of {last:,.0f}"}
            ratios = {_short(name_of(arm)): _paired_interval(values[arm], values["constant"]) for arm in others}
            rows.append(row | ratios)
    return markdown(pd.DataFrame(rows).fillna("not in this experiment")) + "\n"


def _arms(tables):
    varied = tables.final[tables.final.variant != ""]
    return [*ordered(tables.arms), *dict.fromkeys(varied.weighting + "; " + varied.variant)]


def _short(label):
    return label.replace(", prediction_type v_prediction", ", predicting v")


def by_steps():
    """Distances of the published CIFAR-10 networks by each number of sampling steps, over constant's."""
    more, main = (ResultTables(PUBLISHED / name) for name in ("cifar10-16-steps", "cifar10-16"))
    rows = []
    for metric in ("fd_cifar10", "layout_energy"):
        for steps in (5, 10, 50, 100, 250):
            tables = main if steps == 50 else more
            base = tables.distances(metric, steps, "constant").reindex(STEPS_SEEDS)
            ratios = {arm: _paired_interval(tables.distances(metric, steps, arm), base) for arm in _arms(more)}
            row = {"outcome": metric, "steps": steps, "constant": f"{base.mean():.3g}"}
            rows.append(row | {_short(name_of(arm)): ratio for arm, ratio in ratios.items() if arm != "constant"})
    return markdown(pd.DataFrame(rows)) + "\n"


def float16():
    """What rounding the CIFAR-10 networks to float16 changes in distances by 10 steps, by arm and seed."""
    rounded, exact = (ResultTables(PUBLISHED / name) for name in ("cifar10-16-steps", "cifar10-16"))
    rows = []
    for arm, seed in itertools.product(_arms(rounded), STEPS_SEEDS):
        row = {"arm": _short(name_of(arm)), "seed": seed}
        for metric in ("fd_cifar10", "layout_energy"):
            ours, base = (tables.distances(metric, 10, arm)[seed] for tables in (rounded, exact))
            row |= {f"{metric}, float32": f"{base:.4g}", f"{metric}, change": f"{100 * (ours / base - 1):+.2g} %"}
        rows.append(row)
    return markdown(pd.DataFrame(rows)) + "\n"


def v_weight():
    """The usual loss of v-prediction, weight 1 on the error of v, beside arms of cifar10-16, paired by seed."""
    new, main = (ResultTables(PUBLISHED / name) for name in ("cifar10-16-v", "cifar10-16"))
    ours, same_v = (new, "edm(sigma_data=1)"), (main, "constant; prediction_type=v_prediction")
    pairs = {"over constant": (ours, (main, "constant")), "over constant, predicting v": (ours, same_v)}
    pairs |= {"debiased over it": ((main, "debiased"), ours)}
    table = _by_outcome(pairs, "fd_cifar10", (50, 10))
    means = [getattr(new, of)(*where, ours[1]).mean() for of, *where in _outcomes("fd_cifar10", (50, 10)).values()]
    table.insert(1, "weight 1 on v", [f"{mean:.3g}" for mean in means])
    return markdown(table) + "\n"


def usual_losses():
    """Weight 1 on the error of v and of x0, beside other arms of controls (faces), paired by seed."""
    tables = ResultTables(PUBLISHED / "controls")
    names = ("constant", "debiased", "constant; prediction_type=v_prediction")
    names += ("edm(sigma_data=1); prediction_type=v_prediction", "inverse_snr; prediction_type=sample")
    constant, debiased, same_v, on_v, on_x0 = ((tables, name) for name in names)
    pairs = {"weight 1 on v, over constant": (on_v, constant), "over constant, predicting v": (on_v, same_v)}
    pairs |= {"debiased over it": (debiased, on_v), "weight 1 on x0, over constant": (on_x0, constant)}
    pairs |= {"debiased over that": (debiased, on_x0), "constant, predicting v, over constant": (same_v, constant)}
    return markdown(_by_outcome(pairs, "fd_minifaces", (20, 5))) + "\n"


def _by_outcome(pairs, metric, steps):
    """The ratio of each pair by outcome: a DataFrame of text. pairs: {column: two (`ResultTables`, arm)}."""
    rows = []
    for what, (of, *where) in _outcomes(metric, steps).items():
        values = {name: [getattr(tables, of)(*where, arm) for tables, arm in pair] for name, pair in pairs.items()}
        counts = [len(ours.index.intersection(base.index)) for ours, base in values.values()]
        ratios = {name: _paired_interval(*pair) for name, pair in values.items()}
        rows.append({"outcome": what, **ratios, "n": min(counts)})
    return pd.DataFrame(rows)


def _outcomes(metric, steps):
    """{outcome: the method of `ResultTables` that gives it by seed, and its arguments but the arm}."""
    found = {f"excess, t = {t}": ("errors", "excess", t) for t in (900, 50)}
    return found | {f"{m}, {n} steps": ("distances", m, n) for m in (metric, "layout_energy") for n in steps}


def own_rates():
    """Amendment 5: on the faces constant at 1e-3 and debiased at 2e-3, judged on seeds 3 to 5 of `controls`."""
    found, rows, seeds = ResultTables(PUBLISHED / "controls"), [], [3, 4, 5]
    arms = "debiased", "constant; lr=0.001"
    for metric, steps in (("layout_energy", 20), ("layout_energy", 5), ("fd_minifaces", 20)):
        ours, base = (found.distances(metric, steps, arm).reindex(seeds).dropna() for arm in arms)
        if len(ours) < 3 or len(base) < 3:
            return "Seeds 3 to 5 have not been published yet.\n"
        rows.append(compared("Q2", f"{metric}, {steps} steps", arms[1], ours, base))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = holm(table.p)
    table["answer"] = [answer_to(row) for row in table.itertuples()]
    gate = found["gate.csv"]
    if not gate[gate.arm.isin(arms) & gate.seed.isin(seeds)].passes.all():
        table["answer"] = UNTESTABLE
    return markdown(_comparisons(table).drop(columns=["question", "against"])) + "\n"


def answered():
    """The answers of `report.retest` to the pre-registered questions, a column for each experiment of `ANSWERED`."""
    columns = {}
    for name in [name for name in ANSWERED if (PUBLISHED / name / "tables/retest.csv").is_file()]:
        found = pd.read_csv(PUBLISHED / name / "tables/retest.csv")
        seeds = "" if name in REPEATED else f", {found.n.max()} seeds"
        answer = conclusions(found).set_index("question").answer
        columns[ANSWERED[name] + seeds] = answer + pd.Series({q: _numbers(q, found) for q in answer.index})
    asked = pd.Series(QUESTIONS, name="question")
    table = pd.concat([asked, *columns.values()], axis=1, keys=["question", *columns])
    return markdown(table.fillna("not measured")) + "\n"


def _numbers(question, found):
    """The ratios of a question, a line each: of Q3 those by few steps, of Q4 the optimum at large t."""
    rows = found[found.question == question]
    if question == "Q3":
        rows = rows[rows.outcome.str.endswith(f", {FEW} steps")]
    shown = []
    for row in rows.head(1 if question == "Q4" else len(rows)).itertuples():
        against = f", against {_short(name_of(row.against))}" if question == "Q3" else ""
        shown.append(f"{row.outcome}{against}: {interval_text((row.ratio, row.low, row.high))}, n = {row.n}")
    return "".join(f"<br>{one}" for one in shown)


def networks():
    """Debiased / constant with each published network of the small presets, everything else being equal."""
    rows, small = [], ResultTables(PUBLISHED / "controls").distances("layout_energy", 20, "constant")
    for words, rate, name, condition, variant in [row for row in NETWORKS if (PUBLISHED / row[2]).is_dir()]:
        found, arms = ResultTables(PUBLISHED / name), [arm + variant for arm in ("constant", "debiased")]
        ratios = found["controls.csv"].set_index(["condition", "outcome"]).loc[condition]
        gate = found["gate.csv"]
        gate = gate[gate.arm.isin(arms)].groupby(["arm", "seed"]).passes.all()
        record = json.loads((PUBLISHED / name / "records/constant-s0.json").read_text(encoding="utf-8"))
        row = {"network": f"[{words}, at {rate}](../results/reference/{name})"}
        row |= {"parameters": f"{record['parameters'] / 1e6:.2f} M", "pass the gate": f"{gate.sum()} of {len(gate)}"}
        constant, debiased = (found.distances("layout_energy", 20, arm) for arm in arms)
        row |= {"colour error, constant": f"{constant.mean():.3g}", "colour error, debiased": f"{debiased.mean():.3g}"}
        ratio = "1" if constant.equals(small) else _paired_interval(constant, small)
        row["constant's, ratio to the small U-Net at 2e-3"] = ratio
        for outcome in ("colour error, 20 steps", "fd_minifaces, 20 steps", "x0_mse, t = 900", "x0_mse, t = 50"):
            bounds = ["ratio", "low", "high"]  # a distance of 0 or less in any training has none
            row[f"{outcome}: ratio"] = interval_text(ratios.loc[outcome, bounds]) if outcome in ratios.index else "none"
        rows.append({**row, "n": ratios.n.max()})
    return markdown(pd.DataFrame(rows)) + "\n"


def trained():
    """One row for each published experiment: what its records say was trained."""
    rows = []
    for folder in sorted(path for path in PUBLISHED.glob("*/records") if path.is_dir()):
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        records = [record for record in records if "images_per_second" in record]
        rows.append(
            {
                "experiment": f"[{folder.parent.name}](../results/reference/{folder.parent.name})",
                "trainings": len(records),
                "seeds": ", ".join(sorted({record["name"].rpartition("-s")[2] for record in records}, key=int)),
                "images each": _range(record["images"] for record in records),
                "parameters": _range(record["parameters"] for record in records),
                "minutes each": _range(round(record["seconds"] / 60) for record in records),
                "device": "; ".join(sorted({f"{r['device']}, {r['machine']}, {r['threads']} thread" for r in records})),
                "commit": ", ".join(sorted({r["commit"][:7] + ("" if r["clean"] else " changed") for r in records})),
            }
        )
    return markdown(pd.DataFrame(rows)) + "\n"


def _range(values):
    low, *_, high = sorted({*values}) * 2
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def departures():
    """What `quick` was trained with beside the paper's settings for faces, from the published record."""
    folder = PUBLISHED / "quick/weights/constant-s0"
    config, record = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "record.json")
    )
    samples = pd.read_csv(PUBLISHED / "quick/tables/distances-constant-s0.csv").query("network == 'ema'")
    steps, last = sorted({*samples.steps}), samples[samples.images_seen == samples.images_seen.max()]
    here = {
        "data": f"{record['data']['images']:,} drawn faces, {config['resolution']}x{config['resolution']}",
        "network": f"U-Net, {record['parameters'] / 1e6:.2f} million, fixed variance, a multiple of the input added",
        "training": f"{config['images']:,} images, batches of {config['batch_size']}, rate {config['lr']:g}, "
        f"{config['lr_decay']} decay, EMA {config['ema_decay']:g}",
        "samples": f"{'/'.join(sorted({*samples.sampler})).upper()}, {steps[0]} to {steps[-1]} steps",
        "distance": f"`fd_minifaces`, `fd_pooled`, colours; {last.n.max():,} samples",
    }
    paper = {
        "data": "photographs of faces, 256x256",
        "network": "ADM U-Net, 93.6 million parameters (our count), learned variance",
        "training": "4 million images, batches of 8, rate 2e-5, no decay, EMA 0.9999",
        "samples": "DDPM respaced to 100 steps, as a rule",
        "distance": "FID; 10,000 or 50,000 samples",
    }
    return (
        markdown(pd.DataFrame({"": paper.keys(), "the paper, faces": paper.values(), "`quick`": here.values()})) + "\n"
    )


REPEATED = {"cifar10-16": "CIFAR-10 at 16x16", "quick-seeds": "drawn 16x16 faces"}
ANSWERED = {"cifar10-16": REPEATED["cifar10-16"], "cifar10-32": "at 32x32", **REPEATED}
DATA = {**ANSWERED, "cifar10-32": "CIFAR-10 at 32x32", "gaussian": "Gaussian images"}
NETWORKS = [  # words, learning rate, experiment, its condition, what its two arms change
    ("the small U-Net without the input skip", "2e-3", "network-no-skip", "baseline", ""),
    ("the small U-Net", "2e-3", "controls", "baseline", ""),
    ("the small U-Net", "1e-3", "controls", "lr 0.001", "; lr=0.001"),
    ("the U-Net of twice the width", "2e-3", "network-wider", "baseline", ""),
    ("a DiT with the input skip", "1e-3", "network-transformer", "baseline", ""),
]
STEPS_SEEDS = [0, 1]  # of the published networks of cifar10-16
PAGES = ("../README.md", "verdicts.md", "retest.md", "reviewers.md", "weights.md")
TABLES = {"finding": finding, "answered": answered, "verdicts": tables, "retests": retests, "trained": trained,
          "departures": departures, "networks": networks, "swaps": swaps, "rivals": rivals,
          "clipped": clipped, "by_images": by_images, "own_rates": own_rates,
          "by_steps": by_steps, "float16": float16, "v_weight": v_weight, "usual_losses": usual_losses}  # fmt: skip


def with_tables(text):
    """The text of a page of docs/ with its tables made anew."""
    return MARKS.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def main():
    """Write the tables into the pages."""
    for path in (DOCS / page for page in PAGES):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
