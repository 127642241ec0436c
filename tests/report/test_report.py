"""The report: every figure and table with its caption, what is missing, and links that hold."""

import html
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from finished_results import Page, write_results

from debiaslib.errors import InputError
from debiaslib.figures.draw import FIGURES
from debiaslib.report import tables as report_tables
from debiaslib.report.notebook_html import PAGE_LIMIT, loaded_addresses
from debiaslib.report.report import REPORT_LIMIT, build_report, publish_report


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    file, results, data = write_results(root)
    return Page(build_report(str(file), str(data), str(results))), results / "tiny"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    file, results, data = write_results(root, seeds=(0, 1, 2))
    target = root / "reference" / "tiny"
    return Page(publish_report(target, str(file), str(data), str(results))), target, root


def test_the_report_holds_everything(built):
    page, folder = built
    assert loaded_addresses(page.text) == [] and len(page.text.encode()) < REPORT_LIMIT
    captions = re.findall(r"<figcaption><b>Figure (\d+)\. (.*?)\.</b> (.*?)\n", page.text)
    assert [html.unescape(title) for _, title, _ in captions] == [spec.title for spec in FIGURES.values()]
    assert [int(number) for number, _, _ in captions] == list(range(1, len(FIGURES) + 1))
    assert captions[0][2].startswith("About snr &lt; all.")
    assert (
        page.text.count("data:image/png;base64,") == len(FIGURES) and "missing" not in page.text.partition("<body>")[2]
    )
    assert "425,859 parameters is trained 4 times on 500 images of my pictures, 16x16 pixels" in page.text
    assert "constant, debiased, P2 (1, 1), Min-SNR-5" in page.text and "seed 0" in page.text


def test_every_link_leads_to_a_file(built, published):
    for page, folder in (built, published[:2]):
        local = [link for link in page.links if not link.startswith(("https:", "#"))]
        assert len(local) > 60 and [link for link in local if not (folder / link).is_file()] == []
        for chapter in (folder / "notebooks").glob("*.html"):
            assert loaded_addresses(chapter.read_text(encoding="utf-8")) == []
            assert chapter.stat().st_size < PAGE_LIMIT
            for link in Page(chapter).links:
                assert (chapter.parent / link).is_file(), (chapter, link)


def test_the_tables_say_what_the_files_say(built):
    page, folder = built
    rows = page.tables["Trainings"]
    log = pd.read_json(folder / "runs" / "debiased-s0" / "log.jsonl", lines=True)
    assert rows[2][:5] == ["debiased", "0", "128,000", "1 min 40 s", "1,280"] and rows[2][7] == "425,859"
    assert float(rows[2][5]) == pytest.approx(log.loss[-20:].mean(), rel=5e-3)
    table = pd.read_csv(folder / "tables" / "distances-debiased-s0.csv")
    wanted = table[(table.metric == "fd_minifaces") & (table.images_seen == 128_000)].set_index("steps")["value"]
    rows = page.tables["Fréchet distance (MiniFaces features)"]
    assert rows[0][1:] == [str(steps) for steps in (5, 10, 20, 50, 100)]
    assert [float(cell) for cell in rows[2][1:]] == pytest.approx(list(wanted[[5, 10, 20, 50, 100]]), rel=5e-3)
    assert rows[-1][0] == "real images" and rows[-1][1].startswith("0.110: ")
    mse = (
        pd.read_csv(folder / "tables" / "mse.csv")
        .query("split == 'train' and t == 999")
        .set_index(["model", "quantity"])
    )
    rows = {row[0]: row[-1] for row in page.tables["Error of x0 by timestep"]}
    assert rows["weighting"] == "t = 999" and float(rows["floor"]) == pytest.approx(
        mse["mean"]["optimum", "floor"], rel=5e-3
    )
    assert [float(part) for part in rows["debiased"].split(" ± ")] == pytest.approx(
        [mse["mean"]["debiased", "x0_mse"], mse.se["debiased", "x0_mse"]], rel=0.05
    )
    assert "debiased" in dict(row[:2] for row in page.tables["Excess over the optimum by timestep"])
    assert ["constant", "49.9 %", "19.9 %", "9.9 %"] in page.tables["Where the weight lies"]
    assert float(page.tables["Where the weight lies"][2][1].rstrip(" %")) > 90


def test_an_interval_needs_three_seeds(built, published):
    name = "Fréchet distance (MiniFaces features)"
    assert "±" not in "".join(sum(built[0].tables[name], [])) and "one seed, no interval" in built[0].text
    assert all("±" in cell for cell in published[0].tables[name][1][1:])
    assert "mean over 3 seeds ± half the 95 % t-interval" in published[0].text
    assert math.isnan(report_tables.interval([1])) and math.isnan(report_tables.interval([1, 2]))
    assert report_tables.interval([1, 2, 3]) == pytest.approx(4.302652729911275 / np.sqrt(3))
    assert report_tables.spread(2, "") == "mean over 2 seeds, no interval"


def test_times_settings_and_origin(built):
    page, folder = built
    times = dict(page.tables["Time"][1:])
    assert times["training debiased-s0"] == "1 min 40 s" and times["table mse.csv"] == "2.0 s"
    assert times["notebook 05_training"] == "3.0 s"
    tables = len(list((folder / "tables").glob("*.csv"))) - 1  # results.csv is the report's own
    assert times["sum"] == report_tables.duration(4 * 100 + 2 * tables + 7 * 3)
    origin = dict(page.tables["Provenance"][1:])
    assert (
        origin["commit"] == "commit 0123456789ab" and origin["torch"] == "2.10.0" and origin["data, sha256"] == "f" * 64
    )
    settings = dict(page.tables["Settings"][1:])
    assert (
        settings["features"] == "minifaces" and settings["training: lr"] == "0.002" and "training: seed" not in settings
    )


def test_what_is_missing_is_said(tmp_path):
    file, results, _ = write_results(tmp_path, missing=("snr", "excess"))
    folder = results / "tiny"
    for name in (
        "tables/mse.csv",
        "tables/distances-constant-s0.csv",
        "runs/debiased-s0/record.json",
        "tables/distances-real.csv",
    ):
        (folder / name).unlink()
    page = Page(build_report(str(file), "", str(results)))
    for text in ("figure missing: Signal-to-noise", "(<code>excess</code>)", "<code>tables/mse.csv</code>"):
        assert text in page.text
    assert "table missing: <code>tables/distances-constant-s0.csv</code>" in page.text
    assert ["debiased", "seed 0: no complete run"] in page.tables["Trainings"]
    assert "Of the 4 trainings, 3 are complete." in page.text and "Error of x0 by timestep" not in page.tables
    assert "real images" not in dict(row[:2] for row in page.tables["Precision (minifaces)"])


def test_almost_nothing_there(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text("preset: minifaces16\n")
    with pytest.raises(InputError, match="there are no results in .*make reproduce"):
        build_report(str(file), "", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    page = Page(build_report(str(file), "", str(tmp_path)))
    assert page.text.count("figure missing") == len(FIGURES) - 2 and loaded_addresses(page.text) == []


def test_the_command(tmp_path):
    file, results, data = write_results(tmp_path)
    command = [sys.executable, "-m", "debiaslib.report", "--experiment", str(file), "--results", str(results)]
    done = subprocess.run([*command, "--publish", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "out" / "report.html"), done.stderr
    done = subprocess.run([*command[:-1], str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert (
        done.returncode == 2 and done.stderr.startswith("error: there are no results") and done.stderr.count("\n") == 1
    )
