"""Places that are not what a developer has: odd folders, a source tree, home or results that cannot be written."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import nbformat
import pytest
import setuptools
from places import NOBODY, ROOT, as_nobody, call, clone, environment, git, sealed

from debiaslib import paths
from debiaslib.figures.draw import FIGURES
from debiaslib.paths import notebook_files
from debiaslib.study.snakemake import _config_arguments, _environment

ODD = "Ein Ordner mit Übermaß é #1 {x} it's"
SMOKE = ROOT / "tests" / "smoke.yaml"


def one_line(said):
    assert said.count("\n") <= 1 and len(said.strip()) <= 200 and "Traceback" not in said
    return True


@pytest.mark.parametrize(
    "name", ["quick", "/a #1", "/a: b", "'a' \"b\"", "{x}", "007", "no", " é 😀 ", "a\\b", "x" * 300]
)
def test_the_engine_is_given_names_as_they_are(name):
    from snakemake.cli import parse_config

    assert parse_config(_config_arguments({"results": name, "dataset": ""})) == {"results": name}


def test_relative_folders_are_the_same_for_the_workers(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, value in {"CACHE": "cache", "INCEPTION": "weights"}.items():
        monkeypatch.setenv(f"DEBIASLIB_{name}", value)
    given = _environment(1)
    assert given["DEBIASLIB_CACHE"] == str(tmp_path / "cache")
    assert given["DEBIASLIB_INCEPTION"] == str(tmp_path / "weights")
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(Path(paths.__file__).resolve().parents[1])


def test_a_checkout_of_another_user_is_recorded_too(tmp_path):
    """git refuses to read a folder of another user, as a checkout is in most containers."""
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "debiaslib", source / "debiaslib", ignore=shutil.ignore_patterns("__pycache__"))
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "x"]):
        git(*arguments, cwd=source)
    commit = git("rev-parse", "HEAD", cwd=source).strip()
    subprocess.run(["chown", "-R", str(NOBODY), str(source)], check=True)
    with pytest.raises(subprocess.CalledProcessError):
        git("rev-parse", "HEAD", cwd=source)
    code = "from debiaslib.provenance import git_state; import json; print(json.dumps(git_state()))"
    done = call([sys.executable, "-B", "-c", code], source, environment())
    assert json.loads(done[1]) == {"commit": commit, "clean": True}, done


@pytest.fixture(scope="module")
def away():
    """A folder that every user can enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="debiaslib-")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(away):
    """A fresh clone in a folder with an odd name."""
    return clone(away / ODD)


@pytest.fixture(scope="module")
def sealed_run(source, away):
    """`make reproduce` in the clone, without network, its folder read-only, HOME unset, every path relative."""
    settings = {"SETUP": "no", "EXPERIMENT": "tests/smoke.yaml", "RESULTS": f"../die {ODD}/results", "JOBS": "1"}
    make = ["make", "reproduce", *(f"{name}={value}" for name, value in settings.items())]
    given = environment(HOME=None, DEBIASLIB_CACHE=f"../Zwischenspeicher {ODD}", TMPDIR="/no such folder")
    return call(sealed(source, *make), source, given), away / f"die {ODD}" / "results" / "smoke"


@pytest.mark.slow
def test_a_fresh_clone_reproduces_in_an_odd_folder_offline_and_read_only(source, sealed_run):
    (code, said, errors), folder = sealed_run
    logs = "".join(path.read_text(encoding="utf-8") for path in folder.glob("logs/*.log"))
    assert code == 0, said + errors + logs
    figures = {path.stem for path in (folder / "figures").glob("*.json")}
    notebooks = {path.stem for path in (folder / "notebooks").glob("*.ipynb")}
    assert figures == set(FIGURES) and notebooks == set(notebook_files()) and (folder / "report.html").exists()
    record = json.loads((folder / "runs" / "constant-s0" / "record.json").read_text(encoding="utf-8"))
    assert record["commit"] == git("rev-parse", "HEAD", cwd=source).strip()
    assert not list(folder.parent.glob("Zwischenspeicher*"))  # relative to the clone, whatever a worker's folder is
    assert not (source / "results" / "smoke").exists() and not list(source.rglob("__pycache__"))


