"""What a chapter says of its own results: the numbers of the tables, whichever way they fall."""

import pandas as pd
import pytest

from debiaslib.report import here
from tests.report.test_verdicts import write_tables
from tests.synthetic_results import write_synthetic_results

SENTENCES = (
    here.one_call, here.colour_error, here.epsilon_plateau, here.x0_errors, here.excess, here.distances,
    here.few_steps,
)  # fmt: skip


@pytest.fixture(scope="module", params=[1, 3])
def folder(request, tmp_path_factory):
    return write_synthetic_results(tmp_path_factory.mktemp("here"), seeds=tuple(range(request.param)))


def test_every_sentence_has_numbers(folder):
    for sentence in SENTENCES:
        text = str(sentence(folder))
        assert text.startswith("Here: ") and "nan" not in text and "do not hold" not in text, text


def test_without_tables_a_sentence_says_so(tmp_path):
    assert {str(sentence(tmp_path)) for sentence in SENTENCES} == {
        "Here: the tables of this experiment do not hold these numbers."
    }
    assert "judge none" in here.verdicts(1, tmp_path) and "judge none" in here.swap(tmp_path)


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


def swapped(folder, above, below):
    """Write the table of a swap: constant's distance is 1, with the optimum above 600 `above`, below it `below`."""
    rows = [("constant", "constant", -1, 1.0), ("optimum", "constant", 600, above), ("constant", "optimum", 600, below)]
    table = pd.DataFrame(rows, columns=["above", "below", "t_star", "value"])
    (folder / "tables").mkdir()
    table.assign(metric="layout_energy", steps=20, seed=0).to_csv(folder / "tables" / "oracle_swap.csv", index=False)
    return here.swap(folder).frame


def test_the_swap_blames_the_part_whose_replacement_mends(tmp_path):
    frame = swapped(tmp_path, 0.2, 1.1)
    assert frame.verdict.tolist() == ["one seed: yes", "one seed: no"] and "t > 600" in frame["found here"][0]


def test_a_table_is_not_cut_and_text_is_escaped():
    long = "a < b " + "word " * 40
    text = here.Table(pd.DataFrame({"claim": [long]}))._repr_html_()
    assert long.replace("<", "&lt;").strip() in text and "..." not in text and "white-space: normal" in text
