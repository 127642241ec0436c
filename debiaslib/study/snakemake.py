"""Snakemake as the engine of the pipeline: started, watched, stopped by a signal or a time, and never orphaned."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

from ..files import exclusive
from ..paths import absolute, cache_root, checkout, home_substitutes
from ..signals import SUPERVISED
from .progress import Progress

__all__ = ["TIMED_OUT", "engine_log", "run_engine", "snakemake"]

TIMED_OUT = "timed out"
PATIENCE = 20  # seconds within which workers that were told to stop have saved what they do
_RERUN_TRIGGERS = ("mtime", "params", "input")  # not "code": a cosmetic edit never retrains


def run_engine(settings, folder, config, jobs, targets=("all",), until=None, profile=""):
    """Make `targets` (rules, or files below `folder`), showing progress meanwhile; return the engine's exit code.

    until: seconds of `time.time()` at which the workers are told to stop as by Ctrl-C: trainings save a checkpoint,
    samples stay as far as they are drawn. TIMED_OUT is returned then. A signal to this process does the same and ends
    it with 130 or 143. jobs: how many side by side, each with the experiment's threads; profile: the folder of a
    Snakemake profile, which says instead where and how many run.
    """
    (folder / "logs").mkdir(exist_ok=True)
    threads = settings.train_config(*settings.runs[0]).threads
    command = [sys.executable, "-m", "debiaslib.study.pipeline", "--engine", str(folder), "--jobs", str(jobs * threads)]
    command += [f"--{key}={value}" for key, value in config.items()]
    command += [f"--profile={Path(profile).resolve()}"] if profile else []
    command += ["--targets", *targets]
    with open(engine_log(folder), "a" if until else "w", encoding="utf-8") as log:
        engine = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=_environment(threads), process_group=0
        )
        with Progress(settings, folder) as progress, _Forward(engine) as forward:
            while engine.poll() is None:
                progress.show()
                if until is not None and time.time() >= until:
                    forward.stop(kill=time.time() >= until + PATIENCE)
                time.sleep(0.2)
    if forward.signal is not None:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        sys.exit(128 + forward.signal)
    return TIMED_OUT if forward.stopped else engine.returncode


def _environment(threads):
    """What the engine and its workers find in their environment.

    Workers have the results as their working folder: without PYTHONPATH they would take whatever debiaslib is
    installed, which need not be that of the checkout that the pipeline was started in; and our relative folders would
    be others to them.
    """
    given = {**os.environ, **home_substitutes(), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    ours = {name: absolute(value) for name, value in os.environ.items() if name.startswith("DEBIASLIB_")}
    given |= {**ours, "DEBIASLIB_CACHE": str(cache_root())}
    package = Path(__file__).resolve().parents[2]
    if package == checkout():
        given["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    return given


def engine_log(folder):
    """Where the engine writes what it does."""
    return folder / "logs" / "engine.log"


class _Forward:
    """Within this context SIGINT and SIGTERM go to the engine's process group, as SIGINT: trainings save and end."""

    def __init__(self, engine):
        self.engine, self.signal, self.stopped, self._previous = engine, None, False, {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number, frame):
        first, self.signal = self.signal is None and not self.stopped, number
        self._send(signal.SIGINT if first else signal.SIGKILL)

    def stop(self, kill=False):
        """Tell the group to stop, once; or end it."""
        if not self.stopped or kill:
            self.stopped = True
            self._send(signal.SIGKILL if kill else signal.SIGINT)

    def _send(self, number):
        if self.engine.poll() is None:
            os.killpg(self.engine.pid, number)

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def snakemake(folder, cores, config, targets, profile=""):
    """Run Snakemake in this process, holding the experiment's lock; end with the group if our parent dies."""
    threading.Thread(target=_end_group_with_parent, args=(os.getppid(),), daemon=True).start()
    # A shell starts what stands in the background with SIGINT ignored, and we are stopped by SIGINT: Snakemake would
    # let the workers end and start others.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not profile:  # a cluster's jobs are not our children, and end by its own rules
        os.environ[SUPERVISED] = str(os.getpid())  # for the workers
    sys.argv = ["snakemake", "--snakefile", str(checkout() / "Snakefile"), "--directory", str(folder),
                *(["--profile", profile] if profile else ["--cores", str(cores)]),
                "--rerun-incomplete", "--nolock", "--rerun-triggers", *_RERUN_TRIGGERS, "--nocolor", "--keep-going",
                "--config", *_config_arguments(config), "--", *targets]  # fmt: skip
    # Our own lock replaces Snakemake's: the system frees it however the process ends.
    with exclusive(folder / ".engine.lock", f"the experiment {folder}"):
        runpy.run_module("snakemake", run_name="__main__")


def _config_arguments(config):
    """`name=value` as Snakemake reads it back: as YAML, where " #" begins a comment, and without quotes at the ends.

    So a value is quoted, and spaces stand around the quotes.
    """
    quoted = {key: yaml.safe_dump(str(value), default_style='"', width=sys.maxsize) for key, value in config.items()}
    return [f"{key}= {quoted[key].strip()} " for key, value in config.items() if value]


def _end_group_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGINT)
    time.sleep(30)
    os.killpg(0, signal.SIGKILL)
