"""Expected beside got: which rows are matched, which tolerance holds, what is printed, written and returned."""

import math

import numpy as np
import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.study import compare as module
from debiaslib.study.compare import compare, main

SEEDS = (0, 1, 2, 3)


def mse(values, model="debiased", n=256):
    rows = [
        {"model": model, "t": t, "quantity": "x0_mse", "mean": value * (1 + t), "se": 1e-6, "n": n, "seed": seed}
        for seed, value in enumerate(values)
        for t in (0, 900)
    ]
    return pd.DataFrame(rows).assign(difference=0.0, difference_se=0.0, split="train")


def distances(weighting="debiased", seed=0, factor=1.0, **changes):
    shared = {"weighting": weighting, "variant": "", "network": "ema", "seed": seed, "sampler": "ddim", "steps": 20}
    facts = {
        "images_seen": 128000,
        "features": "pooled",
        "n": 500,
        "n_reference": 2048,
        "extractor": "RGB",
        "dtype": "float64",
        **changes,
    }
    values = {"fd_pooled": (0.4, None), "kid_pooled": (0.002, 0.001), "precision": (0.8, None), "recall": (0.1, None)}
    rows = [
        {**shared, "metric": metric, "value": value * factor, "se": se, **{"weights_sha256": None, **facts}}
        for metric, (value, se) in values.items()
    ]
    return pd.DataFrame(rows)


def write(folder, **tables):
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / "tables" / f"{name.replace('__', '-')}.csv", index=False)
    return folder


@pytest.fixture
def expected(tmp_path):
    return write(tmp_path / "reference", mse=mse([0.3]), distances__debiased=distances())


def results(tmp_path, **tables):
    return write(tmp_path / "results", **tables)


def error_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def row_of(table, metric, row=""):
    (found,) = table[(table.metric == metric) & table.row.str.contains(row)].itertuples()
    return found


def test_the_same_tables_pass(expected):
    table = compare(expected, expected)
    assert list(table.columns) == module.COLUMNS
    assert len(table) == 2 + 4
    assert set(table.result) == {"pass"}
    assert (table.difference == 0).all()


@pytest.mark.parametrize(
    ("metric", "factor", "result", "rule"),
    [
        ("fd_pooled", 1.24, "pass", "stated tolerance"),
        ("fd_pooled", 1.26, "fail", "stated tolerance"),
        ("fd_pooled", 0.74, "fail", "stated tolerance"),
        ("kid_pooled", 3.1, "pass", "standard errors"),  # 3 sqrt(2) x 0.001 = 0.00424 = 2.12 x 0.002
        ("kid_pooled", 3.2, "fail", "standard errors"),
        ("precision", 1.12, "pass", "stated tolerance"),
        ("precision", 1.13, "fail", "stated tolerance"),
        ("recall", 1.95, "pass", "stated tolerance"),  # 0.1 absolute
    ],
)
def test_tolerances_of_one_seed(tmp_path, expected, metric, factor, result, rule):
    got = results(tmp_path, distances__debiased=distances(factor=factor))
    row = row_of(compare(got, expected), metric)
    assert (row.result, row.rule) == (result, rule)
    assert row.got == pytest.approx(row.expected * factor)


def test_the_interval_over_seeds(tmp_path):
    values = np.array([0.30, 0.36, 0.33, 0.27])
    reference = write(tmp_path / "reference", mse=mse(values))
    # Student's t of 3 degrees of freedom, 97.5 %: 3.18244630528
    one = 3.18244630528 * values.std(ddof=1) * math.sqrt(1 / 4 + 1)
    row = row_of(compare(results(tmp_path, mse=mse([0.5])), reference), "x0_mse", "t=0$")
    assert (row.expected, row.got, row.rule) == (pytest.approx(values.mean()), 0.5, "interval over seeds")
    assert row.tolerance == pytest.approx(one, rel=1e-9)
    for sign in (-1, 1):
        near, far = (values.mean() + sign * one * factor for factor in (0.99, 1.01))
        assert row_of(compare(results(tmp_path, mse=mse([near])), reference), "x0_mse", "t=0$").result == "pass"
        assert row_of(compare(results(tmp_path, mse=mse([far])), reference), "x0_mse", "t=0$").result == "fail"
    row = row_of(compare(results(tmp_path, mse=mse([0.4, 0.5])), reference), "x0_mse", "t=0$")
    assert row.got == pytest.approx(0.45)
    assert row.tolerance == pytest.approx(one * math.sqrt((1 / 4 + 1 / 2) / (1 / 4 + 1)), rel=1e-9)


def test_seeds_that_agree_leave_room_for_rounding(tmp_path):
    reference = write(tmp_path / "reference", mse=mse([0.3] * 3))
    got = results(tmp_path, mse=mse([0.3 * 1.005]))
    assert {(row.result, row.rule) for row in compare(got, reference).itertuples()} == {("pass", "rounding")}
    assert set(compare(results(tmp_path, mse=mse([0.3 * 1.02])), reference).result) == {"fail"}


