"""What a chapter says of its own results: the numbers of the tables, whichever way they fall."""

import pandas as pd
import pytest

from debiaslib.report import here
from debiaslib.report.verdicts import all_verdicts
from tests.report.test_verdicts import write_tables
from tests.synthetic_results import WEIGHTINGS, write_synthetic_results

SENTENCES = (
    here.one_call, here.colour_error, here.epsilon_plateau, here.x0_errors, here.excess, here.distances,
    here.few_steps, here.order,
)  # fmt: skip
VARIANT = "prediction_type=v_prediction"


@pytest.fixture(scope="module", params=[1, 6])
def folder(request, tmp_path_factory):
    """Results of so many seeds of five weightings."""
    seeds, folder = tuple(range(request.param)), tmp_path_factory.mktemp("here")
    return write_synthetic_results(folder, seeds, (*WEIGHTINGS, "inverse_snr"))


def everything_said(folder):
    """All sentences, tables and verdicts of a folder, as one text."""
    tables = [here.error_ratios(folder, "x0_mse", "excess", timesteps=[50, 900]), here.distance_ratios(folder)]
    tables += [here.distance_means(folder, "colour_w1", ["constant", "debiased"]), all_verdicts(folder)]
    return "\n".join([*(str(sentence(folder)) for sentence in SENTENCES), *(table.to_csv() for table in tables)])


def test_every_sentence_has_numbers_and_says_of_how_many_seeds(folder):
    one_seed = not (folder / "tables" / "distances-constant-s5.csv").exists()
    for sentence in SENTENCES:
        text = str(sentence(folder))
        assert text.startswith("Here") and "do not hold" not in text, text
        said = "one training seed" if one_seed else "mean of 6 training seeds"
        assert said in text.lower() or sentence is here.one_call, text
    text = everything_said(folder)
    assert "nan" not in text and "1/SNR" in text
    assert ("[" in text, ", 6 seeds" in text, "(one seed)" in text) == (not one_seed, not one_seed, one_seed)


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
           "outcome": "colour, 5 steps", "ratio": 0.5, "low": 0.4, "high": 0.6, "n": 6}  # fmt: skip
    (tmp_path / "tables").mkdir()
    rows = pd.DataFrame([row, {**row, "condition": "baseline", "baseline": "constant", "low": None, "high": None}])
    rows.to_csv(tmp_path / "tables" / "controls.csv", index=False)
    frame = here.verdicts(7, tmp_path).frame
    assert frame.verdict.tolist() == ["holds", "one seed: yes"]
    assert frame["found here"][0] == "debiased / constant, prediction_type v_prediction: 0.5 [0.4, 0.6], 6 seeds"
    assert frame.claim[1] == "There is a gain in colour, 5 steps."


def test_without_the_errors_distances_are_compared(tmp_path):
    """As where notebook 6 is run alone."""
    folder = write_tables(tmp_path, 0.5)
    (folder / "tables" / "mse.csv").unlink()
    assert here.distance_ratios(folder)["fd_pooled", "debiased"].tolist() == ["0.50 [0.50, 0.50]"] * 2
    assert "at 5 steps debiased, constant, P2 (1, 1);" in str(here.order(folder))


def test_controls_are_shown_in_the_order_of_their_table(tmp_path):
    frame = here.control_ratios(write_synthetic_results(tmp_path, seeds=(0, 1, 2))).frame
    assert frame.columns[:2].tolist() == ["condition", "colour, 5 steps"] and frame.condition[0] == "baseline"
    assert "[" in frame["colour, 5 steps"][0]


def test_one_network_has_nothing_to_be_compared_with(tmp_path):
    folder = write_synthetic_results(tmp_path, weightings=("constant",))
    said = {str(here.error_ratios(folder, "x0_mse")), str(here.distance_ratios(folder))}
    assert said == {"One network is shown, so there is nothing to compare it with."}


