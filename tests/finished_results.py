"""What an experiment leaves when it has ended, made by nobody, and a reader of pages: for the tests of the report."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell
from synthetic_results import WEIGHTINGS, write_synthetic_results

from debiaslib.figures.draw import FIGURES
from debiaslib.training.config import run_name
from tests.report.test_notebook_html import figure_cell, picture, write_notebook

PACKAGES = {"torch": "2.10.0", "debiaslib": "0.1.0"}
MADE = {"commit": "0123456789abcdef", "clean": True, "python": "3.11.7", "packages": PACKAGES}
MADE |= {"machine": "Linux x86_64, 2 cores", "device": "cpu", "threads": 1}


class Page(HTMLParser):
    """What a test asks of a page: its links and the cells of its tables, {title of the table: rows}."""

    def __init__(self, path):
        super().__init__()
        self.links, self.tables, self._cell = [], {}, None
        self.text = " ".join(Path(path).read_text(encoding="utf-8").split())
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "table":
            self._rows = self.tables[attributes["aria-label"]] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)
            self._cell = None


def write_results(root, seeds=(0,), missing=()):
    """Results of an experiment `tiny` as the pipeline leaves them; returns (experiment file, results, data)."""
    results, data, folder = root / "all results", root / "my pictures", root / "all results" / "tiny"
    data.mkdir(parents=True)
    file = root / "tiny.yaml"
    chapters = sorted({spec.notebook for spec in FIGURES.values()})
    file.write_text(yaml.safe_dump({"preset": "minifaces16", "weightings": list(WEIGHTINGS), "seeds": list(seeds),
                                    "features": ["minifaces"], "swap_timesteps": [300, 700],
                                    "notebooks": chapters}))  # fmt: skip
    write_synthetic_results(folder, seeds=seeds)
    for path in (folder / "tables").glob("*.csv"):
        note(path.with_name(path.name + ".json"), {"table": path.name, "seconds": 2.0, **MADE})
    for weighting in WEIGHTINGS:
        for seed in seeds:
            run, config = folder / "runs" / run_name(weighting, seed), {"dataset": str(data), "resolution": 16}
            note(run / "config.json", config)
            facts = {"parameters": 425_859, "images": 128_000, "seconds": 100.0, "images_per_second": 1280.0}
            shown = {"name": data.name, "fingerprint": "f" * 64, "images": 500}
            note(run / "record.json", {"config": config, "data": shown, **facts, **MADE})
    for name, spec in FIGURES.items():
        if name not in missing:
            (folder / "figures").mkdir(exist_ok=True)
            (folder / "figures" / f"{name}.png").write_bytes(base64.b64decode(picture()))
            (folder / "figures" / f"{name}.pdf").write_bytes(b"%PDF")
            said = {"title": spec.title, "caption": f"About {name} < all.", "data": []}
            note(folder / "figures" / f"{name}.json", said)
    for name in chapters:
        _write_chapter(folder / "notebooks" / f"{name}.ipynb", name, file, data, results)
    return file, results, data


def _write_chapter(path, name, file, data, results):
    parameters = {"experiment": str(file), "dataset": str(data), "results": str(results)}
    cells = [
        new_markdown_cell(f"# Chapter {name[:2]}\n\n$x_t$ [next](02_one_step_estimation.ipynb)"),
        new_code_cell("\n".join(f'{key} = "{value}"' for key, value in parameters.items()), execution_count=1,
                      metadata={"tags": ["injected-parameters"]}),
        figure_cell('print("drawn")', picture()),
    ]  # fmt: skip
    write_notebook(path, cells)
    note(path.with_suffix(".json"), {"notebook": name, "parameters": parameters, "seconds": 3.0, **MADE})


def note(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
