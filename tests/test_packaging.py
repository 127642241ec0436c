"""What several files say of the package agrees, the lock is whole, and set-up's messages are one line."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import debiaslib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def requirements():
    """Every requirement of pyproject.toml but those of a cluster's login node: {canonical name: specifier}."""
    extras = [one for name, extra in PROJECT["optional-dependencies"].items() for one in extra if name != "slurm"]
    parsed = [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]
    return {canonicalize_name(one.name): one.specifier for one in parsed}


def locked():
    """{canonical name: (version, number of hashes)} of requirements.lock."""
    found = {}
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        name, version = re.match(r"([\w.-]+)==(\S+)", entry).groups()
        found[canonicalize_name(name)] = version, entry.count("--hash=sha256:")
    return found


def test_the_weight_alone_needs_numpy_and_torch():
    assert sorted(Requirement(text).name for text in PROJECT["dependencies"]) == ["numpy", "torch"]


def test_the_conda_environment_names_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    *conda, last = environment["dependencies"]
    python = next(text for text in conda if text.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert "pip" in conda
    *named, own = last["pip"]
    assert own == "--editable ."
    parsed = [Requirement(text) for text in named]
    assert {canonicalize_name(one.name): one.specifier for one in parsed} == requirements()
    assert len(parsed) == len(requirements())


def test_the_lock_satisfies_pyproject():
    versions = {name: version for name, (version, _) in locked().items()}
    wrong = [
        f"{name}{specifier}: {versions.get(name)}"
        for name, specifier in requirements().items()
        if name not in versions or not specifier.contains(versions[name])
    ]
    assert wrong == []
    # the package itself is built without isolation, with the setuptools of the lock
    build = Requirement(PYPROJECT["build-system"]["requires"][0])
    assert build.specifier.contains(versions[build.name])


def test_the_lock_has_hashes_and_no_addresses():
    assert "://" not in LOCK
    assert not re.search(r"(?m)^\s*--(?!hash=sha256:[0-9a-f]{64})", LOCK)
    assert [name for name, (_, hashes) in locked().items() if not hashes] == []


def test_the_lock_is_exported_from_uvs():
    """Both name the same versions, and uv's has no address but the public registry's."""
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    of_uv = {(canonicalize_name(one["name"]), one["version"]) for one in tomllib.loads(text)["package"]}
    assert {(name, version) for name, (version, _) in locked().items()} <= of_uv


def test_torch_and_torchvision_are_a_pair():
    torch, vision = (Version(locked()[name][0]) for name in ("torch", "torchvision"))
    assert torch > Version("2.13.0") and torch.minor - vision.minor == -14 and vision.major == 0


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == debiaslib.__version__ == citation["version"]


# Set-up


@pytest.fixture
def clone(tmp_path):
    """A folder with an environment that is set up, as far as its files can say."""
    root = tmp_path / "a clone's é"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    stamp = f"{sys.version_info[0]}.{sys.version_info[1]}\n{root.resolve()}\n"
    files = [(root / name).read_text(encoding="utf-8") for name in ("requirements.lock", "pyproject.toml")]
    (root / ".venv" / ".installed").write_text(stamp + "".join(files), encoding="utf-8")
    return root


def set_up(root, *arguments, **variables):
    """(status, what it said) of tools/setup.sh."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | variables
    command = ["sh", root / "tools" / "setup.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_set_up_is_done_once(clone):
    assert set_up(clone) == (0, "") and set_up(clone, "--ready") == (0, "")
    assert set_up(clone, PYTHON=sys.executable) == (0, "")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", ".venv/.installed"])
def test_set_up_sees_a_change(clone, name):
    with open(clone / name, "a") as file:
        file.write("\n#")
    assert set_up(clone, "--ready") == (1, "")


def test_set_up_sees_another_place_and_an_interpreter_that_is_gone(clone):
    moved = clone.rename(clone.parent / "moved")
    assert set_up(moved, "--ready") == (1, "")
    moved = moved.rename(clone)
    assert set_up(moved, "--ready") == (0, "")
    (clone / ".venv" / "bin" / "python").unlink()
    assert set_up(clone, "--ready") == (1, "")


@pytest.mark.parametrize("script", ["exit 127", "case $3 in *ensurepip*) exit 1;; esac; echo 3.9"])
def test_a_python_that_will_not_do(clone, tmp_path, script):
    """As pyenv's shims: on PATH, and failing when called."""
    shim = tmp_path / "python3"
    shim.write_text(f"#!/bin/sh\n{script}\n")
    shim.chmod(0o755)
    status, said = set_up(clone, PYTHON=str(shim))
    assert status == 1 and said.count("\n") == 1
    assert said.startswith("set-up: needs Python 3.11 to 3.14") and f"tried {shim}" in said and "PYTHON=" in said


@pytest.mark.parametrize("name", ["a: b", "{x}", "$x"])
def test_folders_that_hold_no_environment(clone, name):
    (clone / ".venv" / ".installed").unlink()
    status, said = set_up(clone.rename(clone.parent / name))
    assert status == 1 and said.count("\n") == 1 and f"{name}, because of" in said


def test_an_environment_made_by_hand_is_not_thrown_away(clone):
    (clone / ".venv" / ".installed").unlink()
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text("not a program")
    status, said = set_up(clone, PYTHON=sys.executable)
    assert status == 1 and "was made by other means" in said and python.read_text() == "not a program"
