"""What is published: notebooks with outputs, tables, figures and records, and nothing of this machine in them."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from finished_results import note, write_results
from nbformat.v4 import new_markdown_cell, new_output

from debiaslib.errors import InputError
from debiaslib.files import read_json
from debiaslib.report.publish import main, publish
from debiaslib.report.report import build_report
from tests.report.test_notebook_html import figure_cell, picture

CHAPTER = "01_bias_existence"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    file, results, data = write_results(root, seeds=(0, 2))
    build_report(str(file), str(data), str(results))
    return results / "tiny", str(file)


@pytest.fixture
def results(finished, tmp_path):
    """A copy of the results that a test may change, and the experiment's file."""
    return shutil.copytree(finished[0], tmp_path / "all" / "tiny"), finished[1]


def change(folder, edit):
    path = folder / "notebooks" / f"{CHAPTER}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def test_what_is_published(finished, tmp_path):
    folder, file = finished
    target = tmp_path / "reference" / "tiny"
    copied = publish(folder, target, file)
    there = sorted(path.name for path in target.iterdir())
    assert there == ["figures", "notebooks", "records", "report.html", "tables"]
    assert copied == sorted(path for path in target.rglob("*") if path.is_file())
    assert {path.suffix for path in copied} == {".html", ".ipynb", ".json", ".csv", ".md", ".png"}
    for path in copied:
        text = path.read_bytes()
        assert str(folder.parent.parent).encode() not in text and str(Path.cwd()).encode() not in text, path
    assert read_json(target / "records" / "debiased-s2.json")["config"]["dataset"] == "my pictures"
    assert read_json(target / "records" / f"{CHAPTER}.json")["seconds"] == 3.0
    assert f'href="notebooks/{CHAPTER}.ipynb"' in (target / "report.html").read_text(encoding="utf-8")
    assert not list((target / "notebooks").glob("*.html"))


def test_a_published_notebook_has_outputs_and_nothing_of_its_execution(results, tmp_path):
    folder, file = results

    def edit(notebook):
        notebook.metadata["papermill"] = {"input_path": "/a/b.ipynb"}
        for cell in notebook.cells:
            cell.metadata["papermill"] = {"duration": 1.0}
            cell.metadata["execution"] = {"iopub.execute_input": "2026"}
        notebook.cells[2].outputs.append(new_output("stream", name="stderr", text="50%|###"))
        notebook.cells.append(new_markdown_cell(f"[8](08_later.ipynb), [1]({CHAPTER}.ipynb)"))

    change(folder, edit)
    publish(folder, tmp_path / "out", file)
    notebook = nbformat.read(tmp_path / "out" / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    nbformat.validate(notebook)
    text = json.dumps(notebook)
    # a chapter of another experiment is where that was published
    assert notebook.cells[-1].source == f"[8](../../quick-seeds/notebooks/08_later.ipynb), [1]({CHAPTER}.ipynb)"
    assert "papermill" not in text and "execute_input" not in text and "50%" not in text
    parameters = 'experiment = "tiny"\ndataset = "my pictures"\nresults = "all results"'
    assert notebook.cells[1].source == parameters
    png = notebook.cells[2].outputs[0]
    assert png.data["image/png"] == picture() and png.metadata["image/png"]["alt"] == "figure"


def test_the_caption_stands_below_its_figure(results, tmp_path):
    folder, file = results
    change(folder, lambda notebook: notebook.cells.append(figure_cell('draw("snr")', picture())))
    note(folder / "figures" / "snr.json", {"title": "SNR", "caption": "Of $t$."})
    publish(folder, tmp_path / "out", file)
    notebook = nbformat.read(tmp_path / "out" / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    assert notebook.cells[-1].outputs[1].data == {"text/markdown": "*SNR.* Of $t$."}
    assert notebook.cells[-1].outputs[0].metadata["image/png"]["alt"] == "SNR"


@pytest.mark.parametrize("where", ["output", "table"])
def test_a_folder_of_this_machine_is_refused(results, tmp_path, where):
    folder, file = results
    home = str(Path.home()) if len(str(Path.home())) > 3 else str(Path.cwd())
    if where == "output":
        output = new_output("stream", name="stdout", text=f"see {home}/results\n")
        change(folder, lambda notebook: notebook.cells[2].outputs.append(output))
    else:
        (folder / "tables" / "weights.csv").write_text(f"file\n{home}/x\n")
    with pytest.raises(InputError, match="which is of this machine") as caught:
        publish(folder, tmp_path / "out", file)
    assert ("weights.csv" if where == "table" else CHAPTER) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_publishing_again_and_elsewhere(results, tmp_path):
    folder, file = results
    target, other = tmp_path / "out", tmp_path / "other"
    (folder / "tables" / "compare.csv").write_text("of compare, which judges results and is none")
    (folder / "notebooks" / "02.failed.ipynb").write_text("{}")
    first = {path: path.read_bytes() for path in publish(folder, target, file)}
    for old in ("tables/distances-old-s0.csv", "figures/old.png", "weights/README.md", "weights/old-s0/config.json"):
        (target / old).parent.mkdir(parents=True, exist_ok=True)
        (target / old).write_text("of an earlier time")
    (folder / "figures" / "old.png").write_bytes(b"of a version that still drew it")
    note(folder / "figures" / "old.json", {"title": "Old"})
    assert {path: path.read_bytes() for path in publish(folder, target, file)} == first
    assert sorted(path for path in target.rglob("*") if path.is_file()) == sorted(first)
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    live = tmp_path / "live"  # results, of which an earlier publication has no runs
    (live / "runs").mkdir(parents=True)
    (live / "records").mkdir()
    (live / "report.html").write_text("a report")
    refused = {other: "something else", live: "something else", folder / "out": "lies within"}
    for place, text in refused.items():
        with pytest.raises(InputError, match=text):
            publish(folder, place, file)
    with pytest.raises(InputError, match="must be the folder of an experiment"):
        publish(tmp_path / "nowhere", target, file)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="is no experiment of config/; name its YAML file with --experiment"):
        publish(folder, target)
    (folder / "report.html").unlink()
    with pytest.raises(InputError, match="has no report.html; complete the experiment"):
        publish(folder, target, file)


def test_the_command(finished, tmp_path, capsys):
    folder, file = finished
    main(["--results", str(folder), "--to", str(tmp_path / "out"), "--experiment", file])
    assert capsys.readouterr().out.endswith(f"MB, in {tmp_path / 'out'}\n")
