"""Executing a notebook: its record, how failures are said, and what a kill leaves.

How kernels die and signals are taken is in tests/reliability/test_notebook_deaths.py.
"""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from debiaslib.errors import WorkFailed
from debiaslib.study import run_notebook

NAME = "02_one_step_estimation"
TINY = Path(__file__).parents[1] / "reliability" / "tiny.yaml"


@pytest.fixture
def executed(monkeypatch):
    """The notebooks that were executed, by what `_execute` is given; it only copies."""
    calls = []

    def copy(source, target, parameters):
        calls.append(parameters)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(run_notebook, "_execute", copy)
    return calls


@pytest.fixture
def given(tmp_path):
    """Arguments of `execute_notebook`: an experiment's file and where results go."""
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TINY.read_bytes())
    return {"experiment": str(path), "results": str(tmp_path)}


def test_the_record_says_what_it_was_made_from_and_no_folder(executed, given):
    target = run_notebook.execute_notebook(NAME, **given)
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["parameters"] == {"experiment": "tiny.yaml", "dataset": "", "results": Path(given["results"]).name}
    assert record["notebook"] == NAME and record["inputs"]["settings"]["notebooks"] == [NAME] and len(executed) == 1
    assert {"sha256", "source_sha256", "seconds", "commit", "packages"} <= set(record)


@pytest.mark.parametrize(
    "runs, chosen",
    [
        ("weightings: [constant, debiased]\nseeds: [0, 1]", {}),
        ("weightings: [constant, debiased]\nseeds: [3, 4]", {"weighting": "debiased", "seed": 3}),
        ("weightings: [constant]\nseeds: [0]", {"weighting": "constant", "seed": 0}),
    ],
)
def test_chapter_5_shows_a_network_that_the_experiment_has(executed, given, runs, chosen):
    file = Path(given["experiment"])
    kept = [line for line in file.read_text().splitlines() if not line.startswith(("weightings", "seeds"))]
    file.write_text("\n".join([*kept, runs]))
    run_notebook.execute_notebook("05_training", **given)
    assert {key: value for key, value in executed[0].items() if key in ("weighting", "seed")} == chosen


def test_half_written_copies_of_killed_processes_are_removed(executed, given, tmp_path):
    folder = tmp_path / "tiny" / "notebooks"
    folder.mkdir(parents=True)
    (folder / f".{NAME}.failed-abcdefgh.ipynb").write_text("{")
    (folder / f".{NAME}-abcdefgh.json").write_text("{")
    run_notebook.execute_notebook(NAME, **given)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") == [f"{NAME}.ipynb", f"{NAME}.json"]


def failed(error):
    """A stand-in for papermill that leaves a notebook and raises the error."""

    def execute_notebook(source, target, **more):
        nbformat.write(new_notebook(cells=[new_code_cell("x")]), target)
        raise error

    return execute_notebook


def cell_error(ename, evalue):
    return PapermillExecutionError(6, 7, "source", ename, evalue, [])


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (cell_error("ZeroDivisionError", "division by zero"), "cell 6: ZeroDivisionError: division by zero;", 1),
        (cell_error("InputError", "seed is -1"), "cell 6: InputError: seed is -1;", 2),
        (cell_error("OSError", "[Errno 12] Cannot allocate memory: '/x'"), "cell 6: OSError: [Errno 12] Cannot", 4),
        (cell_error("RuntimeError", "DefaultCPUAllocator: can't allocate memory"), "cell 6: RuntimeError: ", 4),
        (DeadKernelError("Kernel died"), "the kernel was killed, or there was too little memory;", 3),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "papermill could not execute it: UnicodeEncodeError: ", 1),
    ],
)
def test_each_failure_has_a_cause_and_an_exit_status(given, monkeypatch, error, said, status):
    monkeypatch.setattr(run_notebook.papermill, "execute_notebook", failed(error))
    with pytest.raises(WorkFailed) as caught:
        run_notebook.execute_notebook(NAME, **given)
    assert str(caught.value).startswith(f"notebook {NAME}: {said}") and caught.value.status == status
    assert "\n" not in str(caught.value) and "_estimation.failed.ipynb" in str(caught.value)
