"""Bad parameters of notebooks and variables of make: one line, exit code 2, nothing done."""

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import debiaslib.training.network  # noqa: F401  (the loading of its libraries is no time of ours)
from debiaslib.paths import notebook_files
from debiaslib.study.study import open_notebook

ROOT = Path(__file__).resolve().parents[2]


def declared(path):
    """(source of the cell tagged `parameters`, {name: default}) of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            return source, {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    raise AssertionError(path)


INJECTED = [
    ({"experimnet": "quick"}, "parameter 'experimnet'", "did you mean 'experiment'?"),
    ({"seed_": 3}, "parameter 'seed_'", "known: experiment"),
    ({"In": 3}, "parameter 'In' is 3", "use another"),
    ({"experiment": 3}, "parameter experiment is 3", "of type str"),
    ({"experiment": None}, "parameter experiment is None", "of type str"),
    ({"experiment": ["quick"]}, "parameter experiment is ['quick']", "of type str"),
    ({"experiment": "qick"}, "experiment 'qick'", "did you mean 'quick'?"),
    ({"experiment": "none.yaml"}, "'none.yaml'", "does not exist"),
    ({"experiment": "bad.yaml"}, "'weighting'", "did you mean 'weightings'?"),
    ({"dataset": 10}, "parameter dataset is 10", "of type str"),
    ({"results": True}, "parameter results is True", "of type str"),
    ({"results": "file"}, "results is 'file'", "must be a folder"),
]


def test_every_bad_parameter_of_a_notebook_is_one_line(tally, place, reached):
    for name, path in notebook_files().items():
        source, values = declared(path)
        cases = [*INJECTED]
        if "model" in values:
            cases += [({"model": 3}, "parameter model is 3", "of type str")]
            cases += [({"model": "no/where/at/all"}, "'no/where/at/all'", "no existing folder or file")]
        for given, *parts in cases:
            cell = "# Parameters\n" + "\n".join(f"{key} = {value!r}" for key, value in given.items())
            tally.refused(
                f"{name} {given}", partial(open_notebook, {"In": ["", source, cell], **values, **given}), *parts
            )
    tally.settle(reached, "bad parameters of notebooks")


MAKE = [
    ({"JOBS": "1", "MPLBACKEND": "nonsense"}, "MPLBACKEND is 'nonsense'", "set agg"),
    ({"JOBS": "0"}, "jobs is 0", ">= 1"),
    ({"JOBS": "two"}, "argument --jobs: invalid int value: 'two'", "int"),
    ({"EXPERIMENT": "nope"}, "experiment 'nope'", "known:"),
    ({"EXPERIMENT": "it's"}, 'experiment "it\'s"', "known:"),
    ({"EXPERIMENT": "$(touch canary)"}, "experiment ''", "known:"),
    ({"DATASET": "no/where/at/all"}, "'no/where/at/all'", "an existing path"),
    ({"PROFILE": "nowhere"}, "profile is 'nowhere'", "a folder with a config.yaml"),
    ({"RESULTS": "README.md"}, "results is 'README.md'", "must be a folder"),
]


def run(command, folder, **environment):
    """(exit code, stdout, stderr, seconds) of a process: of the processor, as a busy machine says nothing about us."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    before = os.times()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr, sum(os.times()[2:4]) - sum(before[2:4])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_every_bad_variable_of_make_is_one_line(tally, reached):
    """From the checkout; what make itself adds is not counted."""
    (tally.watched / "bin").mkdir()
    python = tally.watched / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would be no part of its environment
    python.chmod(0o755)
    there = sorted(path.name for path in ROOT.iterdir())
    for variables, *parts in MAKE:
        given = [f"{name}={value}" for name, value in variables.items()]
        path = f"{tally.watched / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = ["make", "reproduce", "SETUP=no", *given]
        code, shown, line, seconds = run(command, ROOT, PATH=path, DEBIASLIB_RESULTS=str(tally.watched / "results"))
        lines = [one for one in line.splitlines() if not one.startswith("make")]
        problem = f"exit code {code}, {shown!r}, {line!r}" if code != 2 or shown or len(lines) != 1 else None
        tally.judge(f"make {given}", lines[0] if lines else "", parts, seconds, problem)
    assert sorted(path.name for path in ROOT.iterdir()) == there and not (tally.watched / "results").exists()
    tally.settle(reached, "bad variables of make reproduce")
