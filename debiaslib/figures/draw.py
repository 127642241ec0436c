"""Draw figures from the saved tables of an experiment, and save them with a record of their data. Imports no torch.

from debiaslib.figures import draw as figures
figures.draw("snr", "results/quick")      # saves figures/snr.{png,pdf,json}; a notebook shows the Figure it returns

python -m debiaslib.figures --results results/quick       # draws all of them again from the saved tables
"""

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from ..cli import Parser, run_command
from ..errors import InputError, check_choice
from ..files import atomic_path, fill_json, naming, read_json, remove_leftovers
from ..provenance import git_state, package_versions
from ..study.saved_tables import Tables
from . import bias, controls, distances, existence, mse_curves, one_step, paper, swap, training, weights  # noqa: F401
from .registry import REGISTERED, FigureSpec, NothingToDraw, Sentence
from .style import add_title, style

__all__ = ["FIGURES", "FigureSpec", "available", "draw"]

FIGURES = dict(sorted(REGISTERED.items(), key=lambda item: item[1].notebook))  # name: FigureSpec, as they are read


def available(folder):
    """Names of the figures whose tables are in the experiment's `folder`, in the order of the registry."""
    return [name for name, spec in FIGURES.items() if not _missing(spec, folder)]


def draw(name, folder, run=""):
    """Draw a figure from the tables in results/<experiment> `folder` and save it; return the matplotlib Figure.

    Writes figures/<name>.png, .pdf and last .json (caption, title, notebook, sha256 of the data, versions), each whole
    or not at all; the same tables and versions give the same bytes. Where the tables leave nothing to draw, such as a
    spread over one seed, a `Sentence` is returned, and the .json alone is written, with it. `run` ("debiased-s0")
    chooses the run of a figure about one training; without it, that of the last time. Raises InputError for an unknown
    figure and a missing table.
    """
    spec, path = FIGURES[check_choice("figure", name, FIGURES)], Path(folder) / "figures" / name
    tables = Tables(folder, run or _last_run(path))
    with style():
        try:
            facts, *arguments = spec.load(tables)
            figure = spec.plot(*arguments)
        except NothingToDraw as reason:
            return _save_sentence(Sentence(reason), path, _record(name, spec, tables, sentence=str(reason)))
        add_title(figure, spec.title)
        chosen = {"run": facts["run"]} if "run" in facts else {}
        _save(figure, path, _record(name, spec, tables, caption=spec.caption.format(**facts), **chosen))
    return figure


def _record(name, spec, tables, **said):
    packages = {key: package_versions()[key] for key in ("debiaslib", "matplotlib", "numpy", "pandas")}
    record = {"title": spec.title, **said, "notebook": spec.notebook, "data": tables.used}
    return {**record, "made_by": f"debiaslib.figures.draw({name!r})", **git_state(), "packages": packages}


def _save(figure, path, record):
    """All three files are written before one of them has its name, so that they stay of one drawing."""
    with ExitStack() as written:
        files = {suffix: path.with_suffix(suffix) for suffix in (".json", ".pdf", ".png")}
        for file in files.values():
            remove_leftovers(file, older_than=3600)
        made = {suffix: written.enter_context(atomic_path(file)) for suffix, file in files.items()}
        for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
            with naming(files[suffix], made[suffix]):
                figure.savefig(made[suffix], format=suffix[1:], metadata=metadata)
            figure.set_layout_engine("none")  # settled by the first drawing: both files, and a notebook, show the same
        fill_json(made[".json"], files[".json"], record)


def _save_sentence(sentence, path, record):
    with atomic_path(path.with_suffix(".json")) as made:
        fill_json(made, path.with_suffix(".json"), record)
    for suffix in (".pdf", ".png"):  # of tables that were there before
        path.with_suffix(suffix).unlink(missing_ok=True)
    return sentence


def _last_run(path):
    run = (read_json(path.with_suffix(".json")) or {}).get("run", "")
    return run if (path.parent.parent / "runs" / run).is_dir() else ""


def _missing(spec, folder):
    try:
        Tables(folder).find(spec.table)
    except InputError as error:
        return str(error)
    return ""


def main(arguments=None):
    """The command line: draw every figure whose tables are there, one line each. Returns the exit status."""
    parser = Parser(prog="python -m debiaslib.figures", description="Draw every figure again.")
    parser.add_argument("--results", required=True, type=Path, metavar="FOLDER", help="as in results/quick")
    folder = parser.parse_args(arguments).results
    if not folder.is_dir():
        print(f"error: {folder} does not exist; give an experiment's folder, e.g. results/quick", file=sys.stderr)
        return 2
    failed = 0
    for name, spec in FIGURES.items():
        started, missing = time.perf_counter(), _missing(spec, folder)
        try:
            drawn = missing or draw(name, folder)
            said = f"not drawn: {drawn}" if isinstance(drawn, str) else f"{time.perf_counter() - started:.1f} s"
        except InputError as error:
            said, failed = f"FAILED: {error}", 1
        print(f"{name:20} {said}", flush=True)
    return failed


if __name__ == "__main__":
    run_command(main)
