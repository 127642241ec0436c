"""The form check of the notebooks: each rule on a small notebook that breaks it, and the real ones."""

import ast
import json
from pathlib import Path

import nbformat
import papermill
import pytest

from debiaslib.report.notebook_form import MAX_BYTES, MAX_LINES, check_notebook, main

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

PARAMETERS = """\
experiment: str = "quick"  # a file of config/, or a path
images: int = 64  # how many
lr: float = -1e-3  # step size
shown: bool = True  # draw them
steps: list = [2, 5, 10]  # sampling steps"""


def cell(kind, source, **changes):
    made = {"cell_type": kind, "id": changes.pop("id", None), "metadata": {}, "source": source}
    if kind == "code":
        made |= {"outputs": [], "execution_count": None}
    return made | changes


def good():
    """A notebook with nothing wrong; cells: title, parameters, set-up, question, code, reading."""
    cells = [
        cell("markdown", "# A title\n\nWhat is asked."),
        cell("code", PARAMETERS, metadata={"tags": ["parameters"]}),
        cell("code", "from debiaslib import Schedule\n\nschedule = Schedule.linear()"),
        cell("markdown", "Is it so?"),
        cell("code", ["%matplotlib inline\n", "schedule.snr[(5\n", "  % 3)]"]),
        cell("markdown", "It is."),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def findings(tmp_path, notebook):
    """Write the notebook, with an id for each cell that has none yet, and check it."""
    for number, one in enumerate(notebook["cells"]):
        if isinstance(one, dict) and one.get("id", "") is None:
            one["id"] = f"cell-{number}"
    path = tmp_path / "01_some.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return check_notebook(path)


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_a_good_notebook(tmp_path):
    notebook = good()
    assert findings(tmp_path, notebook) == []
    nbformat.validate(notebook)


def test_not_a_notebook(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{")
    assert "not JSON" in only(check_notebook(path))
    path.write_text("[]")
    assert "no list of cells" in only(check_notebook(path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"nbformat_minor": 4}, "is nbformat 4.4, not 4.5"),
        ({"metadata": None}, "has no metadata"),
        ({"metadata": {"language_info": {"name": "python"}}}, "its kernel is None, not 'python3'"),
        ({"metadata": {"kernelspec": {"name": "python3"}}}, "its metadata do not say that the language is python"),
        ({"cells": []}, "cell 1: is not a markdown cell that begins with the title ('# ...')"),
    ],
)
def test_the_file_as_a_whole(tmp_path, change, expected):
    assert findings(tmp_path, good() | change)[0] == expected


def test_traces_in_the_metadata(tmp_path):
    notebook = good()
    notebook["metadata"]["papermill"] = {}
    assert only(findings(tmp_path, notebook)) == "holds metadata of an execution: papermill"


def test_size(tmp_path):
    notebook = good()
    notebook["cells"][-1]["source"] = "x" * MAX_BYTES
    assert "bytes, more than 100000" in only(findings(tmp_path, notebook))


@pytest.mark.parametrize(
    ("index", "change", "expected"),
    [
        (0, {"source": "## No title"}, "cell 1: is not a markdown cell that begins with the title ('# ...')"),
        (3, {"cell_type": "prose"}, "cell 4: is not a cell of type code, markdown, raw"),
        (3, {"id": "a b"}, "cell 4: has no valid id"),
        (3, {"id": "cell-0"}, "cell 4: its id 'cell-0' is used twice"),
        (3, {"metadata": []}, "cell 4: has no metadata"),
        (3, {"source": None}, "cell 4: has no source"),
        (4, {"outputs": None}, "cell 5: has no outputs or no execution_count"),
        (4, {"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}, "cell 5: has outputs"),
        (4, {"execution_count": 3}, "cell 5: has an execution count, 3"),
        (4, {"metadata": {"papermill": {"duration": 1}}}, "cell 5: holds metadata of an execution: papermill"),
        (4, {"metadata": {"execution": {}}}, "cell 5: holds metadata of an execution: execution"),
        (4, {"metadata": {"tags": ["injected-parameters"]}}, "cell 5: was put in by papermill"),
        (4, {"source": " \n"}, "cell 5: is empty"),
        (4, {"source": "x = 1\n" * (MAX_LINES + 1)}, "cell 5: has 13 lines of code, more than 12"),
        (4, {"source": "def f():\n    pass"}, "cell 5: defines the function f"),
        (4, {"source": "async def f():\n    pass"}, "cell 5: defines the function f"),
        (4, {"source": "class A:\n    pass"}, "cell 5: defines the class A"),
        (4, {"source": "f = lambda x: x"}, "cell 5: gives a name to a lambda"),
        (4, {"source": "import os\nfrom os.path import *"}, "cell 5: imports * from os.path"),
        (4, {"source": "%load_ext x"}, "cell 5: uses a magic or shell command: %load_ext x"),
        (4, {"source": "x = 1\n!ls"}, "cell 5: uses a magic or shell command: !ls"),
        (4, {"source": "found = !ls"}, "cell 5: uses a magic or shell command: found = !ls"),
        (4, {"source": "len?"}, "cell 5: uses a magic or shell command: len?"),
        (4, {"source": "get_ipython().system('ls')"}, "cell 5: uses a magic or shell command: get_ipython"),
        (4, {"source": "x = ("}, "cell 5: is not Python: "),
        (1, {"metadata": {}}, "has 0 cells tagged 'parameters', not one"),
        (2, {"metadata": {"tags": ["parameters"]}}, "has 2 cells tagged 'parameters', not one"),
    ],
)
def test_a_cell(tmp_path, index, change, expected):
    notebook = good()
    notebook["cells"][index] |= change
    assert findings(tmp_path, notebook)[0].startswith(expected)


def test_twelve_lines_are_enough_and_blank_ones_are_free(tmp_path):
    notebook = good()
    notebook["cells"][4]["source"] = "x = 1\n\n" * MAX_LINES
    assert findings(tmp_path, notebook) == []


def test_parameters_come_first(tmp_path):
    notebook = good()
    notebook["cells"].insert(1, cell("code", "x = 1", id="early"))
    assert only(findings(tmp_path, notebook)) == "cell 3: the cell tagged 'parameters' is not the first code cell"


def test_code_stands_between_question_and_reading(tmp_path):
    notebook = good()
    notebook["cells"].insert(5, cell("code", "x = 1", id="more"))
    assert findings(tmp_path, notebook) == [
        "cell 5: no markdown cell with its reading stands after it",
        "cell 6: no markdown cell with its question stands before it",
    ]
    notebook = good()
    del notebook["cells"][-1]
    assert only(findings(tmp_path, notebook)) == "cell 5: no markdown cell with its reading stands after it"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import os", "line 1 is not 'name: type = value  # meaning': import os"),
        ("a = 1  # meaning", "line 1 is not 'name: type = value  # meaning': a = 1  # meaning"),
        ("a: int  # meaning", "line 1 is not 'name: type = value  # meaning': a: int  # meaning"),
        ("a: int = 1", "parameter a has no comment that says what it means"),
        ("a: int = 1  #", "parameter a has no comment that says what it means"),
        ("a: int = 1  # type: int", "parameter a has no comment that says what it means"),
        ("a: list = [\n    1,\n]  # meaning", "parameter a is not alone on one line"),
        ("a: int = 1; b: int = 2  # meaning", "parameter a is not alone on one line"),
        ('a: str = "p2(k=1)"  # meaning', "parameter a has a second '=' in its line"),
        ("a: int = 1  # b = 2", "parameter a has a second '=' in its line"),
        ('a: str = "#fff"  # meaning', "parameter a has a '#' in its value"),
        ("a: int | None = None  # meaning", "parameter a is of type int | None; known: str, int, float, bool, list"),
        ("a: int = 1.5  # meaning", "parameter a is of type int, but its value is 1.5"),
        ("a: int = True  # meaning", "parameter a is of type int, but its value is True"),
        ("a: str = None  # meaning", "parameter a is of type str, but its value is None"),
        ("a: list = list()  # meaning", "parameter a has no literal as its value"),
    ],
)
def test_a_parameter(tmp_path, line, expected):
    notebook = good()
    notebook["cells"][1]["source"] = line
    assert findings(tmp_path, notebook)[0].startswith(f"cell 2: {expected}")


def test_the_command(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"no notebook in {tmp_path}\n"
    assert main([str(tmp_path / "none.ipynb")]) == 2
    assert "no such notebook" in capsys.readouterr().err
    assert findings(tmp_path, good()) == []
    assert main([str(tmp_path)]) == 0
    notebook = good()
    notebook["cells"][4]["execution_count"] = 1
    findings(tmp_path, notebook)
    capsys.readouterr()
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{tmp_path / '01_some.ipynb'}: cell 5: has an execution count, 1\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_real_notebooks(path):
    assert check_notebook(path) == []
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_lists_every_parameter(path):
    """What `papermill --help-notebook` shows is what the cell assigns: name, type, default and meaning."""
    cells = nbformat.read(path, as_version=4).cells
    source = next(one.source for one in cells if "parameters" in one.metadata.get("tags", []))
    written = {
        node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value)) for node in ast.parse(source).body
    }
    listed = papermill.inspect_notebook(path)
    assert {name: (p["inferred_type_name"], ast.literal_eval(p["default"])) for name, p in listed.items()} == written
    assert all(p["help"] for p in listed.values())
