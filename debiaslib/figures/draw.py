"""Draw figures from the saved tables of an experiment, and save them with a record of their data. Imports no torch.

draw("snr", "results/quick")                            # saves figures/snr.{png,pdf,json}, returns the Figure
python -m debiaslib.figures --results results/quick     # draws all of them again
"""

import time
from pathlib import Path

from ..cli import Parser
from ..errors import InputError, check_choice
from ..files import atomic_path, write_json
from ..paths import user_path
from ..provenance import git_state, package_versions
from ..study.saved_tables import Tables
from . import controls, distances, existence, mse_curves, one_step, paper, swap, training, weights  # noqa: F401
from .registry import REGISTERED, NothingToDraw, Sentence
from .style import style

FIGURES = dict(sorted(REGISTERED.items(), key=lambda item: item[1].notebook))  # name: FigureSpec, as they are read


def draw(name, folder, run=""):
    """Draw a figure from the tables in results/<experiment> `folder` and save it; return the matplotlib Figure.

    Writes figures/<name>.png, .pdf and last .json (caption, title, notebook, sha256 of the data, versions); the same
    tables and versions give the same bytes. Where the tables leave nothing to draw, such as a spread over one seed, the
    .json alone is written, with the `Sentence` that is returned. `run` ("constant-s0") chooses the run of a figure
    about one training; without it, debiased's first. Raises InputError for an unknown figure and a missing table.
    """
    spec, path = FIGURES[check_choice("figure", name, FIGURES)], Path(folder) / "figures" / name
    tables, note = Tables(folder, run), path.with_suffix(".json")
    with style():
        try:
            facts, *arguments = spec.load(tables)
            drawn, said = spec.plot(*arguments), {"caption": spec.caption.format(**facts)}
        except NothingToDraw as reason:
            drawn, said, facts = Sentence(reason), {"sentence": str(reason)}, {}
        note.unlink(missing_ok=True)  # it names the data of both pictures, and is written when both are there
        _save(drawn, path, spec.title)
    packages = {key: package_versions()[key] for key in ("debiaslib", "matplotlib", "numpy", "pandas")}
    record = {"title": spec.title, **said, "notebook": spec.notebook, "data": tables.used}
    made_by = f"debiaslib.figures.draw({name!r})"
    write_json(note, {**record, "made_by": made_by, **git_state(), "packages": packages})
    return drawn


def _save(drawn, path, title):
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        if isinstance(drawn, Sentence):
            path.with_suffix(suffix).unlink(missing_ok=True)  # of tables that were there before
            continue
        if suffix == ".png":
            # A grid of images has no layout engine, and keeps the place for the title.
            above = {} if drawn.get_layout_engine() else {"y": 1 - 0.07 / drawn.get_figheight()}
            drawn.suptitle(title, x=0.012, ha="left", va="top", **above)
        with atomic_path(path.with_suffix(suffix)) as made:
            drawn.savefig(made, format=suffix[1:], metadata=metadata)
        drawn.set_layout_engine("none")  # settled by the first drawing: both files, and a notebook, show the same


def main(arguments=None):
    """The command line: draw every figure whose tables are there, one line each. Returns the exit status."""
    parser = Parser(prog="python -m debiaslib.figures", description="Draw every figure again.")
    parser.add_argument("--results", required=True, type=user_path, metavar="FOLDER", help="as in results/quick")
    folder, failed = parser.parse_args(arguments).results, 0
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give an experiment's folder, e.g. results/quick")
    for name, spec in FIGURES.items():
        started, missing = time.perf_counter(), True
        try:
            missing = not Tables(folder).find(spec.table)
            drawn = draw(name, folder)
            said = f"not drawn: {drawn}" if isinstance(drawn, Sentence) else f"{time.perf_counter() - started:.1f} s"
        except InputError as error:
            said, failed = f"{'not drawn' if missing else 'FAILED'}: {error}", failed or int(not missing)
        print(f"{name:20} {said}", flush=True)
    return failed
