"""Bad arguments of commands, variables of make and parameters of notebooks: one line, exit code 2, nothing done.

Each command by its `main`, in this process.
"""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
from places import ROOT

from debiaslib.cli import run_command
from debiaslib.errors import WorkFailed
from debiaslib.paths import notebook_files
from debiaslib.study.study import open_notebook

NAMED = [  # of every command that takes an experiment
    ("--experiment qick", "experiment 'qick'", "did you mean 'quick'?"),
    ("--experiment bad.yaml", "'weighting'", "did you mean 'weightings'?"),
    ("--experimnet=quick", "unrecognized arguments", "--experimnet=quick"),
]
HOME = [  # of every command that finds its results folder
    ("--experiment mine.yaml --results file", "results is 'file'", "must be a folder"),
]
MADE = "--results made/mine --expected made/mine"


def after(start, cases):
    """The cases with `start` before their arguments."""
    return [(f"{start} {arguments}", *parts) for arguments, *parts in cases]


COMMANDS = {
    "training.__main__": [
        ("", "--weighting", "required"),
        *after("--weighting debiased", [*NAMED, *HOME]),
        ("--weighting debiased --seed 1.5", "argument --seed: invalid int value: '1.5'", "int"),
        ("--weighting debiased extra", "unrecognized arguments", "extra"),
        ("--weighting debiased --experiment zero.yaml", "prediction_type is 'epsilon'", "v_prediction"),
    ],
    "study.measurements": [
        ("", "names", "required"),
        *after("mse", [*NAMED, *HOME]),
        ("mes", "measurement 'mes'", "did you mean 'mse'?"),
        ("samples", "'samples'", "name its --weighting and --seed"),
    ],
    "study.pipeline": [
        *NAMED,
        *HOME,
        ("--dry-run --experiment groups.yaml", "refused by diffusers", "down_block_types"),
        ("--experiment notebook.yaml", "notebook '08_more'", "known: 01_bias_existence"),
        ("--experiment cuda.yaml", "device is 'cuda'", "use device='cpu'"),
        ("--experiment mine.yaml", "data set good has 3 train images; features pooled need 49", "allow_singular"),
    ],
    "study.run_notebook": [
        ("", "names", "required"),
        *after("05_training", [*NAMED, *HOME]),
        ("05_trainnig", "notebook '05_trainnig'", "did you mean '05_training'?"),
    ],
    "report.__main__": [
        *NAMED,
        *HOME,
        ("--experiment mine.yaml", "no results in", "make reproduce EXPERIMENT=mine"),
    ],
    "figures.__main__": [
        ("", "--results", "required"),
        ("--results nowhere", "nowhere", "give an experiment's folder"),
    ],
    "study.compare": [
        ("", "--results", "required"),
        ("--results nowhere", "nowhere", "the folder of an experiment's results"),
        (MADE, "holds no tables to compare with", "mse.csv"),
    ],
    "metrics.features": [("fetch", "argument command: invalid choice: 'fetch'", "fetch-inception")],
}


def said(module, arguments, capsys, monkeypatch):
    """(exit code, stdout, stderr) of `python -m debiaslib.<module> arguments`."""
    monkeypatch.setattr(sys, "argv", [module, *arguments.split()])
    with pytest.raises(SystemExit) as end:
        run_command(importlib.import_module(f"debiaslib.{module}").main)
    return end.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize("module", COMMANDS)
def test_every_bad_argument_is_one_line(module, tally, place, capsys, monkeypatch):
    before = tally.listing()
    for arguments, *parts in COMMANDS[module]:
        code, shown, line = said(module, arguments, capsys, monkeypatch)
        assert code == 2 and not shown and line.endswith("\n"), (arguments, code, shown)
        tally.judge(f"{module} {arguments}"[:150], line.splitlines()[-1], parts)
    assert [entry for entry in tally.listing() if entry not in before and "cache" not in entry[0]] == []
    tally.settle()


INJECTED = [
    ({"experimnet": "quick"}, "parameter 'experimnet'", "did you mean 'experiment'?"),
    ({"experiment": 3}, "parameter experiment is 3", "of type str"),
    ({"experiment": "bad.yaml"}, "'weighting'", "did you mean 'weightings'?"),
    ({"results": "file"}, "results is 'file'", "must be a folder"),
    ({"model": "no/where/at/all"}, "'no/where/at/all'", "no existing folder or file"),
]


def test_bad_parameters_of_a_notebook_are_one_line(tally, place):
    cells = json.loads(notebook_files()["01_bias_existence"].read_text(encoding="utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    values = {}
    exec(source, values)
    for given, *parts in INJECTED:
        cell = "# Parameters\n" + "\n".join(f"{key} = {value!r}" for key, value in given.items())
        namespace = {"In": ["", source, cell], **values, **given}
        tally.refused(str(given), partial(open_notebook, namespace), *parts)
    tally.settle()


MAKE = [
    ({"EXPERIMENT": "it's"}, 'experiment "it\'s"', "known:"),
    ({"EXPERIMENT": "$(touch canary)"}, "experiment ''", "known:"),
    ({"RESULTS": "README.md"}, "results is 'README.md'", "must be a folder"),
]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_bad_variables_of_make_are_one_line(tally):
    """From the checkout; what make itself adds is not counted."""
    (tally.watched / "bin").mkdir()
    python = tally.watched / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would be no part of its environment
    python.chmod(0o755)
    there = sorted(path.name for path in ROOT.iterdir())
    path = f"{tally.watched / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    for variables, *parts in MAKE:
        command = ["make", "reproduce", "SETUP=no", *(f"{name}={value}" for name, value in variables.items())]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        lines = [one for one in done.stderr.splitlines() if not one.startswith("make")]
        assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), (variables, done.stderr)
        tally.judge(f"make {variables}", lines[0], parts)
    assert sorted(path.name for path in ROOT.iterdir()) == there and not (tally.watched / "results").exists()
    tally.settle()


STATUS = [
    (WorkFailed("a job failed"), 1, "a job failed"),
    (WorkFailed("the kernel ended", WorkFailed.KILLED), 3, "the kernel ended"),
    (MemoryError("Unable to allocate 9 TiB"), 4, "there is too little memory: Unable to allocate 9 TiB"),
    (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), 4, "there is too little memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4, "there is too little memory"),
    (OSError(28, "No space left", "a.csv"), 74, "'a.csv' cannot be opened or written: No space left on device"),
    (KeyboardInterrupt(), 130, ""),
]


@pytest.mark.parametrize(("error", "status", "line"), STATUS, ids=repr)
def test_the_exit_status_says_what_kind_of_failure_it_was(error, status, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == status and line in capsys.readouterr().err


def test_the_exit_status_stays_where_the_log_of_a_job_is_on_the_full_disk(monkeypatch):
    def main():
        raise OSError(28, "No space left", "a.csv")

    class Full(io.StringIO):
        def write(self, text):
            main()

    monkeypatch.setattr(sys, "stderr", Full())
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 74


def test_what_is_no_failure_of_these_stays_a_traceback():
    def main():
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run_command(main)
