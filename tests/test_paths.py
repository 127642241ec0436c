"""Paths as a user writes them: ~ is the home folder, for what is read and for what may leave the machine."""

import os

import pytest

from debiaslib.paths import absolute, cache_root, without_folders


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my pictures").mkdir()
    return tmp_path


def test_a_path_that_exists_becomes_absolute(home, monkeypatch):
    monkeypatch.chdir(home)
    wanted = os.path.join(home, "my pictures")
    assert absolute("my pictures") == absolute("~/my pictures") == wanted
    for text in ("", "minifaces", "uoft-cs/cifar10", "~/none"):
        assert absolute(text) == text


def test_a_cache_without_a_home_is_below_the_working_folder(monkeypatch, tmp_path):
    """As in a container whose user has no entry; it was a trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEBIASLIB_CACHE", "~nobody-of-this-name/cache")
    assert cache_root() == tmp_path / "~nobody-of-this-name/cache"


def test_what_leaves_the_machine_names_no_folder(home):
    given = {"dataset": "~/clients/Jane Doe wedding", "out": ["/a/b", "c/d"], "hub": "uoft-cs/cifar10", "n": 3}
    assert without_folders(given) == {
        "dataset": "Jane Doe wedding",
        "out": ["b", "c/d"],
        "hub": "uoft-cs/cifar10",
        "n": 3,
    }
