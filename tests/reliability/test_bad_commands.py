"""Bad arguments of every command: one line, exit code 2, nothing done."""

import importlib
import runpy
import sys
import time
import warnings
from pathlib import Path

from refusals import no_longer_than

ROOT = Path(__file__).resolve().parents[2]
NAMED = [  # of every command that takes an experiment
    (["--experiment", "qick"], "experiment 'qick'", "did you mean 'quick'?"),
    (["--experiment", ""], "experiment ''", "known:"),
    (["--experiment", "none.yaml"], "'none.yaml'", "does not exist"),
    (["--experiment", "bad.yaml"], "'weighting'", "did you mean 'weightings'?"),
    (["--experiment"], "argument --experiment", "expected one argument"),
    (["--experimnet=quick"], "argument '--experimnet'", "did you mean '--experiment'?"),
]
HOME = [  # of every command that finds its results folder
    (["--results", "file"], "results is 'file'", "must be a folder"),
    (["--results", "file/below"], "results is 'file/below'", "must be a folder"),
    (["--results", "x" * 300], "results is 'xxx", "the path of a folder"),
]
TRAIN = ["--experiment", "mine.yaml", "--weighting", "debiased"]
COMMANDS = {
    "training": [
        ([], "--weighting", "required"),
        *[(["--weighting", "debiased", *given], *parts) for given, *parts in NAMED],
        *[([*TRAIN, *given], *parts) for given, *parts in HOME],
        (["--weighting", "debaised"], "weighting 'debaised'", "did you mean 'debiased'?"),
        (["--weighting", "p2(k=-1)"], "k of weighting 'p2' is -1", ">= 0"),
        (["--weighting", "debiased; lr=0"], "lr is 0.0", "> 0"),
        (["--weighting", ""], "weighting ''", "'name(argument=value)'"),
        ([*TRAIN, "--seed", "x"], "argument --seed: invalid int value: 'x'", "int"),
        ([*TRAIN, "--seed", "1.5"], "argument --seed: invalid int value: '1.5'", "int"),
        ([*TRAIN, "--seed", "-1"], "seed is -1", ">= 0"),
        ([*TRAIN, "--dataset", "no/where/at/all"], "'no/where/at/all'", "an existing path"),
        ([*TRAIN, "--dataset", "file"], "file", "no parquet file"),
        ([*TRAIN, "--dataset", "empty"], "'empty' holds no images", "looked for png"),
        ([*TRAIN, "extra"], "argument 'extra'", "known:"),
        (["--experiment", "cuda.yaml", "--weighting", "debiased"], "device is 'cuda'", "use device='cpu'"),
        (["--experiment", "odd.yaml", "--weighting", "debiased"], "resolution is 18", "a multiple of 4"),
        (["--experiment", "zero.yaml", "--weighting", "debiased"], "is infinite where SNR = 0", "max_weight"),
        (["--experiment", "groups.yaml", "--weighting", "debiased"], "refused by diffusers", "block_out_channels"),
    ],
    "measurements": [
        ([], "names", "required"),
        *[(["mse", *given], *parts) for given, *parts in [*NAMED, *HOME]],
        (["mes"], "measurement 'mes'", "did you mean 'mse'?"),
        (["samples"], "'samples'", "name its --weighting and --seed"),
        (["samples", "--weighting", "debaised"], "weighting 'debaised'", "did you mean 'debiased'?"),
        (["distances", "--weighting", "debiased", "--seed", "-1"], "seed is -1", ">= 0"),
        (["distances", "--weighting", "debiased", "--seed", "x"], "argument --seed: invalid int value: 'x'", "int"),
    ],
    "pipeline": [
        *NAMED,
        *[(["--experiment", "mine.yaml", *given], *parts) for given, *parts in HOME],
        (["--jobs", "0"], "jobs is 0", ">= 1"),
        (["--jobs", "-3"], "jobs is -3", ">= 1"),
        (["--jobs", "two"], "argument --jobs: invalid int value: 'two'", "int"),
        (["--jobs", "1.5"], "argument --jobs: invalid int value: '1.5'", "int"),
        (["--minutes", "abc"], "argument --minutes: invalid float value: 'abc'", "float"),
        (["--minutes", "0"], "minutes is 0.0", "> 0"),
        (["--minutes", "-5"], "minutes is -5.0", "> 0"),
        (["--minutes", "nan"], "minutes is nan", "finite number > 0"),
        (["--minutes", "inf"], "minutes is inf", "finite number > 0"),
        (["--profile", "nowhere"], "profile is 'nowhere'", "a folder with a config.yaml"),
        (["--profile", str(ROOT / "config/slurm"), "--minutes", "5"], "minutes is 5", "limit of time"),
        (["--dataset", "no/where/at/all"], "'no/where/at/all'", "an existing path"),
        (["--dry-run", "--tflops", "0"], "tflops is 0.0", "> 0"),
        (["--dry-run", "--tflops", "x"], "argument --tflops: invalid float value: 'x'", "float"),
        (["--dry-run", "--measuring-tflops", "-1"], "measuring_tflops is -1.0", "> 0"),
        (["--dry-run", "--experiment", "qick"], "experiment 'qick'", "did you mean 'quick'?"),
        (["--dry-run", "--experiment", "groups.yaml"], "refused by diffusers", "block_out_channels"),
        (["--experiment", "notebook.yaml"], "notebook '08_more'", "known: 01_bias_existence"),
        (["--experiment", "circle.yaml"], "then is", "leads back"),
        (["--experiment", "then.yaml"], "experiment 'qick'", "did you mean 'quick'?"),
        (["--experiment", "cuda.yaml"], "device is 'cuda'", "use device='cpu'"),
        (["--targets"], "argument --targets", "expected at least one argument"),
    ],
    "execution": [
        ([], "names", "required"),
        *[(["05_training", *given], *parts) for given, *parts in [*NAMED, *HOME]],
        (["05_trainnig"], "notebook '05_trainnig'", "did you mean '05_training'?"),
        (["05_training", "--model", "no/where/at/all"], "'no/where/at/all'", "no existing folder or file"),
        (["05_training", "--model", "empty"], "empty", "config.json"),
        (["05_training", "--model", "file; x=["], "x of the model is '['", "a number, true, false"),
    ],
    "report": [
        *NAMED,
        *[(["--experiment", "mine.yaml", *given], *parts) for given, *parts in HOME],
        (["--experiment", "mine.yaml"], "no results in", "make reproduce EXPERIMENT=mine"),
        (["--experiment", "mine.yaml", "--results", "made", "--publish", "file"], "file is not a folder", "name one"),
        (["--experiment", "mine.yaml", "--results", "made", "--publish", "good"], "good holds something else", "empty"),
    ],
    "figures": [
        ([], "--results", "required"),
        (["--results", "nowhere"], "nowhere", "give an experiment's folder"),
        (["--results", "file"], "file", "give an experiment's folder"),
        (["--result", "x", "y"], "argument 'y'", "known:"),
    ],
    "compare": [
        ([], "--results", "required"),
        (["--results", "nowhere"], "nowhere", "the folder of an experiment's results"),
        (["--results", "file"], "file", "the folder of an experiment's results"),
        (["--results", "made/mine", "--expected", "nowhere"], "nowhere", "the folder of an experiment's results"),
        (["--results", "made/mine", "--expected", "made/mine", "--limit", "0"], "limit is 0", ">= 1"),
        (["--results", "made/mine", "--expected", "made/mine", "--limit", "x"], "argument --limit", "int"),
        (["--results", "made/mine", "--expected", "made/mine", "--tolerance", "x"], "tolerance is 'x'", "METRIC="),
        (["--results", "made/mine", "--expected", "made/mine", "--tolerance", "-1"], "tolerance is -1.0", ">= 0"),
        (["--results", "made/mine", "--expected", "made/mine", "--tolerance", "nan"], "tolerance is nan", "finite"),
        (["--results", "made/mine", "--expected", "made/mine", "--tolerance", "fd=1e999"], "of fd is inf", "finite"),
        (["--results", "made/mine", "--expected", "made/mine"], "holds no tables to compare with", "mse.csv"),
    ],
    "features": [
        ([], "command", "required"),
        (["fetch"], "argument command: invalid choice: 'fetch'", "fetch-inception"),
        (["fetch-inception", "--fast"], "argument '--fast'", "known:"),
    ],
    "rendering": [
        ([], "notebook, page", "required"),
        (["nowhere.ipynb", "page.html"], "nowhere.ipynb does not exist", "execute it first"),
        (["file", "page.html"], "file cannot be read", "JSON"),
    ],
    "minifaces_features": [
        ([], "--out", "required"),
        (["--out", "no/folder/x.safetensors"], "--out no/folder/x.safetensors", "folder does not exist"),
        (["--out", "x", "--images", "many"], "argument --images: invalid int value: 'many'", "int"),
    ],
    "cifar10_training": [
        ([], "--dataset, --out", "required"),
        (["--dataset", "x", "--out", "y", "--epochs", "x"], "argument --epochs: invalid int value: 'x'", "int"),
        (["--dataset", "x", "--out", "y", "--precision", "float16"], "invalid choice: 'float16'", "bfloat16"),
    ],
}  # fmt: skip


