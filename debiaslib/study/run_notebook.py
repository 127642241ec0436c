"""Execute one notebook by papermill, to a private file that is moved into place when every cell ran.

    python -m debiaslib.study.run_notebook 03_mse_step_curves --experiment quick

papermill writes its output non-atomically and marks cells of killed kernels as completed, so neither its file nor its
metadata is trusted: all code cells must have run, and the record is written last.
"""

import sys
import time

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from ..cli import experiment_parser, run_command
from ..errors import InputError, check_choice
from ..files import FULL, atomic_path, exclusive, sha256_file, write_json
from ..paths import absolute, check_results_folder, notebook_files, results_root
from ..provenance import provenance
from ..signals import end_after_signal
from ..store import is_current
from .experiment import load_experiment
from .study import open_study

_TO_END = 7  # seconds


def execute_notebook(name, experiment="quick", dataset="", results="", model=""):
    """Execute notebooks/<name>.ipynb and return the path of the executed copy in results/<experiment>/notebooks/.

    experiment: a name in config/ or the path of a YAML file; relative paths are from the working folder. model: a
    network trained elsewhere in place of the experiment's own, as `study.open_study` takes it; the copy is then in the
    network's folder. Where another process is at the same notebook, this one waits, and takes that copy if it came out
    whole and of equal notebook, parameters, settings, commit and packages; whether the data changed in between is not
    asked.

    Raises InputError, in one line that names the cell, if a cell fails or did not run; the copy is then
    <name>.failed.ipynb. Where the disk takes no more, an OSError names that file, and none is left.
    """
    files = notebook_files()
    source = files[check_choice("notebook", name, files)]
    settings = load_experiment(experiment, dataset)
    folder = check_results_folder(settings.name, results) / "notebooks"
    given = {}
    if model:  # the others do not have this parameter
        where, *rest = model.split(";")
        given["model"] = ";".join([absolute(where.strip()), *rest])
        folder = open_study(experiment, dataset, results, given["model"]).folder / "notebooks"
    parameters = {
        "experiment": absolute(experiment),
        "dataset": absolute(dataset),
        "results": str(results_root(results)),
        **given,
    }
    target, started = folder / f"{name}.ipynb", time.monotonic()
    note = target.with_suffix(".json")
    before = _last_written(note)
    with exclusive(folder / f".{name}.lock", f"the notebook {target}"):
        record = {
            "notebook": name,
            "source_sha256": sha256_file(source),
            "parameters": parameters,
            **provenance(),
        }
        inputs = {"record": record, "settings": settings.to_dict()}
        if _last_written(note) != before and is_current(target, inputs, note):
            print(f"another process has meanwhile executed the notebook {target}", file=sys.stderr, flush=True)
            return target
        with atomic_path(target.with_name(f"{name}.failed.ipynb")) as temporary:
            failure = _execute(source, temporary, parameters)
        if failure:
            raise InputError(f"notebook {name}: {failure}; see {target.with_name(f'{name}.failed.ipynb')}")
        target.with_name(f"{name}.failed.ipynb").replace(target)
        made = {"inputs": inputs, "sha256": sha256_file(target), "seconds": round(time.monotonic() - started, 1)}
        write_json(note, {**record, **made})
    return target


def _last_written(note):
    """When a record was written, or None; not what it says, which a second execution may repeat."""
    return note.stat().st_mtime_ns if note.exists() else None


def _execute(source, target, parameters):
    """Run the notebook; return what went wrong in one line, or None."""
    failure = None
    try:
        papermill.execute_notebook(
            _literal(source),
            _literal(target),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            coalesce_streams=True,
        )
    except PapermillExecutionError as error:
        failure = f"cell {error.cell_index}: {error.ename}: {' '.join(str(error.evalue).split())}"
    except Exception as error:  # a kernel that died, never answered or did not start
        if isinstance(error, OSError) and error.errno in FULL:  # papermill could not write the copy
            raise
        failure = f"the kernel ended: {' '.join(str(error).split()) or type(error).__name__}"
    return failure or _cell_that_did_not_run(nbformat.read(target, as_version=4))


def _literal(path):
    """papermill fills in what stands between braces in a path."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _cell_that_did_not_run(notebook):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            return f"cell {number} did not run"
        for output in cell.get("outputs", []):
            if output.output_type == "error":  # sys.exit(0), which papermill takes for an end like any other
                return f"cell {number}: {output.ename}: {' '.join(output.evalue.split())}"
    return None


def main():
    """The command line: execute the named notebooks."""
    # nbclient gives the kernel 5 s, in which a training saves; a kernel ends after its parent.
    end_after_signal(_TO_END)
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="such as 01_bias_existence")
    parser.add_argument("--model", default="", help="a network trained elsewhere, by folder, file or hub id")
    arguments = parser.parse_args()
    for name in arguments.names:
        execute_notebook(name, arguments.experiment, arguments.dataset, arguments.results, arguments.model)


if __name__ == "__main__":
    run_command(main)
