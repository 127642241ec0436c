"""Expected beside got: the tables of an experiment against those that we vouch for. Imports no torch.

    python -m debiaslib.study.compare --results results/quick         # against results/reference/quick

Rows are matched by what was measured, and values are means over training seeds. |got - expected| may be at most, of
those that apply, the largest of

    the 95 % prediction interval over seeds, t(n - 1) sd sqrt(1/n + 1/m), n >= 3 expected and m got
    without it, a relative tolerance by table, and for precision and recall an absolute one (`SHARES`)
    3 standard errors of the difference, where the metric has one
    1 % of the expected value: rounding differs between machines

Measured with another number of images, other features or weights, a row fails; rows that only the results have are not
judged. The result is tables/compare.csv, and the exit code 1 if a row fails or is missing.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ..cli import Parser, run_command
from ..errors import InputError
from ..files import atomic_path
from ..paths import checkout, user_path
from .saved_tables import Tables


@dataclass(frozen=True)
class Kind:
    """Tables of one layout: what names a row, the columns of metric and value, what is equal in both, a tolerance."""

    pattern: str
    keys: str
    metric: str
    value: str
    same: str = "n"
    relative: float = 0.1  # of the expected value, where there are no seeds to tell


KINDS = (
    Kind("mse.csv", "split model t", "quantity", "mean"),
    Kind("arm_errors.csv", "weighting variant network t", "quantity", "value"),
    Kind("distances-*.csv", "weighting variant network sampler steps images_seen features", "metric", "value",
         "n n_reference extractor weights_sha256 dtype", 0.25),
    Kind("weights.csv", "weighting t", "prediction_type", "raw", "", 1e-5),
)  # fmt: skip
SHARES = {"precision": 0.1, "recall": 0.1}  # of one seed, absolute: they lie between 0 and 1
COLUMNS = ["table", "row", "metric", "expected", "got", "difference", "tolerance", "rule", "result"]


def compare(results, expected):
    """One row for each expected value, a DataFrame with COLUMNS: worst first, result pass, fail or missing.

    results, expected: folders of an experiment. Raises InputError for tables that are missing or cannot be read.
    """
    pairs = [(kind, _read(expected, kind), _read(results, kind)) for kind in KINDS]
    found = [_compare(*pair) for pair in pairs if pair[1] is not None]
    if not found:
        raise InputError(f"{expected} holds no tables to compare with (tables/{', '.join(k.pattern for k in KINDS)})")
    table = pd.concat(found, ignore_index=True)
    # Missing rows, failed ones, passed ones; in each the largest difference beside its tolerance first.
    table["kind"] = table.result.map(["missing", "fail", "pass"].index)
    table["excess"] = table.difference.abs() / table.tolerance
    return table.sort_values(["kind", "excess"], ascending=[True, False], kind="stable", ignore_index=True)[COLUMNS]


def _read(folder, kind):
    """All tables of a kind, means over seeds, indexed by (table, row, metric); None where there are none."""
    tables, must = Tables(folder), f"{kind.keys} {kind.metric} {kind.value}"
    frames = [tables.read(path, must) for path in sorted((tables.folder / "tables").glob(kind.pattern))]
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    rows = _described(frame, kind.keys.split())
    same = _described(frame, [name for name in kind.same.split() if name in frame])
    se = frame.get("se", pd.Series(math.nan, frame.index))
    columns = {"table": kind.pattern, "row": rows, "metric": frame[kind.metric].map(_text), "value": frame[kind.value]}
    groups = pd.DataFrame({**columns, "se2": se**2, "same": same}).groupby(["table", "row", "metric"], sort=False)
    table = groups["value"].agg(value="mean", sd="std", seeds="size")
    table["se"] = np.sqrt(groups["se2"].sum(min_count=1)) / table.seeds
    table["same"] = groups["same"].agg(lambda values: "; ".join(dict.fromkeys(values)))
    return table


def _described(frame, columns):
    """`steps=5, features=pooled` for each row; an empty cell is left out."""
    values = zip(*(frame[name].map(_text) for name in columns), strict=True) if columns else [()] * len(frame)
    return [", ".join(f"{k}={v}" for k, v in zip(columns, row, strict=True) if v) for row in values]


def _text(value):
    """A key as text, the same for 5 and 5.0, which an empty cell in the column makes of it."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return str(value)


def _compare(kind, wanted, got):
    table = wanted.join((wanted.iloc[:0] if got is None else got).add_suffix("_got")).reset_index()
    size, n, m = table["value"].abs(), table.seeds, table.seeds_got.fillna(1)
    seeds = stdtrit((n - 1).clip(lower=1), 0.975) * table.sd * np.sqrt(1 / n + 1 / m)
    rules = pd.DataFrame({
        "interval over seeds": seeds.where(n >= 3),
        "stated tolerance": table.metric.map(SHARES).fillna(kind.relative * size).where(n < 3),
        "standard errors": 3 * np.sqrt(table.se**2 + table.se_got.fillna(table.se) ** 2),
        "rounding": 0.01 * size * (kind.relative > 0.01),
    }).fillna(0)  # fmt: skip
    table = table.assign(tolerance=rules.max(axis=1), rule=rules.idxmax(axis=1))
    table = table.assign(expected=table["value"], got=table.value_got, difference=table.value_got - table["value"])
    there, other = table.same_got.notna(), table.same_got.notna() & (table.same_got != table.same)
    # Not a number on both sides is the same; on one side alone it never is.
    close = (table.difference.abs() <= table.tolerance) | (table.got.isna() & table.expected.isna())
    table["result"] = np.where(~there, "missing", np.where(close & ~other, "pass", "fail"))
    table.loc[other, "rule"] = "measured otherwise: " + table.same_got[other] + "; expected " + table.same[other]
    return table


def main(arguments=None):
    """Set the tables of an experiment beside those expected; exit code 1 if a row fails or is missing."""
    parser = Parser(prog="python -m debiaslib.study.compare", description=main.__doc__)
    parser.add_argument("--results", required=True, help="folder of the experiment: results/quick")
    parser.add_argument("--expected", default="", help="folder to compare with; default: results/reference/<same name>")
    options = parser.parse_args(arguments)
    folder = user_path(options.results).absolute()
    expected = user_path(options.expected or checkout() / "results" / "reference" / folder.name).absolute()
    for path in (folder, expected):
        if not (path / "tables").is_dir():
            raise InputError(f"{path} holds no folder tables/; it must be the folder of an experiment's results")
    table = compare(folder, expected)
    with atomic_path(folder / "tables" / "compare.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")
    worst = table.drop(columns="table").head(20)
    print(pd.crosstab(table.table, table.result), worst.to_string(index=False, max_colwidth=100), sep="\n\n")
    passed = int((table.result == "pass").sum())
    print(f"\n{passed} of {len(table)} rows as expected in {folder}")
    return int(passed < len(table))


if __name__ == "__main__":
    run_command(main)
