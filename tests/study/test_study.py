"""A study's tables: made once from named inputs, again from others, never half; and what a reader sees of a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from debiaslib.errors import InputError
from debiaslib.files import sha256_file
from debiaslib.study.study import check_parameters, open_notebook, open_study

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
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, timeout=120, env=environment)
    said = (done.stdout + done.stderr).strip()
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


# The parameters of a notebook: known names of the declared types, or one line; cells as IPython's `In` holds them

DECLARED = """experiment: str = "quick"  # an experiment of config/ by name
weighting: str = "debiased"  # of those in the experiment
seed: int = 0  # of the run
level: float = 0.95  # of the intervals
shown: bool = True  # draw it
steps: list = [2, 5]  # in rows
"""
VALUES = {"experiment": "quick", "weighting": "debiased", "seed": 0, "level": 0.95, "shown": True, "steps": [2, 5]}


def namespace(*cells, **changed):
    """What `globals()` holds after those cells; IPython's `In` begins with an empty entry."""
    return {"In": ["", *cells], **VALUES, **changed}


def refused(*cells, **changed):
    with pytest.raises(InputError) as caught:
        check_parameters(namespace(*cells, **changed))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parameters_that_papermill_gave():
    injected = '# Parameters\nexperiment = "cifar10"\nseed = 3\nlevel = 0.5\nshown = False\nsteps = [1]\n'
    check_parameters(namespace(DECLARED, injected, experiment="cifar10", seed=3, level=0.5, shown=False, steps=[1]))


def test_an_unknown_parameter_names_the_nearest_and_all():
    line = refused(DECLARED, '# Parameters\nexperimnet = "cifar10"\n', experimnet="cifar10")
    assert line.startswith("parameter 'experimnet' is unknown; did you mean 'experiment'?")
    assert line.endswith("known: experiment, weighting, seed, level, shown, steps")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", 1.0, "int"),
        ("seed", True, "int"),  # a bool is an int to Python
        ("experiment", 3, "str"),
        ("level", "0.5", "float"),
        ("shown", 1, "bool"),
        ("steps", 5, "list"),
    ],
)
def test_a_value_of_another_type(name, value, kind):
    for cells in ([DECLARED], [DECLARED, f"# Parameters\n{name} = {value!r}\n"]):
        assert refused(*cells, **{name: value}) == f"parameter {name} is {value!r}; it must be of type {kind}"


def test_a_cell_with_magics_declares_nothing_and_breaks_nothing():
    check_parameters(namespace("%matplotlib inline\nseed: str = 'no'", DECLARED))
