"""The folder of the cache."""

import pwd
from pathlib import Path

import pytest

from debiaslib.errors import InputError
from debiaslib.paths import cache_root


def no_user(uid):
    raise KeyError(uid)


def test_without_a_home_no_folder_called_tilde_is_made(monkeypatch, tmp_path):
    monkeypatch.delenv("DEBIASLIB_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "debiaslib"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_user)
    with pytest.raises(InputError, match="there is no such home folder; set DEBIASLIB_CACHE"):
        cache_root()
    monkeypatch.setenv("DEBIASLIB_CACHE", "/somewhere")
    assert cache_root() == Path("/somewhere")
