"""The report of an experiment: every figure and table with its caption, what was run and how long it took, on one page.

    python -m debiaslib.report --experiment quick

Numbers come from the saved tables and records alone. What is missing is said, not guessed.
"""

import base64
import html
import re
from pathlib import Path

import jinja2

from ..cli import experiment_parser, run_command
from ..errors import InputError
from ..figures.draw import FIGURES
from ..files import read_json, write_text
from ..paths import results_root
from ..study.experiment import load_experiment
from ..training.config import run_name
from . import records as report_records
from . import tables as report_tables
from .mathml import markdown_to_html
from .notebook_html import describe_commit, make_page, render_notebook
from .result_tables import write_result_tables
from .verdicts import all_verdicts

__all__ = ["build_report", "main"]

_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def build_report(experiment, dataset="", results=""):
    """Render the executed notebooks of results/<experiment>/ to pages and write report.html; return its path.

    experiment: a name in config/ or the path of a YAML file. Raises InputError if there are no results, and as
    `render_notebook` does.
    """
    settings = load_experiment(experiment, dataset)
    folder = results_root(results) / settings.name
    if not folder.is_dir():
        raise InputError(f"there are no results in {folder}; `make reproduce EXPERIMENT={settings.name}` makes them")
    write_result_tables(folder, settings.runs)
    judged = all_verdicts(folder)
    write_text(folder / "tables" / "verdicts.csv", judged.to_csv(index=False))
    for notebook in sorted(folder.glob("notebooks/[!.]*.ipynb")):
        if not notebook.name.endswith(".failed.ipynb"):
            write_text(notebook.with_suffix(".html"), render_notebook(notebook))
    write_text(folder / "report.html", _report_page(settings, folder, judged))
    return folder / "report.html"


def _report_page(experiment, folder, judged):
    made, figures = report_records.records(experiment, folder), _figures(folder)
    makers = (report_tables.runs, report_tables.distances, report_tables.errors, report_tables.shares)
    pages = sorted(folder.glob("notebooks/[!.]*.html"))
    commits = dict.fromkeys(describe_commit(record) for record in made.values())
    title = f"Experiment {experiment.name}"
    body = _JINJA.get_template("report.html.j2").render(
        title=title,
        record=" · ".join([f"{len(figures)} figures", f"{len(experiment.runs)} trainings", *commits]),
        gate=_gate(experiment, folder),
        statement=report_records.statement(experiment, folder),
        verdicts=None if judged.empty else _verdicts(judged),
        notebooks=[(f"notebooks/{page.name}", _heading(page)) for page in pages],
        figures=figures,
        missing=_missing(experiment, folder, figures, [page.stem for page in pages]),
        tables=[table for make in makers for table in make(experiment, folder)],
        times=report_records.times(made),
        provenance=report_records.provenance(made),
        settings=report_records.settings(experiment),
    )
    return make_page(title, body)


def _gate(experiment, folder):
    """(whether all networks pass the gate, the sentence about it, its table) of tables/gate.csv, or None without it."""
    table = report_tables.read(folder, "gate")
    if table is None:
        return None
    from ..study.gate import gate_line  # lazy: it needs torch

    passed = table[table.arm.isin(experiment.weightings)].passes.all()
    return bool(passed), gate_line(table, experiment.weightings), report_tables.gate(table)


def _verdicts(judged):
    caption = (
        "Each claim, what would refute it, and what the tables say, computed. A ratio is paired by training seed; its "
        "brackets are the 95 % interval. Holds or refuted: the interval lies on one side of 1. No difference: it lies "
        "within 0.9 to 1.1. Open: none of these. One seed shows a direction and has no interval. From "
        "tables/verdicts.csv."
    )
    return report_tables.ReportTable(
        "What the chapters claim, and what was found", caption, judged.set_index("chapter")
    )


def _figures(folder):
    """What the template shows of each figure that is there, in the order of the notebooks."""
    shown = []
    for name in FIGURES:
        image, record = folder / "figures" / f"{name}.png", read_json(folder / "figures" / f"{name}.json")
        if record is not None and image.exists():
            png, caption = base64.b64encode(image.read_bytes()).decode(), markdown_to_html(record["caption"])
            shown.append({"name": name, "title": record["title"], "caption": caption, "png": png})
    return shown


def _missing(experiment, folder, figures, pages):
    """What the experiment asks for and is not there, a line each."""
    there = {figure["name"] for figure in figures}
    lines = report_records.missing_runs(experiment, folder)
    lines += [
        f"figure missing: {spec.title} ({name}), which notebook {spec.notebook} draws"
        for name, spec in FIGURES.items()
        if name not in there
        and spec.notebook in experiment.notebooks
        and not (spec.extra or _is_sentence(folder, name))
    ]
    lines += [f"notebook not executed: {name}" for name in experiment.notebooks if name not in pages]
    tables = ["weights", "mse", "gradient_noise", *(f"distances-{run_name(*run)}" for run in experiment.runs)]
    return lines + [f"table missing: {name}.csv" for name in tables if not (folder / "tables" / f"{name}.csv").exists()]


def _is_sentence(folder, name):
    """Did `draw` say in words why there is no picture?"""
    return "sentence" in (read_json(folder / "figures" / f"{name}.json") or {})


def _heading(page):
    """The title of a rendered notebook."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else page.stem


def main():
    """The command line: write the report of an experiment."""
    arguments = experiment_parser(__doc__.splitlines()[0]).parse_args()
    print(build_report(arguments.experiment, arguments.dataset, arguments.results))


if __name__ == "__main__":
    run_command(main)
