"""Trainings that several tests of this room look at."""

import pytest

from debiaslib.training import log
from tests.training import tiny


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A folder of 12 images."""
    return tiny.faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture
def settings(dataset):
    """The settings of a training of 21 steps."""
    return tiny.settings(dataset)


@pytest.fixture
def rows_of_four_steps(monkeypatch):
    """The log's rows cover four steps, so that their sums have to survive a stop; the last covers one."""
    monkeypatch.setattr(log, "ROWS", 5)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Where the uninterrupted training lies."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def uninterrupted(settings, results, rows_of_four_steps):
    """The training of 21 steps, from start to end."""
    return tiny.quietly(settings, results)
