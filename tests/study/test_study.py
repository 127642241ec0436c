"""A study's tables: made once from named inputs, again from others, never half; and what a reader sees of a mistake."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from debiaslib.errors import InputError
from debiaslib.files import sha256_file
from debiaslib.study.study import open_notebook, open_study

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"


@pytest.fixture
def study(tmp_path):
    return open_study(SMOKE, "", tmp_path)


INPUTS = {"runs": {"debiased-s0": "ab"}, "t": (0, 5)}


def test_the_record_beside_it(study):
    path = study.table("some.csv", INPUTS, lambda path: path.write_text("made\n"))
    record = json.loads(path.with_name("some.csv.json").read_text())
    assert record["table"] == "some.csv" and record["sha256"] == sha256_file(path)
    assert record["inputs"] == {"runs": {"debiased-s0": "ab"}, "t": [0, 5]}
    assert {"seconds", "commit", "clean", "packages", "python", "device", "threads"} <= set(record)


def test_a_run_that_is_not_there_has_no_identity(study):
    with pytest.raises(InputError, match="is not complete; train it first"):
        study.identity("debiased", 0)


# In a notebook

CELLS = 'experiment: str = "quick"\ndataset: str = ""\nresults: str = ""\n'


def test_a_notebook_begins_with_its_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {"experiment": str(SMOKE), "dataset": "", "results": str(tmp_path)}
    study = open_notebook({"In": ["", CELLS, "# Parameters\nexperiment = 'smoke'"], **given})
    assert study.experiment.name == "smoke" and study.results == tmp_path
    with pytest.raises(InputError, match="did you mean 'experiment'"):
        open_notebook({"In": ["", CELLS, "# Parameters\nexperment = 'smoke'"], **given})
    with pytest.raises(InputError, match="parameter results is 3; it must be of type str"):
        open_notebook({"In": ["", CELLS], **given, "results": 3})


SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("experiment: str = 'quik'\\ndataset: str = ''\\nresults: str = ''", store_history=True)
shell.run_cell("from debiaslib.study.study import open_notebook\\nstudy = open_notebook(globals())", store_history=True)
"""


@pytest.mark.slow  # a process with IPython
def test_a_mistake_stands_in_the_notebook_without_a_traceback():
    environment = {**os.environ, "IPYTHONDIR": os.devnull, "NO_COLOR": "1"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, timeout=120, env=environment)
    said = (done.stdout + done.stderr).strip()
    assert time.monotonic() - started < 100
    shown = [line for line in said.splitlines() if "InputError" in line]
    assert shown == [line for line in said.splitlines() if "quik" in line] and len(shown) == 1, said
    assert shown[0].startswith("InputError: experiment 'quik' is unknown; did you mean 'quick'?")
    assert "Traceback" not in said and "File " not in said


@pytest.mark.parametrize("device, wanted", [("cuda", "ieee"), ("cpu", "tf32")])
def test_measurements_on_a_gpu_are_in_float32(device, wanted, tmp_path):
    import torch

    file, before = tmp_path / "there.yaml", torch.backends.cudnn.conv.fp32_precision
    file.write_text(f"preset: minifaces16\ntraining: {{device: {device}}}\n", encoding="utf-8")
    try:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        assert open_study(file, "", tmp_path).config.device == device
        assert torch.backends.cudnn.conv.fp32_precision == wanted
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