def test_ratios_are_those_of_the_tables(tmp_path):
    folder = write_tables(tmp_path, 0.5)
    errors = here.error_ratios(folder, "x0_mse", timesteps=[900])
    assert errors.index.tolist() == [900] and errors["x0_mse", "debiased"][900] == "0.50 [0.50, 0.50]"
    assert here.distance_ratios(folder)["fd_pooled", "debiased"].tolist() == ["0.50 [0.50, 0.50]"] * 2
    assert here.distance_means(folder, "fd_pooled", ["debiased"])["debiased"][5] == "0.50 [0.50, 0.51]"


def test_without_tables_a_sentence_says_so(tmp_path):
    assert {str(sentence(tmp_path)) for sentence in (*SENTENCES, here.swap)} == {
        "Here: the tables of this experiment do not hold these numbers."
    }
    assert "judge none" in here.verdicts(1, tmp_path)


TURNS = [
    (0.5, "is smaller than constant's at t = 50, 900 (0.50 times"),
    (2.0, "is larger at t = 50, 900 (2.00 times"),
    (1.0, "is equal;"),
]


@pytest.mark.parametrize(("factor", "said"), TURNS)
def test_the_sentence_turns_with_the_tables(tmp_path, factor, said):
    assert said in here.x0_errors(write_tables(tmp_path, factor))


def test_few_steps_beside_many(tmp_path):
    folder = write_tables(tmp_path, 0.5, seeds=(0,))
    path = folder / "tables" / "distances-debiased-s0.csv"
    table = pd.read_csv(path)
    table.loc[table.steps == 50, "value"] /= 2
    table.to_csv(path, index=False)
    assert "constant 0.50 and 0.25 (lower with many)" in here.few_steps(folder)


def swapped(folder, above, below, seeds=(0,)):
    """Write the table of a swap: constant's distance is 1, with the optimum above 600 `above`, below it `below`."""
    rows = [("constant", "constant", -1, 1.0), ("optimum", "constant", 600, above), ("constant", "optimum", 600, below)]
    table = pd.DataFrame(rows, columns=["above", "below", "t_star", "value"]).assign(metric="layout_energy", steps=20)
    of_seeds = [table.assign(seed=seed, value=table.value * (1 + seed / 10)) for seed in seeds]
    if len(seeds) > 1:
        of_seeds.append(table[:1].assign(seed="mean", value=0.1))  # of all seeds' networks together: no seed
    (folder / "tables").mkdir(exist_ok=True)
    pd.concat(of_seeds).to_csv(folder / "tables" / "oracle_swap.csv", index=False)
    return here.verdicts(3, folder).frame


def test_the_swap_blames_the_part_whose_replacement_mends(tmp_path):
    frame = swapped(tmp_path, 0.2, 1.1)
    assert frame.verdict.tolist() == ["one seed: yes", "one seed: no"] and "t > 600" in frame["found here"][0]
    said = str(here.swap(tmp_path))
    assert "is 1. With the exact optimum at t > 600 it is 0.2, with the optimum at t <= 600 it is 1.1;" in said


def test_the_swap_of_several_seeds_has_intervals(tmp_path):
    frame = swapped(tmp_path, 0.2, 1.5, seeds=range(6))
    assert frame.verdict.tolist() == ["holds", "refuted"] and frame["found here"].str.contains(", 6 seeds").all()
    said = str(here.swap(tmp_path))
    assert "samples is 1.25." in said and said.endswith("; mean of 6 training seeds.")
    frame = swapped(tmp_path, -0.01, 1.5, seeds=range(6))  # an unbiased distance may be 0 or less
    assert "difference [" in frame["found here"][0] and frame.verdict[0] == "holds"


def test_a_table_is_not_cut_and_text_is_escaped():
    long = "a < b " + "word " * 40
    text = here.Table(pd.DataFrame({"claim": [long]}))._repr_html_()
    assert long.replace("<", "&lt;").strip() in text and "..." not in text and "white-space: normal" in text
