"""The notebooks: their form, some alone by papermill from another folder, and a bad parameter.

That they hold no outputs is what `make lint` asks nbstripout; their code's style is ruff's.
"""

import ast
import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from debiaslib.paths import notebook_files
from tests.study.test_pretrained_study import tiny_pipeline

SMOKE = Path(__file__).resolve().parent / "smoke.yaml"
NOTEBOOKS = notebook_files()


def papermill_run(name, folder, **parameters):
    """Run one notebook by papermill from `folder`; the executed notebook. Raises PapermillExecutionError."""
    given = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
    source, target = str(NOTEBOOKS[name]), str(folder / "out.ipynb")
    return papermill.execute_notebook(source, target, given, cwd=folder, progress_bar=False)


def cells_of(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4).cells


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_reader_meets_a_title_the_parameters_and_a_question_before_each_piece_of_code(name):
    cells = cells_of(name)
    kinds = [cell.cell_type for cell in cells]
    assert cells[0].source.startswith(f"# {int(name[:2])}. ") and kinds[0] == kinds[-1] == "markdown"
    assert [is_parameters(cell) for cell in cells if cell.cell_type == "code"] == [True] + [False] * (
        kinds.count("code") - 1
    )
    assert [i for i, kind in enumerate(kinds) if kind == "code" and kinds[i - 1] != "markdown"] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_is_thin(name):
    """What needs a name of its own is in the package, where it is tested."""
    for number, cell in enumerate(cells_of(name)):
        if cell.cell_type != "code":
            continue
        lines = [line for line in cell.source.splitlines() if line.strip() and not re.match("import |from ", line)]
        assert is_parameters(cell) or 1 <= len(lines) <= 12, (number, len(lines))
        tree = ast.walk(ast.parse(cell.source))  # no magics and shell commands either
        found = [type(node).__name__ for node in tree if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert found == [], (number, found)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_cell_overwrites_a_parameter(name):
    """So that a cell can run twice."""
    first, *others = [ast.parse(cell.source) for cell in cells_of(name) if cell.cell_type == "code"]
    parameters = {node.target.id for node in first.body}
    names = [node for cell in others for node in ast.walk(cell) if isinstance(node, ast.Name)]
    assert parameters.isdisjoint(node.id for node in names if isinstance(node.ctx, ast.Store))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_parameter_has_a_type_a_default_and_a_meaning(name):
    """In lines that `papermill --help-notebook` lists: it drops one with a second "=", and ends a value at a "#"."""
    [cell] = [cell for cell in cells_of(name) if is_parameters(cell)]
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = [^#=]+  # [^=]{10,}", line), line
    listed = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    assert list(listed) == [node.target.id for node in ast.parse(cell.source).body]
    assert {"experiment", "dataset", "results"} <= set(listed) and all(one["help"] for one in listed.values())
    for node in ast.parse(cell.source).body:
        assert type(ast.literal_eval(node.value)).__name__ == node.annotation.id


@pytest.mark.slow
def test_a_notebook_alone_trains_what_is_missing_and_shows_its_figures(tmp_path):
    notebook = papermill_run("05_training", tmp_path, experiment=SMOKE, results=tmp_path / "r")
    assert (tmp_path / "r" / "smoke" / "runs" / "debiased-s0" / "record.json").exists()
    assert not (tmp_path / "r" / "smoke" / "runs" / "constant-s0").exists()  # not what was not asked for
    shown = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(shown) == 2
    said = json.dumps([o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream"])
    assert "debiased-s0: 100%" in said  # the progress bar


# What is computed of such a network is tested in tests/study/test_pretrained_study.py, at once.
OF_ONE_NETWORK = [
    "01_bias_existence",
    "02_one_step_estimation",
    "03_mse_step_curves",
    "04_weighting_comparison",
    "06_fid_evaluation",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ONE_NETWORK)
def test_a_network_that_others_trained_in_place_of_the_experiments_own(name, tmp_path):
    model, results = tiny_pipeline(tmp_path / "tiny"), tmp_path / "r"
    notebook = papermill_run(name, tmp_path, experiment=SMOKE, results=results, model=model)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "One network, trained elsewhere: tiny; results go to smoke--tiny-" in said
    assert ("so there is nothing to compare it with" in json.dumps(outputs)) == (name[:2] != "04")
    assert [folder.name[:12] for folder in results.iterdir()] == ["smoke--tiny-"]
    assert not list(results.glob("*/runs"))  # nothing was trained
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_a_bad_parameter_is_one_line_without_a_traceback(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError):
        papermill_run("05_training", tmp_path, results=tmp_path / "r", weighting="debised")
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    (error,) = [output for cell in cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert error.ename == "InputError"
    assert error.evalue.startswith("weighting 'debised' is unknown; did you mean 'debiased'?")
    assert len(error.traceback) == 1 and "\n" not in error.traceback[0]
    assert not list((tmp_path / "r").glob("*/runs/*/log.jsonl"))
