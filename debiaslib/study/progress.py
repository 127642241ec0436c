"""What the pipeline does and how long it will take, read from the workers' files. Imports no torch."""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ..training.config import run_name
from ..training.run import Run

# Work is counted in images through the network; a training image costs three: forward, and twice that backward.
_TRAINING_IMAGE, _START, _NOTEBOOK, _CURVES = 3, 8_000, 15_000, 3


@dataclass(frozen=True)
class Job:
    """One job of the pipeline: it is done when `done` exists; `work` is in images through the network."""

    name: str
    done: Path
    log: Path
    work: float
    run: Run | None = None

    def finished(self):
        """The share of the job that is done, in [0, 1]."""
        if self.done.exists():
            return 1.0
        row = self.run.last_row() if self.run else None
        return row["images"] * _TRAINING_IMAGE / self.work if row else 0.0


def plan(experiment, folder):
    """Every job of an experiment with its estimated work."""
    jobs, logs, tables = [], folder / "logs", folder / "tables"
    for arm, seed in experiment.runs:
        name, config = run_name(arm, seed), experiment.train_config(arm, seed)
        run = Run(folder / "runs" / name)
        work = training_work(config) + _START
        jobs.append(Job(f"train {name}", run.folder / "record.json", logs / f"train-{name}.log", work, run))
        done = tables / f"training-{name}.npz.json"
        jobs.append(
            Job(f"measure {name}", done, logs / f"measure-{name}.log", _START + sampling_work(experiment, config))
        )
    for run in experiment.long_runs:
        name = run_name(*run)
        done, work = tables / f"long-{name}.csv.json", _START + long_work(experiment)
        jobs.append(Job(f"many steps {name}", done, logs / f"long-{name}.log", work))
    runs, curves = len(experiment.runs), len(experiment.curve_timesteps) * experiment.curve_images
    jobs.append(Job("measure all", tables / "mse.csv.json", logs / "measure.log", _START + runs * curves * _CURVES))
    for name in experiment.notebooks:
        jobs.append(Job(f"notebook {name}", folder / "notebooks" / f"{name}.json", logs / f"{name}.log", _NOTEBOOK))
    jobs.append(Job("report", folder / "report.html", logs / "report.log", _START))
    return jobs


def training_work(config):
    """The work of a training, in images through the network."""
    return _TRAINING_IMAGE * config.images


def sampling_work(experiment, config):
    """The work of the samples of one training."""
    batch = experiment.sampling_batch_size
    judged = -(-experiment.distance_images // batch) * batch
    shown = -(-experiment.grid_images // batch) * batch
    snapshots = len(config.snapshots) + 1
    return judged * (
        sum(experiment.distance_steps) + len(config.snapshots) * sum(experiment.snapshot_steps)
    ) + shown * (sum(experiment.grid_steps) + snapshots * experiment.snapshot_steps[-1])


def long_work(experiment):
    """The work of the samples at many steps of one training."""
    batch = experiment.sampling_batch_size
    return -(-experiment.long_images // batch) * batch * sum(experiment.long_steps) * len(experiment.long_samplers)


class Progress:
    """One line on what runs, the share done and the time left; rewritten on a terminal, else printed now and then."""

    def __init__(self, experiment, folder):
        self.jobs = plan(experiment, folder)
        self.started = time.time()
        self.at_start = self._work_done()
        self.live = sys.stderr.isatty()
        self._next = self.started + 2  # nothing to say where nothing is to do

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.live:
            print("\r" + " " * (self._width() - 1), end="\r", file=sys.stderr, flush=True)

    def _work_done(self):
        return sum(job.work * job.finished() for job in self.jobs)

    def show(self):
        """Print the line if it is due."""
        now = time.time()
        if now < self._next:
            return
        self._next = now + (1 if self.live else 15)
        line = self._line(now)
        if self.live:
            print("\r" + line[: self._width() - 1].ljust(self._width() - 1), end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self, now):
        total, done, elapsed = sum(job.work for job in self.jobs), self._work_done(), now - self.started
        doing = ", ".join(self._doing(job) for job in self.jobs if self._running(job)) or "starting"
        fresh = done - self.at_start
        left = (total - done) * elapsed / fresh if elapsed > 10 and fresh > 0.01 * total else None
        remaining = f", about {max(1, round(left / 60))} min left" if left is not None else ""
        return f"[{int(elapsed) // 60:d}:{int(elapsed) % 60:02d}] {100 * done / total:3.0f} %{remaining}: {doing}"

    def _running(self, job):
        return not job.done.exists() and job.log.exists() and job.log.stat().st_mtime >= self.started - 1

    @staticmethod
    def _doing(job):
        share = job.finished()
        return f"{job.name} {100 * share:.0f} %" if share else job.name

    @staticmethod
    def _width():
        return shutil.get_terminal_size().columns


def last_words(folder, since):
    """The last line that each failed job printed after `since` (seconds of the epoch), in one line, or None."""
    failed = []
    for log in sorted((folder / "logs").glob("*.log")):
        if log.name == "engine.log" or log.stat().st_mtime < since:
            continue
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        errors = [line for line in lines if line.startswith("error: ")]
        if errors:
            failed.append(f"{log.stem} failed: {errors[-1].removeprefix('error: ')}")
        elif lines and "Error" in lines[-1]:
            failed.append(f"{log.stem} failed: {lines[-1]} (see {log})")
    return "; ".join(failed) or None
