"""The pages that say what was found: their tables are those of the published results, their numbers can be checked."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from debiaslib.report.retest import answers
from debiaslib.report.verdicts import all_verdicts
from debiaslib.study import controls
from debiaslib.study.saved_tables import read_rows
from docs import verdicts
from tests.synthetic_results import write_synthetic_results

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("page", verdicts.PAGES)
def test_the_tables_are_those_of_the_published_results(page):
    """`python docs/verdicts.py` writes them again."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert verdicts.with_tables(text) == text
    assert verdicts.MARKS.search(text)[3].count("\n|") > 1


def test_a_number_of_the_readme_is_checked_as_the_page_for_reviewers_says(monkeypatch, capsys):
    monkeypatch.chdir(DOCS.parent)
    [block] = re.findall(r"```python\n(.*?)```", (DOCS / "reviewers.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(re.sub(r"^ {3}", "", block, flags=re.MULTILINE), {})
    said = capsys.readouterr().out.strip()
    assert f"excess of one estimate, t = 900 | {said} |" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_no_published_experiment_is_left_out():
    published = {path.parts[-3] for path in verdicts.PUBLISHED.glob("*/tables/verdicts.csv")}
    text = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    assert published == set(re.findall(r"^## (\S+)$", text, re.MULTILINE))


def test_the_controls_have_a_row_for_each_condition(tmp_path):
    folder = write_synthetic_results(tmp_path / "controls", seeds=(0, 1, 2))
    path = folder / "tables/verdicts.csv"
    all_verdicts(folder).to_csv(path, index=False)
    claims, said, controls = verdicts.table(path).split("\n\n")
    assert "| 3 | There is a gain at large t. |" in claims and "| 7 |" not in claims
    assert "no such control seen" in said
    conditions = pd.read_csv(folder / "tables/controls.csv").condition.unique()
    assert [line.split(" | ")[0] for line in controls.splitlines()[2:]] == [f"| {one}" for one in conditions]


def test_an_arm_with_settings_of_its_own_has_a_column_over_the_seeds_that_it_has(tmp_path, monkeypatch):
    """Three seeds of constant and debiased, two of constant on v, whose errors stand in arm_errors.csv."""
    folder, on_v = tmp_path / "cifar10-16", "prediction_type=v_prediction"
    (folder / "tables").mkdir(parents=True)
    arms = [("constant", "", (0, 1, 2), 4.0), ("debiased", "", (0, 1, 2), 2.0), ("constant", on_v, (0, 1), 1.0)]
    errors, of_arms = [], []
    for weighting, variant, seeds, value in arms:
        for seed in seeds:
            one = {"weighting": weighting, "variant": variant, "seed": seed, "network": "ema"}
            judged = [
                {**one, "sampler": "ddim", "steps": steps, "images_seen": 9, "metric": metric, "value": value + seed}
                for steps in (10, 50) for metric in ("fd_cifar10", "layout_energy")
            ]  # fmt: skip
            name = f"distances-{weighting}{'--v' * bool(variant)}-s{seed}.csv"
            pd.DataFrame(judged).to_csv(folder / "tables" / name, index=False)
            for t in (50, 900):
                of_arms += [{**one, "t": t, "quantity": "excess", "value": value}]
                of_arms += [{**one, "t": t, "quantity": "excess", "value": 99, "network": "raw"}]
                row = {"model": weighting, "t": t, "quantity": "excess", "mean": value, "split": "train", "seed": seed}
                errors += [] if variant else [row]
    for name, rows in (("mse.csv", errors), ("arm_errors.csv", of_arms)):
        pd.DataFrame(rows).to_csv(folder / "tables" / name, index=False)
    monkeypatch.setattr(verdicts, "PUBLISHED", tmp_path)
    head, _, *lines = verdicts.finding().strip().splitlines()
    assert head.split(" | ")[1:] == ["debiased", "constant, predicting v (2 seeds) |"]
    assert "3 training seeds" in head and len(lines) == 6
    assert lines[-1].endswith("| 0.5 [0.5, 0.5] | 0.25 [0.25, 0.25] |")
    ratio = (1 / 4 * 2 / 5) ** 0.5  # of the samples, over the two seeds that both have
    assert lines[0].split(" | ")[-1].startswith(f"{ratio:.3g} [")


def test_what_float16_changes_is_that_of_the_two_published_tables():
    row = next(line for line in verdicts.float16().splitlines() if line.startswith("| debiased | 1 |")).split(" | ")
    values = []
    for name in ("cifar10-16", "cifar10-16-steps"):
        table = pd.read_csv(verdicts.PUBLISHED / name / "tables/distances-debiased-s1.csv")
        table = table[(table.metric == "fd_cifar10") & (table.steps == 10) & (table.network == "ema")]
        values.append(table[table.images_seen == 300_000].value.item())
    assert row[2] == f"{values[0]:.4g}" and float(row[3].split()[0]) == pytest.approx(
        100 * (values[1] / values[0] - 1), abs=1e-3
    )


def test_rates_of_their_own_are_read_as_the_outcomes_of_q2_are(tmp_path, monkeypatch):
    """Amendment 5: three outcomes on seeds 3 to 5, Holm over them; a distance of 0 or less; a training that failed."""
    folder, gate = tmp_path / "controls/tables", []
    folder.mkdir(parents=True)
    noise = {3: 0.98, 4: 1.0, 5: 1.03}
    for weighting, variant, factor in (("debiased", "", 0.5), ("constant", "lr=0.001", 1.0)):
        for seed in range(6):
            one = {"weighting": weighting, "variant": variant, "seed": seed, "network": "ema", "sampler": "ddim"}
            value = 99.0 if seed < 3 else factor * (noise[seed] if variant else 1)  # the first three seeds do not count
            rows = [{**one, "steps": 20, "images_seen": 9, "metric": "layout_energy", "value": value}]
            rows += [{**one, "steps": 5, "images_seen": 9, "metric": "layout_energy", "value": value - 0.5}]
            rows += [{**one, "steps": 20, "images_seen": 9, "metric": "fd_minifaces", "value": 10 + (value - 1) / 10}]
            pd.DataFrame(rows).to_csv(folder / f"distances-{weighting}--{variant}-s{seed}.csv", index=False)
            arm = f"{weighting}; {variant}" if variant else weighting
            gate.append({"arm": arm, "seed": seed, "t": 600, "passes": seed > 0})  # seed 0 is not judged
    pd.DataFrame(gate).to_csv(folder / "gate.csv", index=False)
    monkeypatch.setattr(verdicts, "PUBLISHED", tmp_path)
    _, _, colours, signed, features = [line.strip("| ").split(" | ") for line in verdicts.own_rates().splitlines()]
    assert colours[0] == "layout_energy, 20 steps" and colours[1].startswith("0.498 [") and colours[-1] == "lower"
    p = ttest_1samp(np.log([0.5 / value for value in noise.values()]), 0).pvalue  # the smallest of the three
    assert colours[2:5] == ["3", f"{p:.2g}", f"{3 * p:.2g}"]
    means = 0.5 - 0.5, np.mean([*noise.values()]) - 0.5  # debiased's is 0, so it is the difference that is tested
    p = ttest_1samp([0.5 - value for value in noise.values()], 0).pvalue
    assert signed[1] == f"{1 + (means[0] - means[1]) / means[1]:.3g}" and signed[3] == f"{p:.2g}"
    assert signed[-1] == "lower" and features[1].startswith("0.995 [") and features[-1] == "lower"
    pd.DataFrame([{**row, "passes": row["seed"] != 4} for row in gate]).to_csv(folder / "gate.csv", index=False)
    assert verdicts.own_rates().count("not testable with these networks") == 3


@pytest.mark.parametrize("name, make", [("retest.csv", answers), ("verdicts.csv", all_verdicts)])
def test_published_answers_made_again(name, make):
    paths = sorted(verdicts.PUBLISHED.glob(f"*/tables/{name}"))
    assert len(paths) > 5
    for path in paths:
        again = pd.read_csv(io.StringIO(make(path.parents[1]).to_csv(index=False)))
        pd.testing.assert_frame_equal(again, pd.read_csv(path), rtol=1e-9, obj=path.parts[-3])


def test_published_contrasts_made_again():
    paths, keys = sorted(verdicts.PUBLISHED.glob("*/tables/controls.csv")), ["condition", "outcome"]
    assert len(paths) > 3
    for path in paths:
        distances = pd.concat(read_rows(one) for one in sorted(path.parent.glob("distances-*-s*.csv")))
        again = controls.contrasts(controls.outcomes(distances, read_rows(path.parent / "arm_errors.csv")))
        found, published = (table.set_index(keys).sort_index() for table in (again, pd.read_csv(path)))
        pd.testing.assert_frame_equal(found, published, rtol=1e-4, check_dtype=False, obj=path.parts[-3])


def test_the_usual_losses_are_the_contrasts_of_the_controls():
    """The same ratios by another way; a ratio of geometric means over the same seeds is a quotient of two others."""
    rows = [line.strip("| ").split(" | ") for line in verdicts.usual_losses().strip().splitlines()]
    shown = pd.DataFrame(rows[2:], columns=rows[0]).set_index("outcome").map(lambda text: float(text.split()[0]))
    ratios = pd.read_csv(verdicts.PUBLISHED / "controls/tables/controls.csv").set_index(["condition", "outcome"]).ratio
    outcomes = {"layout_energy, 20 steps": "colour error, 20 steps", "layout_energy, 5 steps": "colour error, 5 steps"}
    for outcome, plain in {**outcomes, "fd_minifaces, 20 steps": "fd_minifaces, 20 steps"}.items():
        row, base = shown.loc[outcome], ratios["baseline", plain]
        on_v, on_x0, same_v = (
            ratios[f"against {arm}", plain]
            for arm in ("EDM-1 with prediction_type v_prediction", "1/SNR with prediction_type sample",
                        "constant with prediction_type v_prediction")
        )  # fmt: skip
        wanted = {"debiased over it": on_v, "weight 1 on v, over constant": base / on_v}
        wanted |= {"debiased over that": on_x0, "weight 1 on x0, over constant": base / on_x0}
        wanted |= {"over constant, predicting v": same_v / on_v, "constant, predicting v, over constant": base / same_v}
        assert row[list(wanted)].to_dict() == pytest.approx(wanted, rel=5e-3), outcome
