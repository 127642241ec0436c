"""The report of an experiment: every figure and table with its caption, what was run and how long it took, on one page.

    python -m debiaslib.report --experiment quick
    python -m debiaslib.report --experiment quick --publish results/reference/quick

Numbers come from the saved tables and records alone. What is missing is said, not guessed.
"""

import base64
import html
import re
from pathlib import Path

from ..cli import experiment_parser, run_command
from ..errors import InputError
from ..figures.draw import FIGURES
from ..files import read_json, write_text
from ..paths import results_root
from ..study.experiment import load_experiment
from ..study.publishing import Redaction, check_target, copy_published
from ..training.config import run_name
from ..training.published_weights import publish_weights
from . import distances as report_distances
from . import records as report_records
from . import tables as report_tables
from .mathml import with_formulas
from .notebook_html import describe_commit, make_page, render_notebook
from .result_tables import write_result_tables
from .template import TEMPLATE

REPORT_LIMIT = 5_000_000  # bytes
_FILES = ("notebooks/*.html", "notebooks/*.ipynb", "notebooks/*.json", "figures/*.*", "tables/*.*")
_FILES += ("runs/*/config.json", "runs/*/log.jsonl", "runs/*/record.json")


def build_report(experiment, dataset="", results=""):
    """Render the executed notebooks of results/<experiment>/ to pages and write report.html; return its path.

    experiment: a name in config/ or the path of a YAML file. Raises InputError if there are no results, and as
    `rendering.render_notebook` does.
    """
    settings, folder, redact = _open(experiment, dataset, results)
    write_result_tables(folder, settings.runs)
    for notebook in sorted(folder.glob("notebooks/[!.]*.ipynb")):
        if not notebook.name.endswith(".failed.ipynb"):
            write_text(notebook.with_suffix(".html"), redact(render_notebook(notebook)))
    files = sorted(path.relative_to(folder).as_posix() for pattern in _FILES for path in folder.glob(pattern))
    write_text(folder / "report.html", redact(report_page(settings, folder, files)))
    return folder / "report.html"


def publish_report(target, experiment, dataset="", results=""):
    """Build the report and copy what is to be committed into the folder `target`; return the path of its report.html.

    Copied are pages, tables (CSV), figures (PNG) and records, without paths of this machine, and the EMA weights that
    the experiment's `published_weights` names (`published_weights`). Raises InputError as
    `build_report` does, and if `target` holds something else.
    """
    settings, folder, redact = _open(experiment, dataset, results)
    check_target(folder, Path(target))  # before the report is built, which takes a while
    build_report(experiment, dataset, results)
    files = copy_published(folder, target, redact)
    files = sorted([*files, *publish_weights(settings, folder, Path(target), redact)])
    write_text(Path(target) / "report.html", redact(report_page(settings, folder, files)))
    return Path(target) / "report.html"


def _open(experiment, dataset, results):
    settings = load_experiment(experiment, dataset)
    folder = results_root(results) / settings.name
    if not folder.is_dir():
        raise InputError(f"there are no results in {folder}; `make reproduce EXPERIMENT={settings.name}` makes them")
    return settings, folder, Redaction(folder, str(dataset), str(experiment))


def report_page(experiment, folder, files):
    """The HTML of the report: numbers and figures from `folder`, links to `files` (relative to the page) alone."""
    files = [name for name in files if not Path(name).name.startswith(".")]
    made, figures = report_records.records(experiment, folder), _figures(folder, files)
    makers = (report_tables.runs, report_distances.distances, report_distances.long_distances)
    makers += (report_tables.errors, report_tables.shares)
    commits = dict.fromkeys(describe_commit(record) for record in made.values())
    title = f"Experiment {experiment.name}"
    body = TEMPLATE.render(
        title=title,
        record=" · ".join([f"{len(figures)} figures", f"{len(experiment.runs)} trainings", *commits]),
        statement=report_records.statement(experiment, folder),
        notebooks=[(name, _heading(folder / name)) for name in files if re.fullmatch(r"notebooks/.*\.html", name)],
        figures=figures,
        missing_runs=report_records.missing_runs(experiment, folder),
        missing_figures=_missing_figures(experiment, figures),
        missing_notebooks=[name for name in experiment.notebooks if f"notebooks/{name}.html" not in files],
        missing_tables=[name for name in _expected_tables(experiment) if not (folder / name).exists()],
        tables=[table for make in makers for table in make(experiment, folder)],
        times=report_records.times(made),
        provenance=report_records.provenance(made),
        settings=report_records.settings(experiment),
        files=_grouped(files),
    )
    return make_page(title, body, "the report", REPORT_LIMIT)


def _figures(folder, files):
    """What the template shows of each figure that is there, in the order of the notebooks."""
    shown = []
    for name, spec in FIGURES.items():
        image, record = folder / "figures" / f"{name}.png", read_json(folder / "figures" / f"{name}.json")
        if record is None or not image.exists():
            continue
        links = {f"notebook {spec.notebook}": f"notebooks/{spec.notebook}.html"}
        links |= {kind.upper(): f"figures/{name}.{kind}" for kind in ("png", "pdf")}
        shown.append({
            "name": name,
            "title": record["title"],
            "caption": with_formulas(record["caption"]),
            "png": base64.b64encode(image.read_bytes()).decode(),
            "links": [(text, address) for text, address in links.items() if address in files],
        })  # fmt: skip
    return shown


def _missing_figures(experiment, figures):
    there = {figure["name"] for figure in figures}
    wanted = {name: spec for name, spec in FIGURES.items() if spec.notebook in experiment.notebooks}
    return [(name, spec.title, spec.notebook) for name, spec in wanted.items() if name not in there]


def _expected_tables(experiment):
    names = [f"tables/distances-{run_name(*run)}.csv" for run in experiment.runs]
    names += [f"tables/long-{run_name(*run)}.csv" for run in experiment.long_runs]
    return ["tables/weights.csv", "tables/mse.csv", "tables/gradient_noise.csv", *names]


def _heading(page):
    """The title of a rendered notebook."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else page.stem


def _grouped(files):
    """Files as [(folder, [(name, [(kind, path), ...]), ...]), ...]: snr: json, pdf, png."""
    groups = {}
    for path in files:
        folder, _, file = path.rpartition("/")
        name = re.sub(r"((\.csv|\.npz)?\.json|\.[a-z]+)$", "", file)
        groups.setdefault(folder, {}).setdefault(name, []).append((file[len(name) + 1 :], path))
    return [(folder, sorted(entries.items())) for folder, entries in groups.items()]


def main():
    """The command line: write the report of an experiment, or publish it."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument("--publish", metavar="FOLDER", help="also copy what is to be committed into this folder")
    arguments = parser.parse_args()
    named = arguments.experiment, arguments.dataset, arguments.results
    print(publish_report(arguments.publish, *named) if arguments.publish else build_report(*named))


if __name__ == "__main__":
    run_command(main)
