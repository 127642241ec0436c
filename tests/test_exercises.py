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
