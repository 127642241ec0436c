"""A file is there whole or not at all; a lock is held by one process and freed however that one ends."""

import contextlib
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiaslib import files
from debiaslib.errors import InputError
from debiaslib.files import atomic_path, exclusive, read_json, sha256_json, write_json, write_text

# atomic writes


def test_a_file_appears_when_the_block_is_left(tmp_path):
    path = tmp_path / "deep" / "folder" / "table.csv"
    with atomic_path(path) as temporary:
        assert (
            temporary.parent == path.parent and temporary.suffix == ".csv"
        )  # one file system; pandas reads the suffix
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # not mkstemp's 0600: others may read a result


class Stop(BaseException):
    """As Ctrl-C: no Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
def test_an_error_leaves_the_old_file_and_nothing_beside(tmp_path, error):
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, real=real, name=name: done.append(name) or real(*a))
    write_text(tmp_path / "x", "new")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder


# JSON and hashes


def test_json_and_back(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"text": "é\n\u2028"}, "tiny": 1e-300, "digits": 0.1 + 0.2}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    text = (tmp_path / "x.json").read_text()
    assert list(json.loads(text)) == ["b", "a", "tiny", "digits"] and text.endswith("}\n") and "\n  " in text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_refused_and_the_old_file_kept(tmp_path, number):
    write_json(tmp_path / "x.json", {"loss": 1.0})
    for value in ({"loss": number}, [number], {"deep": {"list": [1, number]}}):
        with pytest.raises(ValueError):
            write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"loss": 1.0}
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1,', b"\xff\xfe", b'{"a": 1} x', b"\0" * 10])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert path.name in str(caught.value) and "is damaged" in str(caught.value) and "\n" not in str(caught.value)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=6)  # fmt: skip


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_sha256_of_json_does_not_depend_on_the_order(value):
    turned = dict(reversed(value.items()))
    assert sha256_json(turned) == sha256_json(value) == sha256_json(json.loads(json.dumps(value)))
    assert sha256_json({**value, "one more": 1}) != sha256_json(value)
    assert sha256_json([value]) != sha256_json(value)


# locks


def test_a_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    path = tmp_path / "deep" / "run.lock"
    with exclusive(path, "the run"):
        pass
    with pytest.raises(KeyError), exclusive(path, "the run"):
        raise KeyError
    with exclusive(path, "the run"):
        pass


def test_leftovers_are_those_of_one_file(tmp_path):
    """Of a long name and one that begins like it, of a name with letters that mean something to a glob."""
    names = ["mse.csv", "mse.csv.json", f"{'long' * 40}.csv", f"{'long' * 40}er.csv", "p2[k=1]*.csv", "p2k.csv"]
    left = {}
    for name in names:
        with contextlib.suppress(KeyboardInterrupt), atomic_path(tmp_path / name) as temporary:
            left[name] = temporary.with_name(temporary.name)
            raise KeyboardInterrupt
        left[name].write_text("half")
        (tmp_path / name).write_text("whole")
    for name in names:
        files.remove_leftovers(tmp_path / name)
        assert not left.pop(name).exists() and all(path.exists() for path in left.values())
        assert (tmp_path / name).read_text() == "whole"
