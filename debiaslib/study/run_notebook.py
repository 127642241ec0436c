"""Execute one notebook by papermill, to a private file that is moved into place when every cell ran.

    python -m debiaslib.study.run_notebook 03_mse_step_curves --experiment quick

papermill marks cells of killed kernels as completed, so its metadata is not trusted: all code cells must have run, and
the record is written last. The exit status says what failed (`cli.run_command`): 2 a parameter is wrong, 1 a cell
failed, 3 the kernel was killed, 4 there was too little memory.
"""

import time

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ..cli import experiment_parser, run_command, says_memory
from ..data.images import DRAWN
from ..errors import WorkFailed, check_choice
from ..files import FULL, atomic_path, exclusive, remove_leftovers, sha256_file, write_json
from ..paths import absolute, check_results_folder, notebook_files, results_root, without_folders
from ..provenance import provenance
from ..signals import end_after_signal
from .experiment import known_experiments, load_experiment

_TO_END = 7  # seconds


def execute_notebook(name, experiment="quick", dataset="", results=""):
    """Execute notebooks/<name>.ipynb and return the path of the executed copy in results/<experiment>/notebooks/.

    experiment: a name in config/ or the path of a YAML file. One process executes a notebook at a time.

    Raises WorkFailed, with the exit status of above, in one line that names the cell, if a cell fails or did not run;
    the copy is then <name>.failed.ipynb. Where the disk is full, an OSError names that file, and none is left.
    """
    files = notebook_files()
    source = files[check_choice("notebook", name, files)]
    settings = load_experiment(experiment, dataset)
    folder = check_results_folder(settings.name, results)
    parameters = {"experiment": absolute(experiment, known_experiments()), "dataset": absolute(dataset, DRAWN)}
    parameters |= {"results": str(results_root(results))}
    if name == "05_training" and ("debiased", 0) not in settings.runs:  # its defaults; it would train that network
        arm = "debiased" if "debiased" in settings.weightings else settings.weightings[0]
        parameters |= {"weighting": arm, "seed": settings.seeds[0]}
    target = folder / "notebooks" / f"{name}.ipynb"
    failed, note = target.with_name(f"{name}.failed.ipynb"), target.with_suffix(".json")
    with exclusive(target.with_name(f".{name}.lock"), f"the notebook {target}"):
        started = time.monotonic()
        record = {"notebook": name, "source_sha256": sha256_file(source), "parameters": without_folders(parameters)}
        record |= provenance()
        for path in (failed, note):
            remove_leftovers(path)
        with atomic_path(failed) as temporary:
            failure = _execute(source, temporary, parameters)
        if failure:
            line, status = failure
            raise WorkFailed(f"notebook {name}: {line}; see {failed}", status)
        failed.replace(target)
        made = {"inputs": {"record": dict(record), "settings": settings.to_dict()}, "sha256": sha256_file(target)}
        write_json(note, {**record, **made, "seconds": round(time.monotonic() - started, 1)})
    return target


def _execute(source, target, parameters):
    """Run the notebook; return None, or (what went wrong, exit status)."""
    paths = (str(path).replace("{", "{{").replace("}", "}}") for path in (source, target))  # papermill fills in braces
    options = {"kernel_name": "python3", "progress_bar": False, "coalesce_streams": True}
    try:
        papermill.execute_notebook(*paths, parameters=parameters, **options)
    except PapermillExecutionError as error:
        return _failure(f"cell {error.cell_index}: {error.ename}: {error.evalue}")
    except DeadKernelError:
        return "the kernel was killed, or there was too little memory", WorkFailed.KILLED
    except Exception as error:  # a kernel that never answered or did not start, a text that cannot be written
        if isinstance(error, OSError) and error.errno in FULL:  # papermill could not write the copy
            raise
        return _failure(f"papermill could not execute it: {type(error).__name__}: {error}")
    problem = _cell_that_did_not_run(nbformat.read(target, as_version=4))
    return _failure(problem) if problem else None


def _failure(line):
    if "InputError: " in line:
        return line, 2
    memory = says_memory(line) or "Cannot allocate memory" in line  # the second is the system's own
    return line, WorkFailed.MEMORY if memory else WorkFailed.FAILED


def _cell_that_did_not_run(notebook):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            return f"cell {number} did not run"
        for output in cell.get("outputs", []):
            if output.output_type == "error":  # sys.exit(0), which papermill takes for an end like any other
                return f"cell {number}: {output.ename}: {output.evalue}"
    return None


def main(arguments=None):
    """The command line: execute the named notebooks."""
    # nbclient gives the kernel 5 s, in which a training saves; a kernel ends after its parent.
    end_after_signal(_TO_END)
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="such as 01_bias_existence")
    options = parser.parse_args(arguments)
    for name in options.names:
        execute_notebook(name, options.experiment, options.dataset, options.results)


if __name__ == "__main__":
    run_command(main)