def test_two_seeds_give_no_interval_and_a_mean_of_two_has_a_smaller_error(tmp_path):
    """Student's t of one degree of freedom is 12.7: it would let nearly everything pass."""
    pair = [distances(seed=seed) for seed in (0, 1)]
    both = {f"distances__{seed}": table for seed, table in enumerate(pair)}
    reference = write(tmp_path / "reference", **both)
    got = {name: table.assign(value=table.value * 1.3) for name, table in both.items()}
    table = compare(results(tmp_path, **got), reference)
    row = row_of(table, "fd_pooled")
    assert (row.result, row.rule) == ("fail", "stated tolerance")
    # 3 standard errors of the difference of two means of two
    assert row_of(table, "kid_pooled").tolerance == pytest.approx(3 * 0.001 * math.sqrt(1 / 2 + 1 / 2))


def test_errors_of_arms_are_compared_and_other_weights_of_features_fail(tmp_path):
    arm = {"weighting": "debiased", "variant": "lr=0.004", "seed": 0, "network": "ema", "t": 900, "quantity": "x0_mse"}
    reference = write(tmp_path / "reference", arm_errors=pd.DataFrame([{**arm, "value": 0.3, "n": 256}]),
                      distances__debiased=distances(weights_sha256="one"))  # fmt: skip
    got = results(tmp_path, arm_errors=pd.DataFrame([{**arm, "value": 0.6, "n": 256}]),
                  distances__debiased=distances(weights_sha256="other"))  # fmt: skip
    table = compare(got, reference)
    assert row_of(table, "x0_mse").result == "fail" and row_of(table, "fd_pooled").result == "fail"


def test_missing_rows_and_tables_are_said(tmp_path, expected):
    table = compare(results(tmp_path, mse=mse([0.3])[:1]), expected)
    assert row_of(table, "x0_mse", "t=900").result == "missing"
    assert set(table[table.table == "distances-*.csv"].result) == {"missing"}
    assert (table.result == "missing").sum() == 5
    assert (table.result[:5] == "missing").all()


def test_rows_that_only_got_has_are_not_judged(tmp_path, expected):
    more = pd.concat([distances(), distances(sampler="ddpm", factor=9), distances(network="raw", factor=9)])
    got = results(tmp_path, mse=mse([0.3]), distances__debiased=more, distances__constant=distances("constant"))
    table = compare(got, expected)
    assert len(table) == 6
    assert set(table.result) == {"pass"}


def test_what_was_measured_otherwise_fails(tmp_path, expected):
    got = results(tmp_path, mse=mse([0.3]), distances__debiased=distances(n=1000))
    row = row_of(compare(got, expected), "fd_pooled")
    assert (row.result, row.difference) == ("fail", 0)
    assert "n=1000" in row.rule and "expected n=500" in row.rule


def test_not_a_number_is_no_success(tmp_path, expected):
    broken = distances()
    broken.loc[0, "value"] = math.nan
    got = results(tmp_path, mse=mse([0.3]), distances__debiased=broken)
    assert row_of(compare(got, expected), "fd_pooled").result == "fail"
    assert row_of(compare(expected, got), "fd_pooled").result == "fail"
    assert row_of(compare(got, got), "fd_pooled").result == "pass"


def test_weights_are_exact(tmp_path):
    table = pd.DataFrame({"t": [0, 1], "weighting": "debiased", "prediction_type": "epsilon", "raw": [0.01, 0.02]})
    reference = write(tmp_path / "reference", weights=table)
    assert set(compare(results(tmp_path, weights=table.assign(raw=[0.01, 0.02 * (1 + 9e-6)])), reference).result) == {
        "pass"
    }
    table = compare(results(tmp_path, weights=table.assign(raw=[0.01, 0.02 * (1 + 2e-5)])), reference)
    assert table.result.tolist() == ["fail", "pass"]
    assert "t=1" in table.row[0]


def test_command(tmp_path, expected, capsys):
    got = results(tmp_path, mse=mse([0.3]), distances__debiased=distances(factor=1.1))
    assert main(["--results", str(got), "--expected", str(expected)]) == 0
    said = capsys.readouterr().out
    assert "6 of 6 rows as expected" in said and ["mse.csv", "2"] in [line.split() for line in said.splitlines()]
    written = pd.read_csv(got / "tables" / "compare.csv")
    assert list(written.columns) == module.COLUMNS
    assert len(written) == 6
    assert main(["--results", str(got), "--expected", str(expected)]) == 0  # its own table is not compared
    results(tmp_path, distances__debiased=distances(factor=1.3))
    assert main(["--results", str(got), "--expected", str(expected)]) == 1


def test_what_there_is_nothing_to_compare_with(tmp_path, expected, monkeypatch):
    monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    other = write(tmp_path / "other", mse=mse([0.3]))
    text = error_of(main, ["--results", str(other)])
    assert str(tmp_path / "results" / "reference" / "other") in text
    assert "nowhere" in error_of(main, ["--results", str(tmp_path / "nowhere"), "--expected", str(expected)])
    (tmp_path / "empty" / "tables").mkdir(parents=True)
    assert "no tables to compare with" in error_of(compare, expected, tmp_path / "empty")
    write(tmp_path / "results" / "reference" / "other", mse=mse([0.3]))
    assert main(["--results", str(other)]) == 0
