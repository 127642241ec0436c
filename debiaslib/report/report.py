"""The report of an experiment: every figure and table with its caption, what was run and how long it took, on one page.

    python -m debiaslib.report --experiment quick

Numbers come from the saved tables and records alone. What is missing is said, not guessed.
"""

import base64
import html
import re
from pathlib import Path

from ..cli import experiment_parser
from ..errors import InputError
from ..figures.draw import FIGURES
from ..files import read_json, write_text
from ..paths import results_root
from ..study.experiment import load_experiment
from ..training.config import run_name
from . import tables
from .notebook_html import TEMPLATES, describe_commit, make_page, markdown_to_html, render_notebook
from .results_read import ResultTables, name_of
from .retest import answers, conclusions
from .verdicts import all_verdicts


def build_report(experiment, dataset="", results=""):
    """Render the executed notebooks of results/<experiment>/ to pages and write report.html; return its path.

    experiment: a name in config/ or the path of a YAML file. Raises InputError if there are no results, and as
    `render_notebook` does.
    """
    settings = load_experiment(experiment, dataset)
    folder = results_root(results) / settings.name
    if not folder.is_dir():
        raise InputError(f"there are no results in {folder}; `make reproduce EXPERIMENT={settings.name}` makes them")
    tables.write_result_tables(folder, settings.runs)
    judged = all_verdicts(folder)
    write_text(folder / "tables" / "verdicts.csv", judged.to_csv(index=False))
    compared = answers(folder)
    if compared.n.max() > 1:  # one seed answers nothing
        write_text(folder / "tables" / "retest.csv", compared.to_csv(index=False))
    for notebook in sorted(folder.glob("notebooks/[!.]*.ipynb")):
        if not notebook.name.endswith(".failed.ipynb"):
            write_text(notebook.with_suffix(".html"), render_notebook(notebook))
    write_text(folder / "report.html", _report_page(settings, folder, judged, compared))
    return folder / "report.html"


def _report_page(experiment, folder, judged, compared):
    made, figures, title = tables.records(experiment, folder), _figures(folder), f"Experiment {experiment.name}"
    config, trained = experiment.train_config(*experiment.runs[0]), [made[k] for k in made if k.startswith("training ")]
    pages = sorted(folder.glob("notebooks/[!.]*.html"))
    commits = dict.fromkeys(describe_commit(record) for record in made.values())
    body = TEMPLATES.get_template("report.html.j2").render(
        title=title,
        record=" · ".join([f"{len(figures)} figures", f"{len(experiment.runs)} trainings", *commits]),
        experiment=experiment,
        config=config,
        dataset=Path(config.dataset).name,
        weightings=", ".join(map(name_of, experiment.weightings)),
        variants=", ".join(map(name_of, experiment.variants)),
        rates=", ".join(f"{name_of(arm)} {float(rate):g}" for arm, rate in experiment.rates.items()),
        made=next(iter(trained), None),
        complete=len(trained),
        gate=_gate(experiment, folder),
        verdicts=None if judged.empty else judged.set_index("chapter"),
        answers=conclusions(compared).set_index("question") if compared.n.max() > 1 else None,
        notebooks=[(f"notebooks/{page.name}", _heading(page)) for page in pages],
        figures=figures,
        missing=_missing(experiment, folder, [page.stem for page in pages]),
        runs=tables.runs(experiment, folder),
        distances=tables.distances(experiment, folder),
        times=tables.times(made),
        provenance=tables.provenance(made),
    )
    return make_page(title, body)


def _gate(experiment, folder):
    """(whether all networks pass the gate, the sentence about it, its table) of tables/gate.csv, or None without it."""
    table = ResultTables(folder)["gate.csv"]
    if table is None:
        return None
    from ..study.gate import gate_line  # lazy: it needs torch

    passed = table[table.arm.isin(experiment.weightings)].passes.all()
    return bool(passed), gate_line(table, experiment.weightings), tables.gate(table)


def _figures(folder):
    """What the template shows of each figure that is there, in the order of the notebooks."""
    shown = []
    for name in FIGURES:
        image, record = folder / "figures" / f"{name}.png", read_json(folder / "figures" / f"{name}.json")
        if record is not None and image.exists():
            png, caption = base64.b64encode(image.read_bytes()).decode(), markdown_to_html(record["caption"])
            shown.append({"name": name, "title": record["title"], "caption": caption, "png": png})
    return shown


def _missing(experiment, folder, pages):
    """What the experiment asks for and is not there, a line each."""
    lines = [f"notebook not executed: {name}" for name in experiment.notebooks if name not in pages]
    names = ["weights", "mse", *(f"distances-{run_name(*run)}" for run in experiment.runs)]
    lines += [f"table missing: {name}.csv" for name in names if not (folder / "tables" / f"{name}.csv").exists()]
    others = [path for path in sorted(folder.glob("tables/distances-*-s*.csv")) if path.stem not in names]
    asked = {"oracle_swap.csv": experiment.swap_timesteps, "controls.csv": "07_controls" in experiment.notebooks}
    others += [folder / "tables" / name for name in asked if not asked[name] and (folder / "tables" / name).exists()]
    others += [Path(f"{page}.ipynb") for page in pages if page not in experiment.notebooks]
    return lines + [f"of earlier settings, and counted until it is removed: {one.name}" for one in others]


def _heading(page):
    """The title of a rendered notebook."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else page.stem


def main(arguments=None):
    """The command line: write the report of an experiment."""
    options = experiment_parser(__doc__.splitlines()[0]).parse_args(arguments)
    print(build_report(options.experiment, options.dataset, options.results))