@pytest.mark.slow
def test_every_notebook_by_papermill_from_any_folder_offline(source, sealed_run, tmp_path):
    (code, *_), folder = sealed_run
    assert code == 0
    for name in notebook_files():
        parameters = {"experiment": source / "tests" / "smoke.yaml", "results": folder.parent}
        given = [text for key, value in parameters.items() for text in ("-p", key, value)]
        # papermill fills in braces: the path of the notebook is given from a folder above it
        command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", tmp_path / f"{name}.ipynb", *given]
        at = environment(PYTHONPATH=source, HOME=None, DEBIASLIB_CACHE=folder.parents[1] / "cache")
        code, said, errors = call(sealed(source, *map(str, command)), source, at)
        assert code == 0, said + errors
        cells = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells
        assert all(cell.execution_count for cell in cells if cell.cell_type == "code"), name


@pytest.mark.slow
def test_a_user_who_owns_nothing_gets_one_line_or_what_he_asked_for(source, away):
    """Another user's checkout, no home: one line until he names the folders and a home, and then it works."""
    tiny = source / "tests" / "reliability" / "tiny.yaml"
    command = [sys.executable, "-B", "-m", "debiaslib.study.pipeline", "--experiment", str(tiny), "--jobs", "1"]
    nowhere = environment(HOME="/nonexistent")
    own = away / "his own"
    own.mkdir()
    shutil.chown(own, NOBODY, NOBODY)
    lines = []
    for more, env in (
        ([], nowhere),  # results/ of the checkout
        (["--results", str(own / "results")], nowhere),  # a cache below a home that is not there
        (["--results", str(own / "results")], {**nowhere, "DEBIASLIB_CACHE": str(source / "cache")}),
    ):
        code, said, errors = call(as_nobody(*command, *more), source, env)
        assert code == (74 if more else 2) and one_line(errors), said + errors
        lines.append(errors.strip())
    assert "results folder" in lines[0] and all("cannot be opened or written" in line for line in lines[1:])
    usable = {**nowhere, "HOME": str(own), "DEBIASLIB_CACHE": str(own / "cache"), "TMPDIR": "/no such folder"}
    code, said, errors = call(as_nobody(*command, "--results", str(own / "results")), source, usable)
    logs = "".join(path.read_text(encoding="utf-8") for path in own.glob("results/*/logs/*.log"))
    assert code == 0, said + errors + logs
    record = json.loads((own / "results" / "tiny" / "runs" / "constant-s0" / "record.json").read_text("utf-8"))
    assert record["commit"] == git("rev-parse", "HEAD", cwd=source).strip()


@pytest.mark.slow
def test_set_up_in_an_odd_folder(tmp_path):
    """tools/setup.sh itself, with a lock of setuptools alone; the other packages are lent by this environment."""
    root = clone(tmp_path / ODD.replace("{x} ", ""))
    theirs = Path(setuptools.__file__).parent
    (root / "requirements.lock").write_text("", encoding="utf-8")
    venv.create(root / ".venv", with_pip=True)
    (packages,) = (root / ".venv" / "lib").glob("python*/site-packages")
    shutil.rmtree(packages / "setuptools", ignore_errors=True)  # an old one, which Python 3.11 adds to environments
    (packages / "lent.pth").write_text(f"{theirs.parent}\n", encoding="utf-8")
    code, said, errors = call(["make", "plan", "EXPERIMENT=quick"], root, environment(HOME=None, PIP_NO_INDEX="1"))
    assert code == 0 and "set-up: done" in errors and said.startswith("estimate of quick: "), said + errors
    code, said, errors = call(["make", "setup"], root, environment(HOME=None))
    assert (code, said, errors) == (0, "", "")
    where = [root / ".venv" / "bin" / "python", "-c", "import debiaslib; print(debiaslib.__file__)"]
    code, said, errors = call(where, tmp_path, environment())
    assert Path(said.strip()) == root / "debiaslib" / "__init__.py", errors