def said(module, arguments, capsys, monkeypatch):
    """(exit code, stdout, stderr) of `python -m debiaslib.<module> arguments`, in this process."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        with warnings.catch_warnings(), no_longer_than(20):
            warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: the module has been imported before
            runpy.run_module(f"debiaslib.{module}", run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


def test_every_bad_argument_is_one_line(tally, place, capsys, monkeypatch, reached):
    for module, cases in COMMANDS.items():
        importlib.import_module(f"debiaslib.{module}")  # the loading of libraries is no time of ours
        for arguments, *parts in cases:
            before, started, problem = tally.listing(), time.process_time(), None
            try:
                code, shown, line = said(module, arguments, capsys, monkeypatch)
                if code != 2 or shown or not line.endswith("\n"):
                    problem = f"exit code {code}, {shown!r}"
            except Exception as error:
                line, problem = "\n", f"{type(error).__name__}: {error}"[:300]
            seconds = time.process_time() - started  # which does not depend on what else the machine does
            tally.judge(f"{module} {' '.join(arguments)}"[:150], line[:-1], parts, seconds, problem)
            if tally.listing() != before:
                tally.problems.append(f"{module} {arguments}: writes {set(tally.listing()) - set(before)}")
    if (tally.watched / "results").exists():
        tally.problems.append(f"there are results: {sorted(map(str, (tally.watched / 'results').rglob('*')))}")
    tally.settle(reached, "bad arguments of commands")
