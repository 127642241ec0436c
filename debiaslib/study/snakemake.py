"""The engine of the pipeline: Snakemake in a process group of its own, told by a signal to stop, and never orphaned."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from ..files import exclusive
from ..paths import absolute, cache_root, checkout
from ..signals import SUPERVISED, end_with_parent

# "code" is no trigger: a cosmetic edit never retrains. Complete tables of a job that failed are kept (--keep-incomplete
# and `update` in the Snakefile), and the job is done again (--rerun-incomplete). Our own lock replaces Snakemake's: the
# system frees it however the process ends.
_OPTIONS = ("--rerun-triggers", "mtime", "params", "input", "--rerun-incomplete", "--keep-incomplete", "--keep-going",
            "--nolock", "--nocolor")  # fmt: skip

# glibc gives each large block back to the system and asks for it again, which costs a page fault for every 4 KiB. With
# these it keeps the blocks, and a step of the small network takes 0.87 of the time.
_ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}


def engine_log(folder):
    """Where the engine writes what it does."""
    return folder / "logs" / "engine.log"


def start_engine(folder, cores, threads, config, profile=""):
    """Snakemake at work on the rule `all`, as a `subprocess.Popen` whose stdout is its log.

    cores: of all jobs together; threads: of each; config: experiment, dataset and results; profile: the folder of a
    Snakemake profile, which says instead of `cores` where and how many jobs run.
    """
    where = ["--profile", str(Path(profile).resolve())] if profile else ["--cores", str(cores)]
    arguments = ["--snakefile", str(checkout() / "Snakefile"), "--directory", str(folder), *where, *_OPTIONS]
    arguments += ["--config", *_config_arguments(config), "--", "all"]
    command = [sys.executable, "-m", "debiaslib.study.snakemake", str(folder), "profile" if profile else ""]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0,
                            env=_environment(threads), text=True, errors="replace")  # fmt: skip


def _environment(threads):
    """What the engine and its workers find in their environment; folders are absolute, as the workers run elsewhere.

    Without PYTHONPATH they would take whatever debiaslib is installed, which need not be that of this checkout.
    """
    given = {**_ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    given |= {name: absolute(value) for name, value in os.environ.items() if name.startswith("DEBIASLIB_")}
    given["DEBIASLIB_CACHE"] = str(cache_root())
    package = Path(__file__).resolve().parents[2]
    if package == checkout():
        given["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    return given


def _config_arguments(config):
    """`name=value` as Snakemake reads it back: as YAML, where " #" begins a comment, and without quotes at the ends.

    So a value is quoted, and spaces stand around the quotes.
    """
    quoted = {key: yaml.safe_dump(str(value), default_style='"', width=sys.maxsize) for key, value in config.items()}
    return [f"{key}= {quoted[key].strip()} " for key, value in config.items() if value]


class StopSignals:
    """Within this context SIGINT and SIGTERM are kept in `.signal` and go to the group of `.engine`, a `Popen`.

    The first goes there as SIGINT: trainings save a checkpoint and end. A second one ends the group at once.
    """

    signal = engine = None

    def __enter__(self):
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number, frame):
        kind, self.signal = signal.SIGINT if self.signal is None else signal.SIGKILL, number
        if self.engine is not None and self.engine.poll() is None:
            os.killpg(self.engine.pid, kind)

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def main():
    """Run Snakemake in this process, holding the experiment's lock; end with the whole group if our parent dies."""
    folder, profile, *arguments = sys.argv[1:]
    end_with_parent(os.getppid(), _end_group)
    # A shell starts what stands in the background with SIGINT ignored, and we are stopped by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not profile:  # a cluster's jobs are not our children, and end by its own rules
        os.environ[SUPERVISED] = str(os.getpid())  # for the workers
    sys.argv = ["snakemake", *arguments]
    with exclusive(Path(folder) / ".engine.lock", f"the experiment {folder}"):
        runpy.run_module("snakemake", run_name="__main__")


def _end_group():
    os.killpg(0, signal.SIGINT)
    time.sleep(30)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
