"""The exercises of the chapters: three in each, whose solutions run and print what stands below them."""

import nbformat
import pytest

from debiaslib.paths import notebook_files
from docs.exercises import cell_of, run, solutions

NOTEBOOKS = notebook_files()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_solutions_print_what_they_are_said_to(name, monkeypatch, tmp_path):
    """From any folder; `python docs/exercises.py` writes the answers again where the published tables changed."""
    monkeypatch.chdir(tmp_path)
    cell = cell_of(nbformat.read(NOTEBOOKS[name], as_version=4))
    assert cell.source.count("<summary>Solution</summary>") == cell.source.count("</details>") == 3
    asked = solutions(cell.source)
    assert len(asked) == 3
    for code, said in asked:
        assert run(code) == said
        assert max(map(len, (*code.splitlines(), *said.splitlines()))) <= 120


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_reader_is_asked_to_predict_before_a_figure_or_table(name):
    cells = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    asks = [i for i, cell in enumerate(cells) if "**Predict first.**" in cell.source]
    assert len(asks) >= 2
    for i in asks:
        assert "<details><summary>Answer</summary>\n\n" in cells[i].source
        assert cells[i + 1].cell_type == "code"
