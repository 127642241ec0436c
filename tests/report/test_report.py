"""The report: every figure and table with its caption, what is missing, and the gate at its top."""

import html
import re

import pandas as pd
import pytest
import yaml
from finished_results import Page, write_results

from debiaslib.errors import InputError
from debiaslib.figures.draw import FIGURES
from debiaslib.report.report import build_report, main
from tests.report.test_notebook_html import loads

FD = "Fréchet distance (MiniFaces features) (minifaces, ddim)"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    file, results, data = write_results(root)
    return Page(build_report(str(file), str(data), str(results))), results / "tiny", root


def test_the_report_holds_everything(built):
    page, folder, root = built
    assert loads(page.text) == [] and str(root) not in page.text and "nan" not in page.text.lower().split()
    captions = re.findall(r"<figcaption><b>Figure (\d+)\. ([^<]*?)\.?</b> <p>(.*?)</p>", page.text)
    assert [html.unescape(title) for _, title, _ in captions] == [spec.title for spec in FIGURES.values()]
    assert "?.</b>" not in page.text
    assert captions[0][2].startswith("About snr &lt; all.") and "missing" not in page.text.partition("<body>")[2]
    assert "425,859 parameters is trained 4 times on 500 images of my pictures, 16x16 pixels" in page.text
    assert "constant, debiased, P2 (1, 1), Min-SNR-5" in page.text and "the seed (0)" in page.text


def test_every_link_leads_to_a_file(built):
    page, folder, _ = built
    assert len(page.links) == 7 and all((folder / link).is_file() for link in page.links)
    for chapter in (folder / "notebooks").glob("*.html"):
        assert loads(chapter.read_text(encoding="utf-8")) == []
        assert all((chapter.parent / link).is_file() for link in Page(chapter).links)


def test_the_tables_say_what_the_files_say(built):
    page, folder, _ = built
    rows = page.tables["Trainings"]
    log = pd.read_json(folder / "runs" / "debiased-s0" / "log.jsonl", lines=True)
    assert rows[2][:5] == ["debiased", "0", "128,000", "1 min 40 s", "1,280"] and rows[2][7] == "425,859"
    assert float(rows[2][5]) == pytest.approx(log.loss[-20:].mean(), rel=5e-3)
    table = pd.read_csv(folder / "tables" / "distances-debiased-s0.csv")
    wanted = table[(table.metric == "fd_minifaces") & (table.images_seen == 128_000)].set_index("steps")["value"]
    rows = page.tables[FD]
    assert rows[0] == ["weighting", "5", "10", "20", "50", "100"] and rows[2][0] == "debiased"
    assert [float(cell) for cell in rows[2][1:]] == pytest.approx(list(wanted[[5, 10, 20, 50, 100]]), rel=5e-3)
    assert (
        "Of 2,048 other real images" not in page.text
        and "other real images in the place of samples: 0.110" in page.text
    )


def test_an_interval_needs_three_seeds(built, tmp_path):
    assert "±" not in "".join(sum(built[0].tables[FD], [])) and "one seed, no interval" in built[0].text
    file, results, data = write_results(tmp_path, seeds=(0, 1, 2))
    page = Page(build_report(str(file), str(data), str(results)))
    assert all("±" in cell for cell in page.tables[FD][1][1:])
    assert "mean ± half the 95 % t-interval over 3 seeds" in page.text
    assert "<td><b>" in page.text and "&lt;b&gt;" not in page.text  # the best of a column, where the seeds tell


def test_times_and_origin(built):
    page, folder, _ = built
    times, origin = dict(page.tables["Time"][1:]), dict(page.tables["Provenance"][1:])
    assert times["training debiased-s0"] == "1 min 40 s" and times["table mse.csv"] == "2.0 s"
    assert times["notebook 05_training"] == "3.0 s" and list(times)[-1] == "sum"
    assert origin["commit"] == "commit 0123456789ab" and origin["torch"] == "2.10.0"
    assert origin["data, sha256"] == "f" * 64


