"""The registry of figures: which saved tables each one shows, how it is drawn, and how it is saved. Imports no torch.

from debiaslib import figures
figures.draw("snr", "results/quick")      # saves figures/snr.{png,pdf,json}; a notebook shows the Figure it returns

python -m debiaslib.figures --results results/quick       # draws all of them again from the saved tables
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..cli import Parser, run_command
from ..errors import InputError, check_choice
from ..files import atomic_path, fill_json, naming, read_json, remove_leftovers
from ..provenance import git_state, package_versions
from ..study.saved_tables import PAPER_CURVES, Tables
from . import bias as bias_plots
from . import colour as colour_plots
from . import controls as control_plots
from . import curves as plotting
from . import distances as distance_plots
from . import grids as image_grids
from . import tables as load
from . import weights as weight_plots
from .captions import CAPTIONS
from .style import note, style

__all__ = ["FIGURES", "FigureSpec", "available", "caption", "draw"]


@dataclass(frozen=True)
class FigureSpec:
    """One figure: `tables` are patterns below the experiment's folder, `caption` a template for the facts of `load`."""

    title: str
    caption: str
    notebook: str
    tables: tuple[str, ...]
    load: Callable
    plot: Callable


def _heldout(table):
    if table.empty:
        return note("This data set has no held-out images.")
    return plotting.error_curves(table, ["epsilon_mse", "x0_mse"], ["Error of epsilon", "Error of x0"])


_SOURCES = {  # kind of table: where it lies
    "weights": "tables/weights.csv",
    "gradient_noise": "tables/gradient_noise.csv",
    "one_step": "tables/one_step.npz",
    "mse": "tables/mse.csv",
    "bias": "tables/bias.csv",
    "samples": "tables/samples-*.npz",
    "training": "tables/training-*.npz",
    "log": "runs/*/log.jsonl",
    "distances": "tables/distances-*.csv",
    "controls": "tables/controls.csv",
    "learning_rates": "tables/learning_rates.csv",
    "paper": PAPER_CURVES,
}
_N1, _N2, _N3 = "01_bias_existence", "02_one_step_estimation", "03_mse_step_curves"
_N4, _N5, _N6, _N7 = "04_weighting_comparison", "05_training", "06_fid_evaluation", "07_controls"
_REGISTRY = {  # name: notebook, kind of table, loader, plotting function
    "snr": (_N1, "weights", load.snr, plotting.snr),
    "one_step_anatomy": (_N1, "one_step", load.anatomy, image_grids.one_step_anatomy),
    "samples_by_steps": (_N1, "samples", load.two_samples, image_grids.samples_by_steps),
    "one_step_estimates": (_N2, "one_step", load.estimates, image_grids.one_step_estimates),
    "colour_error": (_N2, "mse", load.errors, partial(plotting.error_curves, quantities=["colour_mse"])),
    "mse_epsilon": (_N3, "mse", load.errors, partial(plotting.mse, quantity="epsilon_mse")),
    "mse_x0": (_N3, "mse", load.errors, partial(plotting.mse, quantity="x0_mse")),
    "excess": (_N3, "mse", load.errors, plotting.excess),
    "mse_heldout": (_N3, "mse", load.heldout, _heldout),
    "signed_bias": (_N3, "bias", load.bias, bias_plots.signed_bias),
    "bias_or_variance": (_N3, "bias", load.bias, bias_plots.bias_or_variance),
    "bias_spectrum": (_N3, "bias", load.bias_spectrum, bias_plots.bias_spectrum),
    "weights": (_N4, "weights", load.weights, plotting.weights),
    "weight_share": (_N4, "weights", load.weights, plotting.weight_share),
    "weights_units": (_N4, "weights", load.weights, plotting.weights_units),
    "weights_logsnr": (_N4, "weights", load.weights, weight_plots.weights_logsnr),
    "gradient_noise": (_N4, "gradient_noise", load.gradient_noise, weight_plots.gradient_noise),
    "samples_all": (_N4, "samples", load.samples, image_grids.samples_by_steps),
    "training_curves": (_N5, "log", load.training_log, plotting.training_curves),
    "training_samples": (_N5, "training", load.training_snapshots, image_grids.training_samples),
    "distance_by_steps": (_N6, "distances", load.by_steps, distance_plots.distance_by_steps),
    "distance_by_images": (_N6, "distances", load.by_images, distance_plots.distance_by_images),
    "colour_by_steps": (_N6, "distances", load.colour_by_steps, colour_plots.colour_by_steps),
    "colour_spread": (_N6, "distances", load.colour_spread, colour_plots.colour_spread),
    "precision_recall": (_N6, "distances", load.by_steps, distance_plots.precision_recall),
    "learning_rates": (_N7, "learning_rates", load.learning_rates, control_plots.learning_rates),
    "control_ratios": (_N7, "controls", load.controls, control_plots.control_ratios),
    "paper_fid": (_N6, "paper", load.paper, distance_plots.paper_fid),
}
FIGURES = {
    name: FigureSpec(title, " ".join(text.split()), notebook, (_SOURCES[kind],), loader, plot)
    for name, (notebook, kind, loader, plot) in _REGISTRY.items()
    for title, text in [CAPTIONS[name]]
}


def available(folder):
    """Names of the figures whose tables are all in the experiment's `folder`, in the order of the registry."""
    return [name for name, spec in FIGURES.items() if not _missing(spec, folder)]


def caption(name, folder, run=""):
    """The caption of a figure, filled from the tables in `folder`. Raises InputError as `draw` does."""
    spec, tables = _find(name), Tables(folder, run or _last_run(name, folder))
    return spec.caption.format(**spec.load(tables)[1])


def draw(name, folder, run=""):
    """Draw a figure from the tables in results/<experiment> `folder` and save it; return the matplotlib Figure.

    Writes figures/<name>.png, .pdf and last .json (caption, title, notebook, sha256 of the data, versions), each whole
    or not at all; the same tables and versions give the same bytes. `run` ("debiased-s0") chooses the run of a figure
    about one training; without it, that of the last time. Raises InputError for an unknown figure and a missing table.
    """
    spec, tables = _find(name), Tables(folder, run or _last_run(name, folder))
    arguments, facts = spec.load(tables)
    figure = spec.plot(**arguments)
    record = {
        "title": spec.title,
        "caption": spec.caption.format(**facts),
        "notebook": spec.notebook,
        "data": tables.used,
        "made_by": f"debiaslib.figures.draw({name!r})",
        **({"run": facts["run"]} if "run" in facts else {}),
        **git_state(),
        "packages": {key: package_versions()[key] for key in ("debiaslib", "matplotlib", "numpy", "pandas")},
    }
    with style():
        _save(figure, Path(folder) / "figures" / name, record)
    return figure


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


def _find(name):
    return FIGURES[check_choice("figure", name, FIGURES)]


def _last_run(name, folder):
    record = read_json(Path(folder) / "figures" / f"{name}.json") or {}
    run = record.get("run", "")
    return run if (Path(folder) / "runs" / run).is_dir() else ""


def _missing(spec, folder):
    for pattern in spec.tables:
        try:
            Tables(folder).find(pattern)
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
        started = time.perf_counter()
        missing = _missing(spec, folder)
        try:
            if not missing:
                draw(name, folder)
            said = f"not drawn: {missing}" if missing else f"{time.perf_counter() - started:.1f} s"
        except InputError as error:
            said, failed = f"FAILED: {error}", 1
        print(f"{name:20} {said}", flush=True)
    return failed


if __name__ == "__main__":
    run_command(main)
