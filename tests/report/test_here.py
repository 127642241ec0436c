"""What a chapter says of its own results: the numbers of the tables, whichever way they fall."""

import re

import nbformat
import pandas as pd
import pytest

from debiaslib.paths import checkout
from debiaslib.report import here
from debiaslib.report.verdicts import all_verdicts
from debiaslib.study import controls
from tests.report.test_verdicts import write_tables
from tests.study.test_controls import tables as controlled
from tests.synthetic_results import WEIGHTINGS, write_synthetic_results

VARIANT = "prediction_type=v_prediction"


@pytest.fixture(scope="module", params=[1, 6])
def folder(request, tmp_path_factory):
    """Results of so many seeds of five weightings."""
    seeds, folder = tuple(range(request.param)), tmp_path_factory.mktemp("here")
    return write_synthetic_results(folder, seeds, (*WEIGHTINGS, "inverse_snr"))


def everything_said(folder):
    """All sentences, tables and verdicts of a folder, as one text."""
    tables = [here.error_ratios(folder, "x0_mse", "excess", timesteps=[50, 900]), here.distance_ratios(folder)]
    tables += [here.distance_means(folder, "colour_w1"), here.distance_means(folder), all_verdicts(folder)]
    return "\n".join([here.errors(folder, "x0_mse", 50, 900), *(table.to_csv() for table in tables)])


def test_what_is_said_has_numbers_and_of_how_many_seeds(folder):
    one_seed = not (folder / "tables" / "distances-constant-s5.csv").exists()
    text = everything_said(folder)
    assert text.startswith("Here: x0_mse is at t = 50 constant 0.") and "optimum" in text and "nan" not in text
    assert ("One training seed." if one_seed else "Mean of 6 training seeds.") in text and "1/SNR" in text
    assert ("[" in text, "±" in text, "(one seed)" in text) == (not one_seed, not one_seed, one_seed)
    assert "other real images" in text


@pytest.mark.parametrize("folder", [6], indirect=True)
def test_other_ways_to_train_are_no_weightings(folder):
    """A variant, even one that saw more images, changes no sentence and no verdict about the weightings."""
    before = everything_said(folder)
    for path in sorted((folder / "tables").glob("distances-constant-s*.csv")):
        table = pd.read_csv(path)
        table = table.assign(variant=VARIANT, value=100 * table.value, images_seen=2 * table.images_seen)
        name = path.name.replace("constant", f"constant--{VARIANT.replace('=', '-')}")
        table.to_csv(path.with_name(name), index=False)
    assert everything_said(folder) == before


def test_a_control_is_named_as_a_reader_knows_it(tmp_path):
    row = {"condition": f"against constant with {VARIANT}", "arm": "debiased", "baseline": f"constant; {VARIANT}",
           "outcome": "colour error, 5 steps", "ratio": 0.5, "low": 0.4, "high": 0.6, "n": 6}  # fmt: skip
    (tmp_path / "tables").mkdir()
    no_claims = [{**row, "condition": "max_grad_norm 1"}, {**row, "outcome": "x0_mse, t = 50"}]
    base = {**row, "condition": "baseline", "baseline": "constant", "low": None, "high": None}
    rows = pd.DataFrame([row, *no_claims, base])
    rows.to_csv(tmp_path / "tables" / "controls.csv", index=False)
    frame = here.verdicts(7, tmp_path).frame
    assert frame.verdict.tolist() == ["holds", "one seed: yes"]
    assert frame["found here"][0] == "debiased / constant, prediction_type v_prediction: 0.5 [0.4, 0.6], 6 seeds"
    assert frame.claim[1] == "There is a gain in colour error, 5 steps."


def test_the_claims_of_the_controls_are_found_among_the_conditions_that_are_written(tmp_path):
    """By the words of `study.controls`: the comparison, the best rates, and debiased against another prediction."""
    (tmp_path / "tables").mkdir()
    controls.contrasts(controlled()).to_csv(tmp_path / "tables" / "controls.csv", index=False)
    judged = here.verdicts(7, tmp_path).frame.claim
    of = [claim.partition(": ")[2].rstrip(".") for claim in judged if "fd_pooled" in claim]
    others = [f"against {one} with prediction_type sample" for one in ("constant", "P2 (1, 1)")]
    assert of == ["", "each at its best learning rate", *others] and len(judged) == 4 * 7


def test_without_the_errors_distances_are_compared(tmp_path):
    """As where notebook 6 is run alone."""
    folder = write_tables(tmp_path, 0.5)
    (folder / "tables" / "mse.csv").unlink()
    assert here.distance_ratios(folder)["fd_pooled", "debiased"].tolist() == ["0.50 [0.50, 0.50]"] * 2


