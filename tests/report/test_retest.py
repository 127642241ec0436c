"""The pre-registered answers, against scipy's own paired test and hand-made tables."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from debiaslib.report.retest import answer_to, answers, conclusions

SEEDS = range(6)
JITTER = np.array([0.02, -0.03, 0.01, 0.0, -0.02, 0.03])
RIVALS = {"p2(k=1,gamma=1)": "", "min_snr(gamma=5)": "", "constant": "prediction_type=v_prediction"}


def write(folder, fd=(0.8, 0.6), colours=0.5, excess=(0.1, 2.0), rival=1.0, swap=0.3, passes=True, seeds=SEEDS):
    """Tables in which debiased has these ratios to constant: fd at 50 and 10 steps, excess at t = 900 and 50."""
    tables = folder / "tables"
    tables.mkdir(parents=True)
    noise = np.exp(JITTER[: len(seeds)])

    def runs(weighting, variant, factors):
        rows = []
        for seed in seeds:
            base = 10.0 + seed
            for steps, factor in zip((50, 10), factors, strict=True):
                for metric, value in (
                    ("fd_cifar10", factor),
                    ("layout_energy", colours if weighting == "debiased" else 1),
                ):
                    row = {
                        "weighting": weighting,
                        "variant": variant,
                        "seed": seed,
                        "network": "ema",
                        "sampler": "ddim",
                    }
                    value = base * value * (noise[seed] if weighting == "debiased" else 1)
                    rows.append({**row, "steps": steps, "images_seen": 1000, "metric": metric, "value": value})
            pd.DataFrame(rows).to_csv(tables / f"distances-{weighting[:3]}{len(variant)}-s{seed}.csv", index=False)
            rows.clear()

    runs("constant", "", (1, 1))
    runs("debiased", "", fd)
    for weighting, variant in RIVALS.items():
        runs(weighting, variant, (rival, rival))
    errors = [
        {"model": model, "t": t, "quantity": "excess", "mean": (1 + s) * (f * noise[s] if model == "debiased" else 1),
         "split": "train", "seed": s}
        for t, f in zip((900, 50), excess, strict=True) for model in ("constant", "debiased") for s in seeds
    ]  # fmt: skip
    pd.DataFrame(errors).to_csv(tables / "mse.csv", index=False)
    swaps = [("constant", "constant", -1, 1.0), ("optimum", "constant", 600, swap), ("constant", "optimum", 600, 0.9)]
    rows = [
        {"above": a, "below": b, "t_star": t, "seed": s, "steps": 50, "metric": "layout_energy",
         "value": (2 + s) * (v if v <= 0 else v * noise[s] if t > 0 else v)}
        for a, b, t, v in swaps for s in seeds
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "oracle_swap.csv", index=False)
    gate = pd.DataFrame([{"arm": arm, "seed": 0, "t": 600, "passes": passes} for arm in ("constant", "debiased")])
    gate.to_csv(tables / "gate.csv", index=False)
    return folder


def of(found, question):
    return conclusions(found).set_index("question").answer[question]


def test_ratio_interval_and_p_are_those_of_the_paired_t_test_of_logarithms(tmp_path):
    found = answers(write(tmp_path, fd=(0.8, 0.6)))
    row = found[(found.question == "Q2") & (found.outcome == "fd_cifar10, 50 steps")].iloc[0]
    base = np.log(10.0 + np.arange(6))
    test = ttest_rel(base + np.log(0.8) + JITTER, base)
    low, high = test.confidence_interval(0.95)
    wanted = np.exp([np.log(0.8) + JITTER.mean(), low, high])
    assert row[["ratio", "low", "high"]].tolist() == pytest.approx(wanted) and row.p == pytest.approx(test.pvalue)
    assert row.n == 6


def test_holms_correction_is_within_a_question(tmp_path):
    found = answers(write(tmp_path))
    for question, count in (("Q1", 2), ("Q2", 4), ("Q3", 6)):
        p = found[found.question == question]
        assert len(p) == count and p.p_holm.min() == pytest.approx(min(1, count * p.p.min()))
    assert found[found.question == "Q4"].p_holm.isna().all()


@pytest.mark.parametrize(("fd", "said"), [((0.8, 0.6), "in 50 steps: yes; in 10 steps: yes"),
                                          ((1.3, 0.7), "in 50 steps: no, it is worse; in 10 steps: yes")])  # fmt: skip
def test_better_samples(tmp_path, fd, said):
    assert of(answers(write(tmp_path, fd=fd)), "Q2") == said


def test_no_difference_needs_the_margin_and_not_decided_is_the_rest(tmp_path, monkeypatch):
    found = answers(write(tmp_path / "a", fd=(1.0, 1.0)))
    assert of(found, "Q2") == "in 50 steps: no difference; in 10 steps: no difference"
    monkeypatch.setattr("tests.report.test_retest.JITTER", 10 * JITTER)
    assert (
        of(answers(write(tmp_path / "b", fd=(1.0, 1.0))), "Q2") == "in 50 steps: not decided; in 10 steps: not decided"
    )


def test_a_rival_that_was_not_measured_is_not_beaten(tmp_path):
    folder = write(tmp_path, fd=(0.8, 0.6))
    for name in ("p2(", "min"):
        assert (folder / "tables" / f"distances-{name}0-s0.csv").exists()
        for path in (folder / "tables").glob(f"distances-{name}0-s*.csv"):
            path.unlink()
        assert of(answers(folder), "Q3") == "not answered: P2 or Min-SNR was not measured"


def test_this_weight_or_another(tmp_path):
    assert of(answers(write(tmp_path / "a", fd=(0.8, 0.6))), "Q3") == "this weight"
    assert of(answers(write(tmp_path / "b", fd=(0.8, 0.6), rival=0.5)), "Q3") == "not this weight in particular"


@pytest.mark.parametrize(
    ("left", "said"), [(0.3, "confirmed"), (-0.05, "confirmed"), (0.7, "partly"), (1.0, "refuted")]
)
def test_the_swap(tmp_path, left, said):
    found = answers(write(tmp_path, swap=left))
    assert of(found, "Q4") == said
    assert found[found.question == "Q4"].n.tolist() == [6, 6]  # the mean of the networks is no seed


def test_the_price_is_said_whatever_it_is(tmp_path):
    assert of(answers(write(tmp_path)), "Q1") == "yes; at t = 50 its excess is 2.00 times constant's"


def test_nothing_is_answered_where_a_network_fails_the_gate(tmp_path):
    found = conclusions(answers(write(tmp_path, passes=False)))
    assert set(found.answer) == {"not testable with these networks"} and len(found) == 4


def test_one_seed_answers_nothing(tmp_path):
    found = answers(write(tmp_path, seeds=range(1)))
    assert set(found.answer) == {"one seed"} and found.low.isna().all()


def test_what_was_not_measured_has_no_row(tmp_path):
    folder = write(tmp_path)
    (folder / "tables" / "oracle_swap.csv").unlink()
    (folder / "tables" / "mse.csv").unlink()
    assert set(answers(folder).question) == {"Q2", "Q3"}


@pytest.mark.parametrize(("ours", "said"), [((0.30, 0.34, 0.28), "higher"), ((-0.12, -0.11, -0.10), "lower")])
def test_a_distance_below_zero_keeps_its_order(tmp_path, ours, said):
    write(tmp_path, seeds=range(3))
    base = (-0.02, 0.01, -0.03)
    for arm, values in (("deb", ours), ("con", base)):
        for seed, value in enumerate(values):
            path = tmp_path / "tables" / f"distances-{arm}0-s{seed}.csv"
            table = pd.read_csv(path)
            table.loc[table.metric == "layout_energy", "value"] = value
            table.to_csv(path, index=False)
    found = answers(tmp_path)
    assert set(found.answer[found.outcome.str.startswith("layout_energy,") & (found.question == "Q2")]) == {said}


@pytest.mark.parametrize(
    "question, ratio, low, high, p, p_holm, said",
    [
        ("Q2", 0.85, 0.75, 0.97, 0.03, 0.12, "not decided"),  # by the corrected p
        ("Q2", 1.02, 0.95, 1.12, 0.6, 1.0, "not decided"),  # the margin is 0.9 to 1.11
        ("Q2", 0.98, 0.89, 1.08, 0.6, 1.0, "not decided"),
        ("Q2", 1.0, 0.905, 1.105, 0.9, 1.0, "no difference"),
        ("Q4", 0.45, 0.2, 1.05, 0.2, math.nan, "partly"),  # more than half goes, and the interval reaches 1
        ("Q4", 0.55, 0.4, 0.75, 1e-3, math.nan, "partly"),
        ("Q4", 0.95, 0.85, 1.06, 0.2, math.nan, "partly"),  # less than a tenth goes, and the interval says more
        ("Q4", -0.1, math.nan, math.nan, 0.2, math.nan, "partly"),
    ],
)
def test_the_registered_limits(question, ratio, low, high, p, p_holm, said):
    outcome = "layout_energy, 50 steps, with the optimum at t > 600"
    row = SimpleNamespace(question=question, outcome=outcome, ratio=ratio, low=low, high=high, n=6, p=p, p_holm=p_holm)
    assert answer_to(row) == said


@pytest.mark.parametrize("arm, untestable", [("constant", True), ("debiased", True), ("p2(k=1,gamma=1)", False)])
def test_one_training_of_constant_or_debiased_that_misses_the_gate_is_enough(tmp_path, arm, untestable):
    folder, arms = write(tmp_path), ("constant", "debiased", "p2(k=1,gamma=1)")
    gate = [{"arm": one, "seed": seed, "t": t, "passes": (one, seed, t) != (arm, 1, 900)}
            for one in arms for seed in (0, 1) for t in (600, 900)]  # fmt: skip
    pd.DataFrame(gate).to_csv(folder / "tables" / "gate.csv", index=False)
    assert (set(answers(folder).answer) == {"not testable with these networks"}) == untestable


def test_the_third_question_is_of_ten_steps(tmp_path):
    assert of(answers(write(tmp_path / "a", fd=(1.3, 0.6))), "Q3") == "this weight"
    assert of(answers(write(tmp_path / "b", fd=(0.6, 1.3))), "Q3") == "not this weight in particular"


def test_another_t_star_is_not_the_registered_one(tmp_path):
    path = write(tmp_path) / "tables" / "oracle_swap.csv"
    table = pd.read_csv(path)
    table.assign(t_star=table.t_star.replace(600, 500)).to_csv(path, index=False)
    assert "Q4" not in set(answers(tmp_path).question)


def test_rows_by_fewer_steps_another_sampler_and_another_t_star_do_not_count(tmp_path):
    wanted = answers(write(tmp_path))
    tables = tmp_path / "tables"
    swaps = pd.read_csv(tables / "oracle_swap.csv")
    more = swaps[swaps.t_star > 0].assign(t_star=300, value=99.0)
    pd.concat([swaps.assign(steps=10, value=99.0), more, swaps]).to_csv(tables / "oracle_swap.csv", index=False)
    for path in tables.glob("distances-*.csv"):
        table = pd.read_csv(path)
        pd.concat([table, table.assign(sampler="ddpm", value=99.0)]).to_csv(path, index=False)
    pd.testing.assert_frame_equal(answers(tmp_path), wanted)