def test_what_is_missing_is_said(tmp_path):
    file, results, _ = write_results(tmp_path, missing=("snr", "excess"))
    folder = results / "tiny"
    gone = ("tables/mse.csv", "tables/distances-constant-s0.csv", "runs/debiased-s0/record.json")
    for name in (*gone, "tables/distances-real.csv"):
        (folder / name).unlink()
    page = Page(build_report(str(file), "", str(results)))
    assert "table missing: mse.csv" in page.text
    stale = folder / "tables" / "distances-debiased-s1.csv"  # of a seed that the experiment had before
    stale.write_text((folder / "tables" / "distances-debiased-s0.csv").read_text())
    (folder / "tables" / "oracle_swap.csv").write_text("t_star\n")
    settings = yaml.safe_load(file.read_text())
    del settings["swap_timesteps"]
    file.write_text(yaml.safe_dump(settings))
    page = Page(build_report(str(file), "", str(results)))
    assert "of earlier settings, and counted until it is removed: distances-debiased-s1.csv" in page.text
    assert "of earlier settings, and counted until it is removed: oracle_swap.csv" in page.text
    assert "table missing: distances-constant-s0.csv" in page.text and page.tables["Trainings"][2][2:] == [""] * 6
    assert "Of the 4 trainings, 3 are complete." in page.text


def gate(folder, error):
    rows = [("constant", 0, 600, error, 0.1, 0.5, 0.125), ("constant", 0, 900, 1.0, 0.2, 1.2, 2.4)]
    table = pd.DataFrame(rows, columns=["arm", "seed", "t", "error", "optimum", "x_t", "limit"])
    table.assign(passes=table.error <= table.limit).to_csv(folder / "tables" / "gate.csv", index=False)


@pytest.mark.parametrize(("error", "said", "kind"), [(0.11, "has learned its task", "passed"),
                                                     (14.0, "has NOT learned its task", "missing")])  # fmt: skip
def test_whether_the_networks_have_learned_stands_at_the_top(tmp_path, error, said, kind):
    file, results, data = write_results(tmp_path)
    gate(results / "tiny", error)
    page = Page(build_report(str(file), str(data), str(results)))
    top = page.text.partition("<h1>")[2][:800]
    assert said in top and f'class="{kind}"' in top and f"{error:.3g} at t = 600" in top
    rows = page.tables["Have the networks learned their task?"]
    assert rows[0] == ["network", "t", "error of x0", "limit", "optimum", "returning x_t", "passes"]
    assert [row[1] for row in rows[1:]] == ["600", "900"] and rows[2][2:] == ["1.00", "2.40", "0.200", "1.20", "yes"]


def test_almost_nothing_there(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text("preset: minifaces16\n")
    with pytest.raises(InputError, match="there are no results in .*make reproduce"):
        build_report(str(file), "", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    page = Page(build_report(str(file), "", str(tmp_path)))
    assert page.text.count("notebook not executed") == 6 and loads(page.text) == []


def test_what_differs_between_the_arms_is_said_and_a_longer_training_offered_last(tmp_path):
    file = tmp_path / "tiny.yaml"
    lines = ["preset: minifaces16", "rates: {constant: 4e-3}", 'variants: ["constant; batch_size=8"]', "longer: photos"]
    file.write_text("\n".join(lines) + "\n")
    (tmp_path / "tiny").mkdir()
    words = " ".join(Page(build_report(str(file), "", str(tmp_path))).text.split())
    assert "the learning rate (constant 0.004), and the seed" in words
    assert "Further arms: constant, batch_size 8. It predicts" in words
    assert words.partition("EXPERIMENT=photos")[2] == "</code></p> </main> </body> </html>"


def test_the_command(tmp_path):
    with pytest.raises(InputError, match="there are no results"):
        main(["--experiment", "quick", "--results", str(tmp_path)])
