"""The weight needs torch and numpy alone, and a configuration is checked without torch. (Layers: import-linter.)"""

import subprocess
import sys
from pathlib import Path

import pytest

import debiaslib

PACKAGE = Path(__file__).resolve().parent.parent / "debiaslib"
WITHOUT_TORCH = [
    "errors", "paths", "files", "diffusion.strategies", "training.arms", "training.settings", "training.config",
    "training.run", "study.presets", "study.experiment", "study.controls", "study.compare", "study.saved_tables",
    "metrics.statistics", "metrics.colour", "figures.draw",
]  # fmt: skip

BARE = """
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    '''An environment of the standard library, torch, numpy and what those two cannot start without.'''
    allowed = {*sys.stdlib_module_names, "debiaslib", "torch", "torchgen", "functorch", "numpy", "typing_extensions"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"{name} is not in a bare environment", name=name)

sys.meta_path.insert(0, Bare())
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)


def bare(code):
    return python(BARE + code)


def test_the_bare_environment_is_bare():
    names = ["diffusers", "pandas", "matplotlib", "filelock", "yaml", "scipy", "datasets", "tqdm", "PIL"]
    done = bare(
        f"import importlib\nfor name in {names}:\n    try:\n        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n        print(error)\n"
    )
    assert done.stdout.splitlines() == [f"{name} is not in a bare environment" for name in names]


def test_the_weight_needs_torch_and_numpy_alone():
    done = bare(
        "from debiaslib import loss_weight, Schedule, parse_strategy, to_x0_epsilon, prediction_target, InputError\n"
        "import torch\n"
        "schedule = Schedule.linear(T=1000)\n"
        "for kind in ('epsilon', 'sample', 'v_prediction'):\n"
        "    for name in ('constant', 'debiased', 'p2(k=1,gamma=1)', 'min_snr(gamma=5)', 'soft_min_snr', 'max_snr'):\n"
        "        loss_weight(name, schedule, kind)\n"
        "print(round(float(loss_weight('debiased', schedule).mean()), 2))\n"
        "to_x0_epsilon(torch.zeros(1, 3), schedule.add_noise(torch.zeros(1, 3), torch.ones(1, 3), 5), 5, schedule)\n"
    )
    assert done.stdout == "17.82\n", done.stderr


def test_no_torch():
    done = python(
        f"import importlib, sys\nfor name in {WITHOUT_TORCH}:\n    importlib.import_module('debiaslib.' + name)\n"
        "    assert not {'torch', 'diffusers', 'torchvision'} & set(sys.modules), name\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing():
    done = python("import sys, debiaslib; print(sorted({'torch', 'numpy', 'yaml', 'pandas'} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_every_public_name_is_there():
    assert dir(debiaslib) == sorted(debiaslib.__all__)
    for name in debiaslib.__all__:
        assert getattr(debiaslib, name) is not None


def test_an_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'loss_wieght'"):
        debiaslib.loss_wieght  # noqa: B018
    with pytest.raises(ImportError):
        from debiaslib import loss_wieght  # noqa: F401
