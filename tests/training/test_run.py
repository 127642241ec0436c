"""A run's folder: what is read from it is what was recorded; what a record says of where it was made."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from debiaslib.errors import InputError
from debiaslib.files import write_json
from debiaslib.training.config import TrainConfig
from debiaslib.training.run import Run, check_settings, find_run, run_config

PACKAGE = Path(__file__).resolve().parents[2] / "debiaslib"
STATE = "from debiaslib.provenance import git_state; import json; print(json.dumps(git_state()))"


@pytest.fixture
def run(tmp_path):
    """A complete run with two snapshots."""
    folder = tmp_path / "debiased-s0"
    folder.mkdir()
    snapshots = []
    for images in (500, 12_000):
        content = f"weights after {images}".encode()
        (folder / f"ema-{images}.safetensors").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        snapshots.append({"images": images, "file": f"ema-{images}.safetensors", "sha256": sha256})
    write_json(folder / "record.json", {"snapshots": snapshots})
    return Run(folder)


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# snapshots


def test_a_snapshot_by_its_count_and_the_last(run):
    assert run.name == "debiased-s0"
    assert run.snapshot(500) == run.folder / "ema-500.safetensors"
    assert run.snapshot(12_000) == run.snapshot() == run.folder / "ema-12000.safetensors"


def test_an_unknown_count_lists_the_known(run):
    line = refused(run.snapshot, 501)
    assert "no snapshot at 501 images; known: 500, 12000" in line and str(run.folder) in line


@pytest.mark.parametrize("damage", [lambda content: bytes([content[0] ^ 1]) + content[1:], lambda content: b"", None])
def test_a_damaged_snapshot(run, damage):
    path = run.folder / "ema-500.safetensors"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    line = refused(run.snapshot, 500)
    assert str(path) in line and "missing or damaged" in line
    assert run.snapshot().name == "ema-12000.safetensors"  # the other is as it was


def test_a_run_that_is_not_complete(tmp_path):
    run = Run(tmp_path / "none-s0")
    assert run.config is None and run.record is None and run.log() == []
    assert "is not complete" in refused(run.snapshot)


# the log


def test_the_log(run):
    rows = [{"step": step, "loss": step / 3} for step in range(100)]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run.log() == rows


@pytest.mark.parametrize("damaged", [b"", b"{", b"\0\0\0", b"7", b'{"step": 1, "lo{"step": 1}'])
def test_a_damaged_line_of_an_unfinished_run_is_refused_in_one_line(run, damaged):
    (run.folder / "log.jsonl").write_bytes(b'{"step": 0}\n' + damaged + b'\n{"step": 2}\n')
    with pytest.raises(InputError, match=r"log\.jsonl is damaged in line 2; going on with the run mends it"):
        run.log()


@pytest.mark.parametrize("half", [b"", b"{", b'{"step": 2, "loss": 0.', b"\0\0\0", b'{"note": "\xc3'])
def test_a_half_written_last_line_is_left_out(run, half):
    (run.folder / "log.jsonl").write_bytes(b'{"step": 0}\n{"step": 1}\n' + half)
    assert run.log() == [{"step": 0}, {"step": 1}]


# where results lie


def test_a_run_is_found_by_its_weighting_and_seed(tmp_path, monkeypatch):
    monkeypatch.delenv("DEBIASLIB_RESULTS", raising=False)
    run = find_run("quick", " p2( k = 1 )", 3, results=tmp_path)
    assert run.folder == tmp_path / "quick" / "runs" / "p2-k1-gamma1-s3"
    assert find_run("quick", "p2", 3).folder == PACKAGE.parent / "results" / "quick" / "runs" / "p2-k1-gamma1-s3"
    monkeypatch.setenv("DEBIASLIB_RESULTS", str(tmp_path / "elsewhere"))
    assert find_run("quick", "debiased", 0).folder == tmp_path / "elsewhere" / "quick" / "runs" / "debiased-s0"
    assert find_run("quick", "debiased", 0, results=tmp_path).folder.is_relative_to(tmp_path / "quick")
    monkeypatch.chdir(tmp_path)
    assert (
        find_run("quick", "debiased", 0, results="mine").folder == tmp_path / "mine" / "quick" / "runs" / "debiased-s0"
    )
    with pytest.raises(InputError):
        find_run("quick", "debaised", 0, results=tmp_path)


# provenance


def state_of(folder, **environment):
    """git_state() of the copy of the package in `folder`, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", STATE], cwd=folder, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment})  # fmt: skip
    return json.loads(done.stdout)


