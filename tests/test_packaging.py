"""What is said of the package in several files is said alike, the lock is whole, and set-up's messages are one line."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import debiaslib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def load_bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


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
    assert "http" not in re.sub(r"(?m)^(httpcore|httpx|aiohttp)\S*==", "", LOCK)
    assert not re.search(r"(?m)^\s*--(?!hash=sha256:[0-9a-f]{64})", LOCK)
    assert [name for name, (_, hashes) in locked().items() if not hashes] == []


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == debiaslib.__version__ == citation["version"]
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].split(":")[0] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]
    paper = citation["preferred-citation"]
    assert paper["title"] == "Unmasking Bias in Diffusion Model Training"
    assert paper["title"] in citation["title"] and paper["title"] in PROJECT["description"]
    assert [one["family-names"] for one in paper["authors"]] == ["Yu", "Shen", "Huang", "Li", "Zhao"]
    assert [one["value"] for one in paper["identifiers"]] == ["arXiv:2310.08442"]


def test_the_wheel_holds_the_package_and_its_weights(tmp_path):
    # In a copy: a build leaves its folder behind, and what lies there gets into the next wheel.
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("debiaslib", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "debiaslib").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {"debiaslib/minifaces_features.safetensors", "debiaslib/cifar10_features.safetensors"} <= package
    assert {name for name in names if ".dist-info/" not in name} == package


# Set-up


def test_bootstrap_reads_as_old_python():
    ast.parse((ROOT / "tools" / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_the_supported_pythons_are_those_of_pyproject():
    supported = SpecifierSet(PROJECT["requires-python"])
    for minor in range(6, 20):
        text = bootstrap.python_problem((3, minor, 1), "/usr/bin/python3")
        assert (text is None) == supported.contains(f"3.{minor}.1")
        if text:
            assert f"/usr/bin/python3 is 3.{minor}.1" in text and "3.11 to 3.14" in text and "PYTHON=" in text
            assert "\n" not in text


def test_no_venv_module():
    assert bootstrap.venv_problem() is None
    text = bootstrap.venv_problem(
        lambda name: None if name == "ensurepip" else object(), (3, 12, 3), "/usr/bin/python3"
    )
    assert text.startswith("/usr/bin/python3 lacks the module ensurepip")
    assert "apt install python3-venv (or python3.12-venv)" in text and "\n" not in text


def test_no_torch_for_intel_macs():
    assert bootstrap.platform_problem("linux", "x86_64") is None
    assert bootstrap.platform_problem("darwin", "arm64") is None
    assert "Intel Macs" in bootstrap.platform_problem("darwin", "x86_64")


def test_too_little_disk(tmp_path):
    folder = str(tmp_path / "not" / "yet")
    assert bootstrap.disk_problem(folder, free=15 * 10**9) is None
    assert bootstrap.disk_problem(folder, free=10 * 10**9, present=6 * 10**9) is None
    text = bootstrap.disk_problem(folder, free=9.14e9)
    assert text.startswith(f"9.1 GB free in {tmp_path}, and the set-up needs 15 GB") and "\n" not in text


@pytest.fixture
def clone(tmp_path):
    """A folder with an environment that is set up, as far as its files can say."""
    root = tmp_path / "a clone é"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    (root / ".venv" / ".installed").write_text(json.dumps(bootstrap.wanted(str(root))))
    return root


def test_set_up_is_done_once(clone):
    assert bootstrap.ready(str(clone))
    done = subprocess.run(["sh", clone / "tools" / "setup.sh"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", ".venv/.installed"])
def test_set_up_sees_a_change(clone, name):
    with open(clone / name, "a") as file:
        file.write("\n#")
    assert not bootstrap.ready(str(clone))


def test_set_up_sees_another_python_and_another_place(clone):
    assert not bootstrap.ready(str(clone), version=(3, 99, 0))
    assert not bootstrap.ready(str(clone.rename(clone.parent / "moved")))


def test_a_python_that_does_not_run(clone, tmp_path):
    """As pyenv's shims: on PATH, and failing when called."""
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\necho 'no such command' >&2\nexit 127\n")
    shim.chmod(0o755)
    command = ["sh", clone / "tools" / "setup.sh"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env={"PYTHON": str(shim)})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"set-up: no working Python among: {shim}") and done.stderr.count("\n") == 1


def test_an_environment_made_by_hand_is_not_thrown_away(clone):
    (clone / ".venv" / ".installed").unlink()
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / ".venv" / "bin" / "python").write_text("not a program")
    with pytest.raises(bootstrap.SetupError, match="was made by other means"):
        bootstrap.make_venv(str(clone))
    assert (clone / ".venv" / "bin" / "python").read_text() == "not a program"
