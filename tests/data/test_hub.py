"""The hub by commit, and without it by what the caches hold; a silent server costs seconds."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from pictures import chw, message, picture, png

from debiaslib.data import hub
from debiaslib.data.images import load_images


def answer(monkeypatch, revision):
    """Let the hub name this commit, or raise this error."""

    def dataset_info(self, name, **more):
        if isinstance(revision, Exception):
            raise revision
        return SimpleNamespace(sha=revision)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)


@pytest.fixture
def no_copies(monkeypatch, tmp_path):
    """Empty hub caches, whatever this machine has."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))


def hub_rows(count, first=0, labels=None):
    labels = labels or [0] * count
    rows = {"img": [{"bytes": png(picture(first + i)), "path": None} for i in range(count)], "label": labels}
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(3)})
    return datasets.Dataset.from_dict(rows, features)


def test_hub_by_commit_and_then_without_network(tmp_path, monkeypatch, capsys):
    asked = []

    def load_dataset(name, revision=None):
        asked.append(revision)
        return datasets.DatasetDict(train=hub_rows(3, len(asked)), test=hub_rows(2))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    answer(monkeypatch, "commit1")
    first = load_images("owner/name", 8)
    assert first.name == "owner/name" and np.array_equal(first.images[0], chw(picture(1)))
    assert len(load_images("owner/name", 8, "heldout").images) == 2
    asked.clear()
    assert load_images("owner/name", 8).fingerprint == first.fingerprint and asked == []
    answer(monkeypatch, "commit2")
    asked.append(None)
    second = load_images("owner/name", 8)
    assert asked == [None, "commit2"] and second.fingerprint != first.fingerprint
    capsys.readouterr()
    answer(monkeypatch, OSError("Name or service not known"))
    monkeypatch.setattr(hub, "_prepared_commit", lambda splits: "commit2")
    assert load_images("owner/name", 8).fingerprint == second.fingerprint
    assert capsys.readouterr().err.count("\n") == 1 and asked == [None, "commit2", None]


def test_labels_of_the_hub_come_with_the_same_loading(monkeypatch):
    answer(monkeypatch, "a" * 40)
    train = hub_rows(4, labels=[0, 1, 2, 1]).select([3, 0, 2])
    splits, loads = datasets.DatasetDict(train=train, test=hub_rows(2, labels=[2, 0])), []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: loads.append(1) or splits)
    found = load_images("some/labelled", 8, classes=3)
    assert found.labels.tolist() == [1, 0, 2] and np.array_equal(found.images[0], chw(picture(3))) and len(loads) == 1
    assert load_images("some/labelled", 8, "heldout", classes=3).labels.tolist() == [2, 0]


def test_unreachable_hub_says_what_to_do(monkeypatch, no_copies):
    answer(monkeypatch, OSError("Name or service not known"))
    said = message("owner/name", 8)
    assert "'owner/name'" in said and "DATASET=path" in said and "HF_HOME" in said


def test_hub_without_such_a_data_set_or_split(monkeypatch, cache):
    answer(monkeypatch, "commit1")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: datasets.DatasetDict(all=hub_rows(2)))
    assert "has no split 'train'; it has all" in message("owner/name", 8)
    assert load_images("owner/name", 8, "heldout") is None
    assert load_images("owner/name", 8, "heldout", classes=3) is None


def test_a_row_without_image_is_named(monkeypatch):
    answer(monkeypatch, "commit1")
    rows = datasets.concatenate_datasets([hub_rows(2), datasets.Dataset.from_dict(
        {"img": [None], "label": [0]}, hub_rows(1).features)])  # fmt: skip
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: datasets.DatasetDict(train=rows))
    assert "row 2 (from 0) of the hub data set 'owner/name' holds no image" in message("owner/name", 8)
