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
    ({"In": 3}, "parameter 'In' is 3", "use another"),
    ({"experiment": 3}, "parameter experiment is 3", "of type str"),
    ({"experiment": "qick"}, "experiment 'qick'", "did you mean 'quick'?"),
    ({"experiment": "bad.yaml"}, "'weighting'", "did you mean 'weightings'?"),
    ({"dataset": 10}, "parameter dataset is 10", "of type str"),
    ({"results": "file"}, "results is 'file'", "must be a folder"),
]


def test_every_bad_parameter_of_a_notebook_is_one_line(tally, place):
    for name, path in notebook_files().items():
        source, values = declared(path)
        cases = [*INJECTED]
        if "model" in values:
            cases += [({"model": "no/where/at/all"}, "'no/where/at/all'", "no existing folder or file")]
        for given, *parts in cases:
            cell = "# Parameters\n" + "\n".join(f"{key} = {value!r}" for key, value in given.items())
            cells = {"In": ["", source, cell], **values, **given}
            tally.refused(f"{name} {given}", partial(open_notebook, cells), *parts)
    tally.settle()


MAKE = [
    ({"JOBS": "1", "MPLBACKEND": "nonsense"}, "MPLBACKEND is 'nonsense'", "set agg"),
    ({"JOBS": "0"}, "jobs is 0", ">= 1"),
    ({"EXPERIMENT": "it's"}, 'experiment "it\'s"', "known:"),
    ({"EXPERIMENT": "$(touch canary)"}, "experiment ''", "known:"),
    ({"DATASET": "no/where/at/all"}, "'no/where/at/all'", "an existing path"),
    ({"PROFILE": "nowhere"}, "profile is 'nowhere'", "a folder with a config.yaml"),
    ({"RESULTS": "README.md"}, "results is 'README.md'", "must be a folder"),
]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_every_bad_variable_of_make_is_one_line(tally):
    """From the checkout; what make itself adds is not counted."""
    (tally.watched / "bin").mkdir()
    python = tally.watched / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would be no part of its environment
    python.chmod(0o755)
    there = sorted(path.name for path in ROOT.iterdir())
    path = f"{tally.watched / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": path, "DEBIASLIB_RESULTS": str(tally.watched / "results")}
    for variables, *parts in MAKE:
        command = ["make", "reproduce", "SETUP=no", *(f"{name}={value}" for name, value in variables.items())]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
                              timeout=120)  # fmt: skip
        lines = [one for one in done.stderr.splitlines() if not one.startswith("make")]
        assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), (variables, done.stderr)
        tally.judge(f"make {variables}", lines[0], parts)
    assert sorted(path.name for path in ROOT.iterdir()) == there and not (tally.watched / "results").exists()
    tally.settle()
