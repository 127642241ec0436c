"""Bad arguments of every command: one line, exit code 2, nothing done. Each by its `main`, in this process."""

import importlib
import sys

import pytest

from debiaslib.cli import run_command
from debiaslib.errors import WorkFailed

NAMED = [  # of every command that takes an experiment
    ("--experiment qick", "experiment 'qick'", "did you mean 'quick'?"),
    ("--experiment bad.yaml", "'weighting'", "did you mean 'weightings'?"),
    ("--experimnet=quick", "argument '--experimnet'", "did you mean '--experiment'?"),
]
HOME = [  # of every command that finds its results folder
    ("--experiment mine.yaml --results file", "results is 'file'", "must be a folder"),
    (f"--experiment mine.yaml --results {'x' * 300}", "results is 'xxx", "the path of a folder"),
]
MADE = "--results made/mine --expected made/mine"


def after(start, cases):
    """The cases with `start` before their arguments."""
    return [(f"{start} {arguments}", *parts) for arguments, *parts in cases]


COMMANDS = {
    "training.__main__": [
        ("", "--weighting", "required"),
        *after("--weighting debiased", [*NAMED, *HOME]),
        ("--weighting debiased;learning_rate=1", "'learning_rate'", "did you mean 'lr'?"),
        ("--weighting debiased --seed 1.5", "argument --seed: invalid int value: '1.5'", "int"),
        ("--weighting debiased --dataset no/where/at/all", "'no/where/at/all'", "an existing path"),
        ("--weighting debiased extra", "argument 'extra'", "known:"),
        ("--weighting debiased --experiment zero.yaml", "is infinite where SNR = 0", "max_weight"),
    ],
    "study.measurements": [
        ("", "names", "required"),
        *after("mse", [*NAMED, *HOME]),
        ("mes", "measurement 'mes'", "did you mean 'mse'?"),
        ("samples", "'samples'", "name its --weighting and --seed"),
        ("samples --weighting debaised", "weighting 'debaised'", "did you mean 'debiased'?"),
    ],
    "study.pipeline": [
        *NAMED,
        *HOME,
        ("--jobs 0", "jobs is 0", ">= 1"),
        ("--minutes 5", "argument '--minutes'", "known:"),
        ("--profile nowhere", "profile is 'nowhere'", "a folder with a config.yaml"),
        ("--dataset no/where/at/all", "'no/where/at/all'", "an existing path"),
        ("--dry-run --tflops 0", "tflops is 0.0", "> 0"),
        ("--dry-run --experiment groups.yaml", "refused by diffusers", "block_out_channels"),
        ("--experiment notebook.yaml", "notebook '08_more'", "known: 01_bias_existence"),
        ("--experiment cuda.yaml", "device is 'cuda'", "use device='cpu'"),
        ("--experiment mine.yaml", "data set good has 3 train images; features pooled need 49", "allow_singular"),
    ],
    "study.run_notebook": [
        ("", "names", "required"),
        *after("05_training", [*NAMED, *HOME]),
        ("05_trainnig", "notebook '05_trainnig'", "did you mean '05_training'?"),
        ("05_training --model no/where/at/all", "'no/where/at/all'", "no existing folder or file"),
    ],
    "report.report": [
        *NAMED,
        *HOME,
        ("--experiment mine.yaml", "no results in", "make reproduce EXPERIMENT=mine"),
    ],
    "figures.__main__": [
        ("", "--results", "required"),
        ("--results nowhere", "nowhere", "give an experiment's folder"),
        ("--result x y", "argument 'y'", "known:"),
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


def test_a_backend_of_figures_that_is_none(capsys, monkeypatch):
    """In a process that has matplotlib already, its import is as on a machine with that variable set."""
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    code, shown, line = said("figures.__main__", "--results nowhere", capsys, monkeypatch)
    assert (code, shown) == (2, "") and line.count("\n") == 1
    assert line.startswith("error: MPLBACKEND is 'nonsense', which matplotlib does not know")


STATUS = [
    (WorkFailed("a job failed"), 1, "a job failed"),
    (WorkFailed("the kernel ended", WorkFailed.KILLED), 3, "the kernel ended"),
    (MemoryError("Unable to allocate 9 TiB"), 4, "there is too little memory: Unable to allocate 9 TiB"),
    (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), 4, "there is too little memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4, "there is too little memory"),
    (
        OSError(28, "No space left on device", "a.csv"),
        74,
        "'a.csv' cannot be opened or written: No space left on device",
    ),
    (KeyboardInterrupt(), 130, ""),
]


@pytest.mark.parametrize(("error", "status", "line"), STATUS, ids=repr)
def test_the_exit_status_says_what_kind_of_failure_it_was(error, status, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == status and line in capsys.readouterr().err


def test_what_is_no_failure_of_these_stays_a_traceback():
    def main():
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run_command(main)
