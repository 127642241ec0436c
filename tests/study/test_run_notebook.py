"""Executing a notebook: what of another process's copy is taken, how failures are said, and what a kill leaves.

How kernels die and signals are taken is in tests/reliability/test_notebook_deaths.py.
"""

import contextlib
import json
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook, new_output
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
def meanwhile(monkeypatch):
    """Give it what another process does while the next execution waits for the lock."""
    does, real = [], run_notebook.exclusive

    @contextlib.contextmanager
    def waiting(path, what):
        if does:
            does.pop()()
        with real(path, what):
            yield

    monkeypatch.setattr(run_notebook, "exclusive", waiting)
    return does.append


@pytest.fixture
def given(tmp_path):
    """Arguments of `execute_notebook`: an experiment's file and where results go."""
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TINY.read_bytes())
    return {"experiment": str(path), "results": str(tmp_path)}


def test_what_another_has_meanwhile_executed_is_taken(executed, meanwhile, given, capsys):
    meanwhile(lambda: run_notebook.execute_notebook(NAME, **given))
    target = run_notebook.execute_notebook(NAME, **given)
    assert len(executed) == 1
    assert capsys.readouterr().err == f"another process has meanwhile executed the notebook {target}\n"


def test_what_stood_there_before_is_not_taken(executed, given):
    for _ in range(2):
        run_notebook.execute_notebook(NAME, **given)
    assert len(executed) == 2


def other_settings(given, monkeypatch):
    path = Path(given["experiment"])
    before = path.read_text()
    path.write_text(before.replace("images: 32", "images: 48"))
    run_notebook.execute_notebook(NAME, **given)
    path.write_text(before)


def other_parameters(given, monkeypatch):
    run_notebook.execute_notebook(NAME, **given, dataset="minifaces")


def other_notebook(given, monkeypatch):
    source = Path(given["results"]) / f"{NAME}.ipynb"
    source.write_bytes(run_notebook.notebook_files()[NAME].read_bytes() + b" ")
    with monkeypatch.context() as patch:
        patch.setattr(run_notebook, "notebook_files", lambda: {NAME: source})
        run_notebook.execute_notebook(NAME, **given)


def other_code(given, monkeypatch):
    with monkeypatch.context() as patch:
        made = run_notebook.provenance()
        patch.setattr(run_notebook, "provenance", lambda: {**made, "commit": "another"})
        run_notebook.execute_notebook(NAME, **given)


def damaged_copy(given, monkeypatch):
    target = run_notebook.execute_notebook(NAME, **given)
    target.write_bytes(target.read_bytes() + b" ")


@pytest.mark.parametrize("other", [other_settings, other_parameters, other_notebook, other_code, damaged_copy])
def test_another_copy_or_a_damaged_one_is_not_taken(executed, meanwhile, given, monkeypatch, other):
    meanwhile(lambda: other(given, monkeypatch))
    target = run_notebook.execute_notebook(NAME, **given)
    assert len(executed) == 2
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["parameters"] == {"experiment": "tiny.yaml", "dataset": "", "results": Path(given["results"]).name}


def test_half_written_copies_of_killed_processes_are_removed(executed, given, tmp_path):
    folder = tmp_path / "tiny" / "notebooks"
    folder.mkdir(parents=True)
    (folder / f".{NAME}.failed-abcdefgh.ipynb").write_text("{")
    (folder / f".{NAME}-abcdefgh.json").write_text("{")
    run_notebook.execute_notebook(NAME, **given)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") == [f"{NAME}.ipynb", f"{NAME}.json"]


def failed(error, stderr=""):
    """A stand-in for papermill that leaves a notebook with this text on stderr and raises the error."""

    def execute_notebook(source, target, **more):
        outputs = [new_output("stream", name="stderr", text=stderr)]
        nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), target)
        raise error

    return execute_notebook


def cell_error(ename, evalue):
    return PapermillExecutionError(6, 7, "source", ename, evalue, [])


NO_MEMORY = "Traceback ...\nMemoryError\n\nDuring handling ...\nOSError: [Errno 12] Cannot allocate memory: '/x'\n"


@pytest.mark.parametrize(
    ("error", "stderr", "said", "status"),
    [
        (cell_error("ZeroDivisionError", "division by zero"), "", "cell 6: ZeroDivisionError: division by zero;", 1),
        (cell_error("InputError", "seed is -1"), "", "cell 6: InputError: seed is -1;", 2),
        (cell_error("CellExecutionError", ""), NO_MEMORY, "cell 6: OSError: [Errno 12] Cannot allocate memory", 4),
        (cell_error("CellExecutionError", ""), "", "cell 6: CellExecutionError;", 1),
        (cell_error("RuntimeError", "DefaultCPUAllocator: can't allocate memory"), "", "cell 6: RuntimeError: ", 4),
        (DeadKernelError("Kernel died"), "", "the kernel was killed, or there was too little memory;", 3),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "", "papermill could not execute it: UnicodeEncodeError: ", 1),
    ],
)
def test_each_failure_has_a_cause_and_an_exit_status(given, monkeypatch, error, stderr, said, status):
    monkeypatch.setattr(run_notebook.papermill, "execute_notebook", failed(error, stderr))
    with pytest.raises(WorkFailed) as caught:
        run_notebook.execute_notebook(NAME, **given)
    assert str(caught.value).startswith(f"notebook {NAME}: {said}") and caught.value.status == status
    assert "\n" not in str(caught.value) and "_estimation.failed.ipynb" in str(caught.value)
