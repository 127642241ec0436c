"""What the reliability tests share: each states the figure it was to reach and the one it did, for RELIABILITY.md."""

import json

import pytest
from refusals import Tally


@pytest.fixture
def reached(record_property):
    """``reached(item, what, wanted, got)`` notes one row of RELIABILITY.md's table; call it after the assertions.

    ``item`` is the number of the list in RELIABILITY.md; the other three are short plain texts.
    """

    def note(item, what, wanted, got):
        record_property("reliability", json.dumps([int(item), str(what), str(wanted), str(got)]))

    return note


@pytest.fixture
def tally(tmp_path, monkeypatch):
    """A `Tally` over a folder that holds the working folder, the results and the cache of what is called."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("results", "cache"):
        monkeypatch.setenv(f"DEBIASLIB_{name.upper()}", str(tmp_path / name))
    return Tally(tmp_path)
