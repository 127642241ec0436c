"""What an execution of a notebook makes of one that another process finished while this one waited for it.

How notebooks fail, are killed and meet full disks is in tests/reliability.
"""

import contextlib
import json
from pathlib import Path

import pytest

from debiaslib.study import run_notebook as execution

NAME = "02_one_step_estimation"
TINY = Path(__file__).parents[1] / "reliability" / "tiny.yaml"


@pytest.fixture
def executed(monkeypatch):
    """The notebooks that were executed, by what `_execute` is given; it only copies."""
    calls = []

    def copy(source, target, parameters):
        calls.append(parameters)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(execution, "_execute", copy)
    return calls


@pytest.fixture
def meanwhile(monkeypatch):
    """Give it what another process does while the next execution waits for the lock."""
    does, real = [], execution.exclusive

    @contextlib.contextmanager
    def waiting(path, what):
        if does:
            does.pop()()
        with real(path, what):
            yield

    monkeypatch.setattr(execution, "exclusive", waiting)
    return does.append


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TINY.read_bytes())
    return path


def test_what_another_has_meanwhile_executed_is_taken(executed, meanwhile, experiment, tmp_path, capsys):
    given = {"experiment": str(experiment), "results": str(tmp_path)}
    meanwhile(lambda: execution.execute_notebook(NAME, **given))
    target = execution.execute_notebook(NAME, **given)
    assert len(executed) == 1
    assert capsys.readouterr().err == f"another process has meanwhile executed the notebook {target}\n"


def test_what_stood_there_before_is_not_taken(executed, experiment, tmp_path):
    for _ in range(2):
        execution.execute_notebook(NAME, str(experiment), results=str(tmp_path))
    assert len(executed) == 2


def other_settings(given, monkeypatch):
    path = Path(given["experiment"])
    before = path.read_text()
    path.write_text(before.replace("images: 32", "images: 48"))
    execution.execute_notebook(NAME, **given)
    path.write_text(before)


def other_parameters(given, monkeypatch):
    execution.execute_notebook(NAME, **given, dataset="minifaces")


def other_notebook(given, monkeypatch):
    source = Path(given["results"]) / f"{NAME}.ipynb"
    source.write_bytes(execution.notebook_files()[NAME].read_bytes() + b" ")
    with monkeypatch.context() as patch:
        patch.setattr(execution, "notebook_files", lambda: {NAME: source})
        execution.execute_notebook(NAME, **given)


def other_code(given, monkeypatch):
    with monkeypatch.context() as patch:
        made = execution.provenance()
        patch.setattr(execution, "provenance", lambda: {**made, "commit": "another"})
        execution.execute_notebook(NAME, **given)


def damaged_copy(given, monkeypatch):
    target = execution.execute_notebook(NAME, **given)
    target.write_bytes(target.read_bytes() + b" ")


def damaged_record(given, monkeypatch):
    note = execution.execute_notebook(NAME, **given).with_suffix(".json")
    note.write_bytes(note.read_bytes()[:-20])


def no_copy(given, monkeypatch):
    execution.execute_notebook(NAME, **given).unlink()


@pytest.mark.parametrize(
    "other", [other_settings, other_parameters, other_notebook, other_code, damaged_copy, damaged_record, no_copy]
)
def test_another_copy_or_a_damaged_one_is_not_taken(executed, meanwhile, experiment, tmp_path, monkeypatch, other):
    given = {"experiment": str(experiment), "results": str(tmp_path)}
    meanwhile(lambda: other(given, monkeypatch))
    target = execution.execute_notebook(NAME, **given)
    assert len(executed) == 2
    assert json.loads(target.with_suffix(".json").read_text())["parameters"] == executed[-1]
