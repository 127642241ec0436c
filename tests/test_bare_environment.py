"""The wheel holds the package and its weights, and its weighting works where there is torch and little else.

It is installed away from the checkout into an environment of torch, numpy and their own dependencies. In
tests/test_imports.py imports are blocked on the checkout, in seconds. Here nothing is blocked: what a user of the
weight alone has not installed is not there.
"""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

pytestmark = pytest.mark.slow


def closure(*names):
    """{canonical name: distribution} of packages and of everything they need, without extras."""
    found, left = {}, list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found[name] = distribution(name)
            parsed = map(Requirement, found[name].requires or [])
            left += [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def link(packages, folder):
    """Lend the packages' files to another environment: a link for each folder or file at the top of site-packages."""
    for package in packages:
        for top in {path.parts[0] for path in package.files} - {"..", "__pycache__"}:
            target, there = Path(package.locate_file(top)), folder / top
            if not there.exists() and target.suffix != ".pth":
                there.symlink_to(target)


def build(folder):
    """The wheel, built from a copy: a build leaves its folder behind."""
    source = folder / "source"
    shutil.copytree(ROOT / "debiaslib", source / "debiaslib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *options, str(source)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [path for path in (source / "debiaslib").rglob("*") if path.is_file()]
    assert names == {path.relative_to(source).as_posix() for path in package}
    assert {f"debiaslib/metrics/{name}_features.safetensors" for name in ("minifaces", "cifar10")} <= names
    return wheel


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs a command of the bare environment's Python, from a folder that is no checkout."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    link(closure("torch", "numpy").values(), packages)
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", str(packages), str(build(folder))]
    subprocess.run(install, check=True, timeout=120)
    shutil.rmtree(folder / "source")

    def run(*arguments):
        command = [str(folder / "venv" / "bin" / "python"), "-I", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)

    run.packages = packages
    return run


def test_it_is_bare_and_is_not_the_checkout(bare):
    done = bare(
        "-c",
        "import debiaslib, importlib.metadata, importlib.util\n"
        "print(debiaslib.__file__)\n"
        "print(*sorted({one.metadata['Name'] for one in importlib.metadata.distributions()}))\n"
        "lab = ('diffusers', 'pandas', 'matplotlib', 'seaborn', 'yaml', 'scipy', 'tqdm', 'PIL', 'torchvision')\n"
        "print([name for name in lab if importlib.util.find_spec(name)])\n",
    )
    place, names, lab = done.stdout.splitlines()
    assert Path(place).parent == bare.packages / "debiaslib", done.stderr
    assert {canonicalize_name(name) for name in names.split()} == {*closure("torch", "numpy"), "debiaslib"}
    assert lab == "[]"


def test_the_weight(bare):
    done = bare(
        "-W", "error", "-c",
        "import torch\n"
        "from debiaslib import Schedule, loss_weight, parse_strategy, prediction_target, to_x0_epsilon\n"
        "schedule = Schedule.linear(T=1000)\n"
        "assert torch.allclose(loss_weight('debiased', schedule), schedule.snr.rsqrt())\n"
        "x0, noise = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)\n"
        "v = prediction_target(x0, noise, 500, schedule, 'v_prediction')\n"
        "back = to_x0_epsilon(v, schedule.add_noise(x0, noise, 500), 500, schedule, 'v_prediction')\n"
        "assert torch.allclose(back[0], x0, atol=1e-6) and torch.allclose(back[1], noise)\n"
        "print(round(float(loss_weight('debiased', schedule).mean()), 2))\n",
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("17.82\n", "")


def test_the_table_of_other_trainers(bare):
    done = bare(str(Path(__file__).parents[1] / "docs/trainers.py"))
    assert done.stdout.startswith("| trainer |") and "157" in done.stdout, done.stderr
