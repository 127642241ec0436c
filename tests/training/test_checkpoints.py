"""Checkpoints: what is read is what was written, or the one before it, or one line."""

import json
import os
import pickle

import pytest
import torch

from debiaslib.errors import InputError
from debiaslib.files import sha256_file
from debiaslib.training.checkpoints import load_checkpoint, save_checkpoint


def state(value):
    return {"network": {"weight": torch.full((7, 5), float(value))}, "list": [value, {"deep": value}], "seconds": 0.5}


def value(loaded):
    """The number that `state` was made of; every part must agree."""
    number = loaded["list"][0]
    assert torch.equal(loaded["network"]["weight"], state(number)["network"]["weight"])
    assert loaded["list"] == [number, {"deep": number}] and loaded["seconds"] == 0.5
    return number


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of steps 10 and 20."""
    for step in (10, 20):
        save_checkpoint(tmp_path / "checkpoints", step, state(step))
    return tmp_path / "checkpoints"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept_and_nothing_else(folder):
    for step in (30, 40, 1000, 123_456_789):
        save_checkpoint(folder, step, state(step))
        assert len(files(folder)) == 4
    names = [f"step-{step:09d}.{end}" for step in (1000, 123_456_789) for end in ("json", "pt")]
    assert files(folder) == names
    assert load_checkpoint(folder)[0] == 123_456_789


def damage(path, how):
    content = path.read_bytes()
    kind, _, where = how.partition(" at ")
    if kind == "gone":
        path.unlink()
    elif kind == "bit":
        place = int(float(where) * (len(content) - 1))
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    elif kind == "cut":
        path.write_bytes(content[: int(float(where) * len(content))])
    else:
        path.write_bytes(content + b"\0")


DAMAGES = ["bit at 0", "bit at 0.7", "cut at 0", "cut at 0.999", "longer", "gone"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(folder, how, capsys):
    damage(folder / "step-000000020.pt", how)
    step, loaded = load_checkpoint(folder)
    assert (step, value(loaded)) == (10, 10)
    said = capsys.readouterr().err
    assert "step-000000020.pt" in said and "the one before it is tried" in said and said.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '{"step": 20}', '{"step": 20, "sha256": "00"}', "\0"])
def test_a_damaged_note_is_a_damaged_checkpoint(folder, content):
    (folder / "step-000000020.json").write_text(content)
    assert load_checkpoint(folder)[0] == 10


@pytest.mark.parametrize("how", DAMAGES)
def test_where_all_are_damaged_nothing_is_trained_over_them(folder, how):
    for path in folder.glob("*.pt"):
        damage(path, how)
    before = files(folder)
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert f"every checkpoint in {folder} is damaged" in str(caught.value) and "\n" not in str(caught.value)
    assert files(folder) == before


def test_tensors_without_a_note_were_never_finished(folder):
    (folder / "step-000000020.json").unlink()
    assert load_checkpoint(folder)[0] == 10
    (folder / "step-000000010.json").unlink()
    assert load_checkpoint(folder) == (0, None)


def test_a_damaged_later_one_does_not_cost_the_good_ones_their_place(folder):
    damage(folder / "step-000000020.pt", "cut at 0.5")
    for step in (11, 12):
        save_checkpoint(folder, step, state(step))
    damage(folder / "step-000000012.pt", "cut at 0.5")
    assert load_checkpoint(folder)[0] == 11


@pytest.mark.parametrize("fails", ["torch.save", "os.replace"])
def test_a_failed_write_leaves_the_old_ones(folder, fails, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    before = files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(fails, full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, 30, state(30))
    assert files(folder) == before and load_checkpoint(folder)[0] == 20


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))])
def test_a_pickle_that_acts_is_not_executed(folder, tmp_path, capsys, write):
    path = folder / "step-000000020.pt"
    write({"network": Canary(tmp_path / "canary")}, path)
    path.with_suffix(".json").write_text(json.dumps({"step": 20, "sha256": sha256_file(path)}))
    assert load_checkpoint(folder)[0] == 10
    assert "is damaged or not ours" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()
    with open(path, "rb") as file:  # the canary is a real one
        torch.load(file, weights_only=False) if write is torch.save else pickle.load(file)
    assert (tmp_path / "canary").exists()
