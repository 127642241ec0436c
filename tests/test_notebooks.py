"""Each notebook alone, by papermill's own command from another folder; and what it says to bad parameters."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from debiaslib.paths import notebook_files
from tests.study.test_pretrained_study import tiny_pipeline

SMOKE = Path(__file__).resolve().parent / "smoke.yaml"
NOTEBOOKS = notebook_files()


def papermill_run(name, folder, *parameters):
    """Run one notebook as a user does, from `folder`; (the finished process, the executed notebook)."""
    given = [text for pair in parameters for text in ("-p", *map(str, pair))]
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS[name]), "out.ipynb", "--no-progress-bar", *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    return done, nbformat.read(folder / "out.ipynb", as_version=4)


def test_there_are_seven():
    assert [name[:2] for name in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_parameter_has_a_type_a_default_and_a_meaning(name):
    parameters = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    assert {"experiment", "dataset", "results"} <= set(parameters)
    for parameter in parameters.values():
        assert parameter["inferred_type_name"] in ("str", "int", "float", "bool")
        assert parameter["default"]
        assert len(parameter["help"]) > 10


def test_a_notebook_alone_trains_what_is_missing_and_shows_its_figures(tmp_path):
    done, notebook = papermill_run("05_training", tmp_path, ("experiment", SMOKE), ("results", tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "smoke" / "runs" / "debiased-s0" / "record.json").exists()
    assert not (tmp_path / "r" / "smoke" / "runs" / "constant-s0").exists()  # not what was not asked for
    shown = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(shown) == 2
    said = json.dumps([o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream"])
    assert "debiased-s0: 100%" in said  # the progress bar


OF_ONE_NETWORK = ["02_one_step_estimation"] + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("01_bias_existence", "03_mse_step_curves", "04_weighting_comparison", "06_fid_evaluation")
]


@pytest.mark.parametrize("name", OF_ONE_NETWORK)
def test_a_network_that_others_trained_in_place_of_the_experiments_own(name, tmp_path):
    model, results = tiny_pipeline(tmp_path / "tiny"), tmp_path / "r"
    done, notebook = papermill_run(name, tmp_path, ("experiment", SMOKE), ("results", results), ("model", model))
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "One network, trained elsewhere: tiny; results go to smoke--tiny-" in said
    assert ("so there is nothing to compare it with" in said) == (name[:2] != "04")
    assert [folder.name[:12] for folder in results.iterdir()] == ["smoke--tiny-"]
    assert not list(results.glob("*/runs"))  # nothing was trained
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize(
    ("name", "parameter", "said"),
    [
        ("02_one_step_estimation", ("model", "no such thing"), "model 'no such thing' is no existing folder or file"),
        ("01_bias_existence", ("experimnt", "quick"), "parameter 'experimnt' is unknown; did you mean 'experiment'?"),
        ("02_one_step_estimation", ("experiment", "quik"), "experiment 'quik' is unknown; did you mean 'quick'?"),
        ("05_training", ("weighting", "debised"), "weighting 'debised' is unknown; did you mean 'debiased'?"),
        ("05_training", ("seed", "first"), "parameter seed is 'first'; it must be of type int"),
    ],
)
def test_a_bad_parameter_is_one_line_without_a_traceback(name, parameter, said, tmp_path):
    done, notebook = papermill_run(name, tmp_path, ("results", tmp_path / "r"), parameter)
    assert done.returncode != 0
    errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert len(errors) == 1
    assert errors[0].ename == "InputError"
    assert errors[0].evalue.startswith(said)
    assert len(errors[0].traceback) == 1
    assert "\n" not in errors[0].traceback[0]
    assert not list((tmp_path / "r").glob("*/runs/*/log.jsonl"))
