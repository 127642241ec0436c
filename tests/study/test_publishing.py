"""The published copy of a report: no path of this machine in it, nothing of another time, nothing written over."""

import json
from pathlib import Path

import pytest
from finished_results import write_results

from debiaslib.errors import InputError
from debiaslib.report.report import publish_report
from debiaslib.study.publishing import Redaction


def test_nothing_published_names_this_machine(tmp_path):
    file, results, data = write_results(tmp_path, seeds=(0, 2))
    target = tmp_path / "reference" / "tiny"
    publish_report(target, str(file), str(data), str(results))
    texts = [path for path in target.rglob("*") if path.suffix != ".png" and path.is_file()]
    assert {path.suffix for path in texts} == {".html", ".json", ".csv", ".md", ".tex"}
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert str(tmp_path) not in text and str(Path.home()) + "/" not in text and str(Path.cwd()) not in text, path
        if path.suffix == ".json":
            json.loads(text)
    assert json.loads((target / "records" / "debiased-s2.json").read_text())["config"]["dataset"] == "my pictures"
    chapter = (target / "notebooks" / "01_bias_existence.html").read_text(encoding="utf-8")
    assert '"my pictures"' in chapter and '"results"' in chapter and '"tiny.yaml"' in chapter
    assert sorted(path.name for path in target.iterdir()) == [
        "figures",
        "notebooks",
        "records",
        "report.html",
        "tables",
    ]


def test_publishing_again_and_elsewhere(tmp_path):
    file, results, data = write_results(tmp_path)
    target, named = tmp_path / "out", (str(file), str(data), str(results))
    (results / "tiny" / "tables" / "compare.csv").write_text("of compare, which judges results and is none")
    first = publish_report(target, *named).read_bytes()
    assert not (target / "tables" / "compare.csv").exists()
    (target / "tables" / "distances-old-s0.csv").write_text("of an earlier time")
    assert publish_report(target, *named).read_bytes() == first
    assert not (target / "tables" / "distances-old-s0.csv").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for folder, text in (
        (other, "something else"),
        (other / "mine.txt", "not a folder"),
        (results / "tiny" / "out", "lies within"),
    ):
        with pytest.raises(InputError, match=text):
            publish_report(folder, *named)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


def test_paths_are_replaced_as_wholes(tmp_path):
    folder, data = tmp_path / "res" / "tiny", tmp_path / "a&b"
    redact = Redaction(folder, str(data), "minifaces")
    at = str(tmp_path)
    assert redact(f"{at}/res/tiny/x {at}/a&amp;b {at}/a&b") == "results/tiny/x a&b a&b"
    assert redact(f"{at}/res2 {at}/res-2 minifaces") == f"{at}/res2 {at}/res-2 minifaces"
    assert redact('File "/tmp/ipykernel_12/345.py"') == 'File "345.py"'
    assert redact("A" * 2_000_000) == "A" * 2_000_000  # and not in quadratic time
