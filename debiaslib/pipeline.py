"""The whole of an experiment with one command: check, train, measure, execute the notebooks, report.

    python -m debiaslib.pipeline --experiment quick
    python -m debiaslib.pipeline --experiment ffhq256 --dry-run

Snakemake orders the work and runs it side by side; this module checks everything before it starts, says what is going
on and how long it will take, and lets no part outlive another. Stop it at any time; the same command goes on where it
was.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from .cli import experiment_parser, run_command
from .config import load_experiment
from .data import load_images
from .errors import InputError, check_choice, check_number
from .files import exclusive
from .paths import absolute, checkout, notebook_files, results_root
from .progress import Progress, last_words
from .runs import check_settings, find_run
from .signals import SUPERVISED

_RERUN_TRIGGERS = ("mtime", "params", "input")  # not "code": a cosmetic edit never retrains


def reproduce(experiment="quick", dataset="", results="", jobs=2):
    """Bring results/<experiment> up to date. Returns the path of its report.

    Raises InputError, before any work, if anything in the experiment, its data or existing results is wrong; and,
    naming the job and its last words, if a job failed.
    """
    settings = load_experiment(experiment, dataset)
    check_number("jobs", jobs, minimum=1, integer=True)
    check_before_start(settings, results)
    folder = results_root(results) / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.html"
    config = {"experiment": absolute(experiment), "dataset": absolute(dataset), "results": str(results_root(results))}
    started, stamp = time.time(), report.stat().st_mtime_ns if report.exists() else None
    print(f"experiment {settings.name}: results go to {folder}", flush=True)
    if stamp is None:
        from .estimate import estimate

        print(estimate(settings).line, flush=True)
    code = _run_engine(settings, folder, config, jobs)
    if code != 0:
        raise InputError(
            last_words(folder, started) or f"the engine ended with code {code}; see {folder / 'logs' / 'engine.log'}"
        )
    if report.stat().st_mtime_ns == stamp:
        print(f"nothing to do: every result is there and up to date\nreport: {report}", flush=True)
    else:
        minutes, seconds = divmod(round(time.time() - started), 60)
        print(f"done in {minutes} min {seconds} s\nreport: {report}", flush=True)
    return report


def check_before_start(settings, results=""):
    """Raise InputError if a device, data or weights are absent, or runs were made with other settings."""
    for name in settings.notebooks:
        check_choice("notebook", name, notebook_files())
    first = settings.train_config(*settings.runs[0])
    if first.device != "cpu":
        from .training import check_device

        check_device(first.device)
    for name in set(settings.features) - {"minifaces", "pooled"}:  # the weights of the others may be absent
        from .features import load_extractor

        load_extractor(name)
    images = load_images(first.dataset, first.resolution, classes=first.classes)
    for arm, seed in settings.runs:
        config = settings.train_config(arm, seed)
        wanted = {**config.to_dict(), **images.identity}
        check_settings(find_run(settings.name, arm, seed, results), wanted)


def _run_engine(settings, folder, config, jobs):
    """Run Snakemake in a process group of its own, show progress meanwhile, and return its exit code."""
    (folder / "logs").mkdir(exist_ok=True)
    threads = settings.train_config(*settings.runs[0]).threads
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "debiaslib.pipeline", "--engine", str(folder), "--jobs", str(jobs)]
    command += [f"--{key}={value}" for key, value in config.items()]
    with open(folder / "logs" / "engine.log", "w", encoding="utf-8") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0)
        with Progress(settings, folder) as progress, _Forward(engine) as forward:
            while engine.poll() is None:
                progress.show()
                time.sleep(0.2)
    if forward.signal is not None:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        sys.exit(128 + forward.signal)
    return engine.returncode


class _Forward:
    """Within this context SIGINT and SIGTERM go to the engine's process group, as SIGINT: trainings save and end."""

    def __init__(self, engine):
        self.engine, self.signal, self._previous = engine, None, {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number, frame):
        first, self.signal = self.signal is None, number
        if self.engine.poll() is None:
            os.killpg(self.engine.pid, signal.SIGINT if first else signal.SIGKILL)

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _engine(folder, jobs, config):
    """Run Snakemake in this process, holding the experiment's lock; end with the group if our parent dies."""
    threading.Thread(target=_end_group_with_parent, args=(os.getppid(),), daemon=True).start()
    os.environ[SUPERVISED] = str(os.getpid())  # for the workers
    sys.argv = ["snakemake", "--snakefile", str(checkout() / "Snakefile"), "--directory", str(folder),
                "--cores", str(jobs),
                "--rerun-incomplete", "--nolock", "--rerun-triggers", *_RERUN_TRIGGERS, "--nocolor", "--keep-going",
                "--config", *(f"{key}={value}" for key, value in config.items() if value)]  # fmt: skip
    # Our own lock replaces Snakemake's: the system frees it however the process ends.
    with exclusive(folder / ".engine.lock", f"the experiment {folder}"):
        runpy.run_module("snakemake", run_name="__main__")


def _end_group_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGINT)
    time.sleep(30)
    os.killpg(0, signal.SIGKILL)


def main():
    """The command line of the whole pipeline."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, default=2, help="how many to run side by side, each with the experiment's threads"
    )
    parser.add_argument("--dry-run", action="store_true", help="start nothing; print what it will cost, part by part")
    parser.add_argument("--tflops", type=float, help="for the estimate: TFLOP/s of the network in training")
    parser.add_argument("--measuring-tflops", type=float, help="for the estimate: in sampling and measuring, float32")
    parser.add_argument("--engine", help="internal: run Snakemake for this folder")
    arguments = parser.parse_args()
    if arguments.engine:
        config = {key: getattr(arguments, key) for key in ("experiment", "dataset", "results")}
        return _engine(Path(arguments.engine), arguments.jobs, config)
    if arguments.dry_run:
        from .estimate import dry_run

        dry_run(arguments.experiment, arguments.dataset, arguments.tflops, arguments.measuring_tflops)
        return 0
    reproduce(arguments.experiment, arguments.dataset, arguments.results, arguments.jobs)
    return 0


if __name__ == "__main__":
    run_command(main)
