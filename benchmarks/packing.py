"""How many trainings side by side give the most images per second on one device? Prints Markdown.

python -m benchmarks.packing --experiment cifar10-h200              # from the root of the checkout: 1 to 4 at once
python -m benchmarks.packing --experiment quick --processes 1 2 --seconds 5

Each is the training that the pipeline runs, `python -m debiaslib.training`, with another seed, in a temporary folder.
The rates are of its own clock, over a time in which all of them are past their start. The best number is JOBS for
`make reproduce`; measurements and notebooks, which the same number of processes does, are not part of it.
"""

import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from debiaslib.cli import experiment_parser, run_command
from debiaslib.errors import InputError, check_number
from debiaslib.study.experiment import load_experiment
from debiaslib.training.run import find_run

WARM_ROWS = 3  # of the log: compiling, and the first passes over memory, lie before them
PATIENCE = 300  # seconds until all of them must be warm


@contextmanager
def trainings(experiment, arguments, count, results):
    """`count` trainings of the experiment's first arm, in processes that end with the block."""
    arm, threads = experiment.runs[0][0], experiment.train_config(*experiment.runs[0]).threads
    named = [f"--{key}={getattr(arguments, key)}" for key in ("experiment", "dataset")]
    command = [sys.executable, "-m", "debiaslib.training", *named, f"--results={results}", f"--weighting={arm}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes = []
    try:
        for seed in range(count):
            with open(Path(results) / f"{seed}.log", "w") as log:
                one = subprocess.Popen([*command, f"--seed={seed}"], stdout=log, stderr=log, env=environment)
            processes.append(one)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()


def measured(experiment, arguments, count):
    """Images per second of each of `count` trainings at once, over the given seconds."""
    with tempfile.TemporaryDirectory() as results, trainings(experiment, arguments, count, results) as processes:
        runs = [find_run(experiment.name, experiment.runs[0][0], seed, results) for seed in range(count)]
        _wait(lambda: all(len(run.log()) >= WARM_ROWS for run in runs), processes, results, PATIENCE)
        before = [run.last_row() for run in runs]
        _wait(lambda: False, processes, results, arguments.seconds, due=True)
        after = [run.last_row() for run in runs]
    for a, b in zip(before, after, strict=True):
        if b["images"] == a["images"]:
            raise InputError(f"a training logged nothing within {arguments.seconds:g} seconds; give more --seconds")
    return [(b["images"] - a["images"]) / (b["seconds"] - a["seconds"]) for a, b in zip(before, after, strict=True)]


def _wait(condition, processes, results, seconds, due=False):
    """Wait for the condition; or, `due`, for the time. Raises InputError if a training ends, or is not warm in time."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        for seed, process in enumerate(processes):
            if process.poll() is not None:
                said = (Path(results) / f"{seed}.log").read_text(errors="replace").strip().splitlines() or ["no output"]
                raise InputError(f"a training ended before it was measured: {said[-1]}")
        time.sleep(0.1)
    if not due and not condition():
        raise InputError(f"{len(processes)} trainings at once are not past their start in {seconds} seconds")


def table(rows):
    """Markdown of {number of processes: images per second of each}."""
    one = sum(rows[min(rows)]) / min(rows)
    lines = ["| processes | images/s each | images/s in all | times one |", "|---|---|---|---|"]
    for count, rates in rows.items():
        each = " ".join(f"{rate:,.0f}" for rate in rates)
        lines.append(f"| {count} | {each} | {sum(rates):,.0f} | {sum(rates) / one:.2f} |")
    return "\n".join(lines)


def main():
    """Measure and print."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, __doc__.partition("\n\n")[2]
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4], help="how many at once")
    parser.add_argument("--seconds", type=float, default=15, help="to measure each number for (default: 15)")
    arguments = parser.parse_args()
    check_number("seconds", arguments.seconds, above=0)
    experiment, rows = load_experiment(arguments.experiment, arguments.dataset), {}
    for count in arguments.processes:
        check_number("processes", count, minimum=1, integer=True)
    config = experiment.train_config(*experiment.runs[0])
    for count in arguments.processes:
        rows[count] = measured(experiment, arguments, count)
        print(f"{count} at once: {sum(rows[count]):,.0f} images/s", file=sys.stderr, flush=True)
    what = f"{experiment.name}, {config.precision} on {config.device}, batches of {config.batch_size}"
    print(f"{what}; {platform.machine()}, {os.cpu_count()} cores; {datetime.date.today()}\n\n{table(rows)}")


if __name__ == "__main__":
    run_command(main)