def test_controls_are_shown_in_the_order_of_their_table(tmp_path):
    frame = here.control_ratios(write_synthetic_results(tmp_path, seeds=(0, 1, 2))).frame
    assert frame.columns[:2].tolist() == ["condition", "colour error, 5 steps"] and frame.condition[0] == "baseline"
    assert frame.columns.name is None  # it would stand above an empty column
    assert "[" in frame["colour error, 5 steps"][0]


def test_one_network_has_nothing_to_be_compared_with(tmp_path):
    folder = write_synthetic_results(tmp_path, weightings=("constant",))
    said = {str(here.error_ratios(folder, "x0_mse")), str(here.distance_ratios(folder))}
    assert said == {"One network is shown, so there is nothing to compare it with."}


def test_ratios_are_those_of_the_tables(tmp_path):
    folder = write_tables(tmp_path, 0.5)
    errors = here.error_ratios(folder, "x0_mse", timesteps=[900])
    assert errors.index.tolist() == [900] and errors["x0_mse", "debiased"][900] == "0.50 [0.50, 0.50]"
    assert here.distance_ratios(folder)["fd_pooled", "debiased"].tolist() == ["0.50 [0.50, 0.50]"] * 2
    assert here.distance_means(folder, "fd_pooled")["debiased"][5] == "0.5016 ± 0.0037"
    assert here.errors(folder, "excess", 890).startswith("Here: excess is at t = 900 constant 1, debiased 0.502, P2")


def test_without_tables_a_sentence_says_so(tmp_path):
    assert {str(here.errors(tmp_path, "x0_mse", 900)), str(here.distance_means(tmp_path))} == {
        "Here: the tables of this experiment do not hold these numbers."
    }
    assert "judge none" in here.verdicts(1, tmp_path)


def swapped(folder, above, below, seeds=(0,)):
    """Write the table of a swap: constant's distance is 1, with the optimum above 600 `above`, below it `below`."""
    rows = [("constant", "constant", -1, 1.0), ("optimum", "constant", 600, above), ("constant", "optimum", 600, below)]
    table = pd.DataFrame(rows, columns=["above", "below", "t_star", "value"]).assign(metric="layout_energy", steps=20)
    of_seeds = [table.assign(seed=seed, value=table.value * (1 + seed / 10)) for seed in seeds]
    (folder / "tables").mkdir(exist_ok=True)
    pd.concat(of_seeds).to_csv(folder / "tables" / "oracle_swap.csv", index=False)
    return here.verdicts(3, folder).frame


def test_the_swap_blames_the_part_whose_replacement_mends(tmp_path):
    frame = swapped(tmp_path, 0.2, 1.1)
    assert frame.verdict.tolist() == ["one seed: yes", "one seed: no"] and "t > 600" in frame["found here"][0]


def test_the_swap_of_several_seeds_has_intervals(tmp_path):
    frame = swapped(tmp_path, 0.2, 1.5, seeds=range(6))
    assert frame.verdict.tolist() == ["holds", "refuted"] and frame["found here"].str.contains(", 6 seeds").all()
    frame = swapped(tmp_path, -0.01, 1.5, seeds=range(6))  # an unbiased distance may be 0 or less
    assert "difference [" in frame["found here"][0] and frame.verdict[0] == "holds"


def test_a_table_is_not_cut_and_text_is_escaped():
    long = "a < b " + "word " * 40
    text = here.Table(pd.DataFrame({"claim": [long]}))._repr_html_()
    assert long.replace("<", "&lt;").strip() in text and "..." not in text and "white-space: normal" in text


def test_one_verdict_is_a_sentence_of_its_row(folder):
    said, row = (
        here.verdict(1, folder, "The weight mends it"),
        all_verdicts(folder).query("claim == 'The weight mends it.'"),
    )
    assert said == f"Here: {row['found here'].item()}. *The weight mends it.* **{row.verdict.item()}**."
    assert here.verdict(1, folder, "No claim begins so").startswith("Here: the tables of this experiment do not")


def test_every_claim_that_a_chapter_asks_for_is_made(tmp_path):
    """A claim that is renamed would leave the sentence behind a figure without its numbers."""
    folder = write_synthetic_results(tmp_path, range(3))
    swapped(folder, 0.2, 1.1, seeds=range(3))
    for path in (folder / "tables").glob("distances-*-s*.csv"):
        path.write_text(path.read_text().replace("colour_w1", "colour_energy"))
    asked = set()
    for path in (checkout() / "notebooks").glob("*.ipynb"):
        source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        asked |= set(re.findall(r'here\.verdict\((\d), study\.folder, "(.*?)"\)', source))
    missing = {claim for chapter, claim in asked if "do not hold" in here.verdict(int(chapter), folder, claim)}
    assert len(asked) > 10 and not missing
