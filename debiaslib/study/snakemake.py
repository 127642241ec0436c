"""The engine of the pipeline: Snakemake in a process group of its own, told by a signal to stop, and never orphaned."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..errors import WorkFailed
from ..files import exclusive
from ..paths import absolute, cache_root, checkout
from ..signals import SUPERVISED, end_with_parent

# "code" is no trigger: a cosmetic edit never retrains. Complete tables of a job that failed are kept (--keep-incomplete
# and `update` in the Snakefile), and the job is done again (--rerun-incomplete). Our own lock replaces Snakemake's: the
# system frees it however the process ends.
_OPTIONS = ("--rerun-triggers", "mtime", "params", "input", "--rerun-incomplete", "--keep-incomplete", "--keep-going",
            "--nolock", "--nocolor")  # fmt: skip

# glibc gives large blocks back and asks for them again: a page fault for each 4 KiB. With these it keeps the blocks.
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
# What the engine's lines say.
_RULE, _LOG = re.compile(r"(Error in |local)?rule \w+:"), re.compile(r"    log: logs/(.+?)\.log")
_COUNT = re.compile(r"(\d+ of \d+) steps|(waiting for .*)")
_STATUS = re.compile(r"died with <Signals\.\w+: (\d+)>|non-zero exit status (\d+)\.")


def run_engine(folder, cores, threads, config, profile=""):
    """Bring the rule `all` up to date: (exit status, `follow`'s failed jobs, the signal that stopped it or None).

    cores: of all jobs together; threads: of each; config: what the Snakefile reads as `config`; profile: the folder of
    a Snakemake profile, which says instead of `cores` where and how many jobs run. The log is logs/engine.log.
    """
    where = ["--profile", str(Path(profile).resolve())] if profile else ["--cores", str(cores)]
    arguments = ["--snakefile", str(checkout() / "Snakefile"), "--directory", str(folder), *where, *_OPTIONS]
    arguments += ["--config", *_config_arguments(config), "--", "all"]
    command = [sys.executable, "-m", "debiaslib.study.snakemake", str(folder), "profile" if profile else "", *arguments]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with open(folder / "logs" / "engine.log", "a", encoding="utf-8") as log, _forwarded_signals() as stop:
        stop["engine"] = subprocess.Popen(command, process_group=0, env=_environment(threads), **said)
        failed = follow(stop["engine"].stdout, log)
        return stop["engine"].wait(), failed, stop.get("signal")


def _environment(threads):
    """What the engine and its workers find in their environment; folders are absolute, as the workers run elsewhere.

    Without PYTHONPATH they would take whatever debiaslib is installed, which need not be that of this checkout.
    """
    given = {**ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
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


@contextmanager
def _forwarded_signals():
    """SIGINT and SIGTERM are kept under "signal" of the dict given, and go to the process group of its "engine".

    The first goes there as SIGINT: trainings save a checkpoint and end. A second one ends the group at once.
    """
    stop = {}

    def receive(number, frame):
        kind = signal.SIGKILL if "signal" in stop else signal.SIGINT
        stop["signal"] = number
        if "engine" in stop and stop["engine"].poll() is None:
            os.killpg(stop["engine"].pid, kind)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(lines, log, out=None):
    """Copy the engine's `lines` to the file `log`, and say on `out` (stderr) which jobs begin and how many have ended.

    Returns {job: its exit status, 128 and the signal that ended it} of the jobs that failed, named as their logs are.
    """
    started, failing, failed, status = time.monotonic(), False, {}, WorkFailed.FAILED

    def say(text):
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"[{minutes}:{seconds:02d}] {text}", file=out or sys.stderr, flush=True)

    for line in lines:
        log.write(line)
        log.flush()
        if found := _RULE.match(line):
            failing = found[1] == "Error in "
        elif (found := _LOG.match(line)) and failing:
            failed[found[1]], status = status, WorkFailed.FAILED
        elif found:
            say(f"begun: {found[1]}")
        elif found := _COUNT.match(line):
            say(found[2] or f"done: {found[1]} jobs")
        elif found := _STATUS.search(line):  # of the job whose error follows
            status = 128 + int(found[1]) if found[1] else int(found[2])
    return failed


def last_words(folder, failed):
    """Why the jobs of `follow` failed, in one line: the signal, or the last line that each wrote into its log."""
    words = []
    for job, status in failed.items():
        log = folder / "logs" / f"{job}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = errors or [f"{line.strip()} (see {log})" for line in lines if line.strip()] or ["it wrote nothing"]
        killed = f"was killed (signal {status - 128}{'; memory?' if status == 128 + 9 else ''})"
        words.append(f"{job} {killed if status > 128 else f'failed: {said[-1]}'}")
    return "; ".join(words)


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
