"""What the reliability tests share."""

import os

import pytest
from pictures import folder_of
from refusals import Tally

FILES = {  # experiments of `place`, by name
    "mine": "dataset: good",
    "bad": "weighting: [debiased]",
    "cuda": "training: {device: cuda}",
    "zero": "dataset: good\nnotebooks: [06_fid_evaluation]\ntraining: {zero_terminal_snr: true}",
    "groups": "dataset: good\ntraining: {network: {block_out_channels: [16, 24]}}",  # for four kinds of blocks
    "notebook": "dataset: good\nnotebooks: [08_more]",
}


# What a make that runs the tests hands on to its children, and so to every make that a test starts.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "EXPERIMENT", "DATASET", "RESULTS", "JOBS",
           "PROFILE", "PYTHON")  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _no_outer_make():
    """The tests are the same under `make test ARGS=...` as under pytest."""
    taken = {name: os.environ.pop(name) for name in OF_MAKE if name in os.environ}
    yield
    os.environ.update(taken)


@pytest.fixture
def tally(tmp_path, monkeypatch):
    """A `Tally` over a folder that holds the working folder, the results and the cache of what is called."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("results", "cache"):
        monkeypatch.setenv(f"DEBIASLIB_{name.upper()}", str(tmp_path / name))
    return Tally(tmp_path)


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
