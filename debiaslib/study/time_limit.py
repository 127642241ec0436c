"""As much of an experiment as fits into a time: the most valuable first, and a report of what is there.

Trainings go in the order of the experiment's stages, `jobs` of them at a time: a *round*, in which each is measured
as soon as it is complete. What a round needs is known from the one before. A round that does not fit is only trained,
as far as it comes; then the tables of all complete trainings, the notebooks and the report are made in the time that
was kept for them. The next call goes on.
"""

import subprocess
import sys
import time

from ..errors import InputError
from ..files import write_text
from ..training.config import run_name
from ..training.run import Run
from ..training.stages import complete_part
from .pace import OF_ONE, REPORT, START, Pace
from .progress import last_words
from .snakemake import TIMED_OUT, engine_log, run_engine

__all__ = ["reproduce_within", "what_is_left"]


def reproduce_within(settings, folder, config, jobs, deadline):
    """Do what fits until `deadline` (seconds of `time.time()`); return `what_is_left`.

    config: experiment, dataset and results as the workers are given them. At most half of the time is kept for the
    end. Raises InputError, naming the job, if one failed.
    """
    started, pace = time.time(), Pace(settings, folder, jobs)

    def rest(runs):
        """Seconds to keep for the end, with so many complete trainings."""
        return min(pace.finishing(runs), (deadline - started) / 2)

    while following := _next_round(settings, folder, jobs):
        names, targets = following
        complete = _measured(settings, folder)
        comparable = complete_part(settings, complete) is not None  # else there is nothing for the end but the report
        until = deadline - (rest(len(complete)) if comparable else REPORT)
        needed, room = _needed(pace, names), deadline - time.time() - rest(len(complete) + len(names))
        if needed is not None and needed > room:
            targets = [target for target in targets if target.startswith("runs/") and not (folder / target).exists()]
            if not targets or until - time.time() < 2 * START:
                break
        if _checked(run_engine(settings, folder, config, jobs, targets, until), folder, started) == TIMED_OUT:
            break
    up_to_date = _finish(settings, folder, config, jobs, deadline, started)
    left = what_is_left(settings, folder)
    return left if up_to_date else [*left, "tables, notebooks and report of all that is complete"]


def _next_round(settings, folder, jobs):
    """(what it is, targets) of the next round: trainings with their tables, then the tables at many steps; or None."""
    runs = [run for run in settings.runs if run not in _measured(settings, folder)]
    units = [("run", run, (f"runs/{run_name(*run)}/record.json", _table("distances", run))) for run in runs]
    units += [("long", run, (_table("long", run),)) for run in settings.long_runs if not _has(folder, "long", run)]
    part = [unit for unit in units if unit[0] == units[0][0]][:jobs]
    return ([unit[:2] for unit in part], [target for unit in part for target in unit[2]]) if part else None


def _needed(pace, names):
    """Seconds of a round, whose jobs run side by side, or None where nothing is known."""
    every = []
    for kind, run in names:
        parts = (pace.training(*run), pace.measuring(*run)) if kind == "run" else (pace.long(*run),)
        if None in parts:
            return None
        every.append(sum(parts))
    return START + max(every)


def _finish(settings, folder, config, jobs, deadline, started):
    """Make the tables of all, the notebooks and the report of what is complete; return whether they were done."""
    part, done = complete_part(settings, _measured(settings, folder)), True
    until = deadline - REPORT
    if part is not None:
        whole = part is settings and all(_has(folder, "long", run) for run in settings.long_runs)
        at = config if part is settings else {**config, "experiment": str(write_part(part, folder))}
        targets = ["all" if whole else "results"]
        done = (
            time.time() < until and _checked(run_engine(part, folder, at, jobs, targets, until), folder, started) == 0
        )
        if done and whole:
            return True
    _write_report(config)
    return done


def _write_report(config):
    command = [sys.executable, "-m", "debiaslib.report", *(f"--{key}={value}" for key, value in config.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"the report failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")


def write_part(part, folder):
    """Write a part of an experiment as a file that workers and notebooks can be given; return its path."""
    import yaml

    said = {key: value for key, value in part.to_dict().items() if key != "name"}
    path = folder / "complete" / f"{part.name}.yaml"
    head = "# What is complete of the experiment, written by the pipeline under a time limit.\n"
    write_text(path, head + yaml.safe_dump(said, sort_keys=False))
    return path


def what_is_left(settings, folder):
    """What has not been made yet, a line each; empty where all is there."""
    lines = []
    for arm, seed in settings.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        if run.record is None:
            done = (run.last_row() or {"images": 0})["images"] / settings.train_config(arm, seed).images
            lines.append(f"train and measure {run.name}" + (f" ({100 * done:.0f} % trained)" if done else ""))
        elif not _has_tables(folder, (arm, seed)):
            lines.append(f"measure {run.name}")
    lines += [f"many steps of {run_name(*run)}" for run in settings.long_runs if not _has(folder, "long", run)]
    missing = [name for name in settings.notebooks if not (folder / "notebooks" / f"{name}.json").exists()]
    return lines + ([f"notebooks {', '.join(missing)}"] if missing else [])


def _measured(settings, folder):
    """The complete trainings that are measured."""
    records = {run: Run(folder / "runs" / run_name(*run)).record for run in settings.runs}
    return [run for run, record in records.items() if record is not None and _has_tables(folder, run)]


def _has_tables(folder, run):
    return all((folder / "tables" / f"{name.format(run_name(*run))}.json").exists() for name in OF_ONE)


def _table(kind, run):
    return f"tables/{kind}-{run_name(*run)}.csv.json"


def _has(folder, kind, run):
    return (folder / _table(kind, run)).exists()


def _checked(code, folder, started):
    if code not in (0, TIMED_OUT):
        raise InputError(last_words(folder, started) or f"the engine ended with code {code}; see {engine_log(folder)}")
    return code