def copy_package(folder):
    (folder / "debiaslib").mkdir(parents=True)
    for name in ("__init__", "provenance"):
        shutil.copy(PACKAGE / f"{name}.py", folder / "debiaslib")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_state_of_a_clean_a_changed_and_a_foreign_tree(tmp_path):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path / "one"), "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    copy_package(tmp_path / "one")
    assert state_of(tmp_path / "one") == {"commit": None, "clean": None}
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    assert state_of(tmp_path / "one") == {"commit": git("rev-parse", "HEAD"), "clean": True}
    (tmp_path / "one" / "debiaslib" / "errors.py").open("a").write("# changed\n")
    assert state_of(tmp_path / "one") == {"commit": git("rev-parse", "HEAD"), "clean": False}
    # Installed into an environment that lies in someone else's repository: their commit says nothing of our code.
    copy_package(tmp_path / "one" / "site-packages")
    assert state_of(tmp_path / "one" / "site-packages") == {"commit": None, "clean": None}
    assert state_of(tmp_path / "one", PATH=str(tmp_path)) == {"commit": None, "clean": None}  # there is no git


# settings that differ

CONFIG = TrainConfig(dataset="a", resolution=16, network={"dropout": 0.1}, images=2, batch_size=1, lr=0.1,
                     snapshots=(1, 2))  # fmt: skip
SETTINGS = {**CONFIG.to_dict(), "data_fingerprint": "f"}


@pytest.mark.parametrize(
    "changed, field, complete",
    [
        ({}, None, True),
        ({}, None, False),
        ({"lr": 0.2}, "lr=0.1, not 0.2", True),
        ({"network": {"dropout": 0.2}}, "network.dropout=0.1, not 0.2", True),
        ({"network": {"layers": 2}}, "network.layers=None, not 2", True),
        ({"snapshots": [1]}, "snapshots=[1, 2], not [1]", True),
        ({"new": 3}, "new=None, not 3", True),
        ({"timestep_sampling": "weight"}, "timestep_sampling='uniform', not 'weight'", False),
        ({"dataset": "b"}, None, True),  # the same images under another name
        ({"dataset": "b"}, None, False),
        ({"data_fingerprint": "g"}, "data_fingerprint='f', not 'g'", True),
        ({"dataset": "b", "data_fingerprint": "g"}, "dataset='a', not 'b'", True),
        ({"scale_betas": False}, None, True),  # of an earlier version
        ({"device": "cuda", "threads": 8}, None, True),
        ({"device": "cuda"}, "device='cpu', not 'cuda'", False),  # half a run would be gone on with elsewhere
        ({"threads": 8}, "threads=1, not 8", False),
    ],
)
def test_a_run_made_with_other_settings_is_refused(run, changed, field, complete):
    write_json(run.folder / "config.json", SETTINGS)
    if not complete:
        (run.folder / "record.json").unlink()
    if field is None:
        check_settings(run, {**SETTINGS, **changed})
    else:
        line = refused(check_settings, run, {**SETTINGS, **changed})
        # A long path is cut in the middle.
        assert line.startswith("the run ") and f"{run.folder.name} was made with {field};" in line


def test_an_unfinished_run_is_bound_to_its_number_of_processes(run):
    write_json(run.folder / "config.json", SETTINGS)  # which says none: one
    check_settings(run, SETTINGS, 2)  # complete
    (run.folder / "record.json").unlink()
    check_settings(run, SETTINGS, 1)
    check_settings(run, SETTINGS)
    line = refused(check_settings, run, SETTINGS, 2)
    assert "was made with processes=1, not 2; name another results folder" in line
    check_settings(Run(run.folder / "none-s0"), SETTINGS, 2)  # a new folder takes any


def test_a_schedule_of_an_earlier_version_is_not_taken_for_another(run):
    write_json(run.folder / "config.json", {**SETTINGS, "scale_betas": True})
    for call in (lambda: run_config(run), lambda: check_settings(run, SETTINGS)):
        assert "was made with scale_betas=True" in refused(call)
    write_json(run.folder / "config.json", {**SETTINGS, "scale_betas": False})
    check_settings(run, SETTINGS)
    assert run_config(run) == CONFIG
