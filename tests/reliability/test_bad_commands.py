"""Bad arguments of every command, of make, of the environment and of notebooks: one line, exit code 2, nothing done."""

import ast
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from refusals import no_longer_than
from test_data import folder_of

from debiaslib.paths import notebook_files
from debiaslib.study import begin

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
    "trainers": [
        (["--schedule", "cosine"], "argument --schedule: invalid choice: 'cosine'", "linear"),
        (["--figure"], "argument --figure", "expected one argument"),
    ],
    "rendering": [
        ([], "notebook, page", "required"),
        (["nowhere.ipynb", "page.html"], "nowhere.ipynb does not exist", "execute it first"),
        (["file", "page.html"], "file cannot be read", "JSON"),
    ],
    "notebook_form": [(["nowhere.ipynb"], "nowhere.ipynb", "no such notebook"), (["empty"], "empty", "no notebook in")],
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
FILES = {  # experiments, by name
    "mine": "dataset: good",
    "bad": "weighting: [debiased]",
    "odd": "training: {resolution: 18}",
    "cuda": "training: {device: cuda}",
    "zero": "dataset: good\ntraining: {zero_terminal_snr: true}",
    "groups": "dataset: good\ntraining: {network: {block_out_channels: [16, 24]}}",  # for four kinds of blocks
    "notebook": "dataset: good\nnotebooks: [08_more]",
    "circle": "dataset: good\nthen: circle.yaml",
    "then": "dataset: good\nthen: qick",
}


@pytest.fixture
def place(tally):
    """The working folder, with what the commands are given."""
    work = tally.watched / "work"
    folder_of(work / "good", size=16)
    (work / "empty").mkdir()
    (work / "made/mine/tables").mkdir(parents=True)
    (work / "file").write_text("some text")
    for name, text in FILES.items():
        (work / f"{name}.yaml").write_text(f"preset: minifaces16\n{text}\n")
    return work


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
            before, started, problem = tally.listing(), time.monotonic(), None
            try:
                code, shown, line = said(module, arguments, capsys, monkeypatch)
                if code != 2 or shown or not line.endswith("\n"):
                    problem = f"exit code {code}, {shown!r}"
            except Exception as error:
                line, problem = "\n", f"{type(error).__name__}: {error}"[:300]
            seconds = time.monotonic() - started
            tally.judge(f"{module} {' '.join(arguments)}"[:150], line[:-1], parts, seconds, problem)
            if tally.listing() != before:
                tally.problems.append(f"{module} {arguments}: writes {set(tally.listing()) - set(before)}")
    if (tally.watched / "results").exists():
        tally.problems.append(f"there are results: {sorted(map(str, (tally.watched / 'results').rglob('*')))}")
    tally.settle(reached, "bad arguments of commands")


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
            tally.refused(f"{name} {given}", partial(begin, {"In": ["", source, cell], **values, **given}), *parts)
    tally.settle(reached, "bad parameters of notebooks")


PROCESSES = [  # as a user starts them, the environment too
    ("training", ["--weighting", "debaised"], {}, "weighting 'debaised'", "did you mean"),
    ("measurements", ["mes"], {}, "measurement 'mes'", "did you mean"),
    ("pipeline", ["--experiment", "qick"], {}, "experiment 'qick'", "did you mean"),
    ("pipeline", ["--experiment", "mine.yaml"], {"DEBIASLIB_RESULTS": "file"}, "DEBIASLIB_RESULTS is 'file'", "folder"),
    ("pipeline", ["--experiment", "mine.yaml"], {"DEBIASLIB_CACHE": "file"}, "DEBIASLIB_CACHE", "cannot be written"),
    ("pipeline", ["--experiment", "groups.yaml"], {}, "refused by diffusers", "block_out_channels"),
    ("pipeline", ["--experiment", "zero.yaml"], {}, "infinite where SNR = 0", "max_weight"),
    ("execution", ["09"], {}, "notebook '09'", "known:"),
    ("report", ["--experiment", "mine.yaml"], {}, "no results in", "make reproduce"),
    ("figures", ["--results", "nowhere"], {}, "nowhere", "give an experiment's folder"),
    ("compare", ["--results", "nowhere"], {}, "nowhere", "the folder of an experiment's results"),
    ("features", ["fetch"], {}, "'fetch'", "fetch-inception"),
]
MAKE = [
    ({"MINUTES": "abc"}, "argument --minutes: invalid float value: 'abc'", "float"),
    ({"MINUTES": "-1"}, "minutes is -1.0", "> 0"),
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
    """(exit code, stdout, stderr, seconds) of a process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


@pytest.mark.slow
def test_every_command_refuses_in_a_process_of_its_own(tally, place, reached):
    """The seconds are those beyond what loading the command's libraries takes."""
    for module, arguments, environment, *parts in PROCESSES:
        loaded = ["debiaslib.estimate"] if module == "pipeline" else []  # which it starts as a process
        start = run([sys.executable, "-c", f"import {', '.join([f'debiaslib.{module}', *loaded])}"], place)[-1]
        code, shown, line, seconds = run(
            [sys.executable, "-m", f"debiaslib.{module}", *arguments], place, **environment
        )
        problem = f"exit code {code}, {shown!r}, {line!r}" if code != 2 or shown or line.count("\n") != 1 else None
        tally.judge(f"{module} {arguments}", line.strip(), parts, max(0.0, seconds - start), problem)
    assert not (tally.watched / "results").exists()
    tally.settle(reached, "bad arguments of commands as processes")


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
