"""The whole of an experiment with one command: check, train, measure, execute the notebooks, report.

    python -m debiaslib.study.pipeline --experiment quick
    python -m debiaslib.study.pipeline --experiment ffhq256 --dry-run

Snakemake orders the work and runs it side by side; this module checks everything before it starts, says what is going
on and how long it will take, and lets no part outlive another. Stop it at any time; the same command goes on where it
was. With a limit it does what fits (`time_limit`) and exits with 3 while work is left:

    python -m debiaslib.study.pipeline --experiment cifar10-h200 --minutes 25
"""

import subprocess
import sys
import time
from pathlib import Path

from ..cli import experiment_parser, run_command
from ..data.images import load_images
from ..errors import InputError, check_choice, check_number
from ..paths import absolute, check_results_folder, notebook_files, results_root
from ..training.run import check_settings, find_run
from . import snakemake as engine
from .experiment import load_experiment
from .progress import last_words
from .snakemake import engine_log, run_engine
from .time_limit import reproduce_within, what_is_left

WORK_IS_LEFT = 3  # exit status


def reproduce(experiment="quick", dataset="", results="", jobs=2, minutes=None, profile=""):
    """Bring results/<experiment> up to date, and then the experiment that it names in `then`.

    Returns a list of what is left, which is empty without a limit. minutes: do the most valuable work that fits,
    stop cleanly and write the report of what is there; the next call goes on. profile: a folder with a Snakemake
    profile, such as config/slurm, that says where and how many jobs run; `jobs` is then not used. Raises InputError,
    before any work, if anything in the experiments, their data or existing results is wrong; and, naming the job and
    its last words, if a job failed.
    """
    deadline = time.time() + 60 * check_number("minutes", minutes, above=0) if minutes is not None else None
    check_number("jobs", jobs, minimum=1, integer=True)
    if profile and not (Path(profile) / "config.yaml").is_file():
        raise InputError(f"profile is {profile!r}; it must be a folder with a config.yaml, such as config/slurm")
    if profile and minutes is not None:
        raise InputError(f"minutes is {minutes:g} and profile {profile!r}; a cluster's queue has its own limit of time")
    chain, left = _chain(experiment, dataset), []
    for _, settings in chain:
        check_results_folder(settings.name, results)
        check_before_start(settings, results)
    for named, settings in chain:
        if left:  # the time is over
            return left + what_is_left(settings, results_root(results) / settings.name)
        left = _reproduce(settings, named, dataset, results, jobs, deadline, profile)
    return left


def _chain(experiment, dataset):
    """(name or path, `Experiment`) of an experiment and of those that follow it."""
    chain = [(experiment, load_experiment(experiment, dataset))]
    while then := chain[-1][1].then:
        if then in [named for named, _ in chain]:
            raise InputError(f"then is {then!r}, which leads back to where it began")
        chain.append((then, load_experiment(then, dataset)))
    return chain


def _reproduce(settings, experiment, dataset, results, jobs, deadline, profile):
    folder = results_root(results) / settings.name
    report = folder / "report.html"
    config = {"experiment": absolute(experiment), "dataset": absolute(dataset), "results": str(results_root(results))}
    started, stamp = time.time(), report.stat().st_mtime_ns if report.exists() else None
    cost = _estimate(experiment, dataset) if stamp is None else None
    folder.mkdir(parents=True, exist_ok=True)
    print(f"experiment {settings.name}: results go to {folder}", flush=True)
    if cost:
        print(cost, flush=True)
    if deadline is not None:
        left = reproduce_within(settings, folder, config, jobs, deadline)
        print(f"report: {report}", flush=True)
        return [f"{settings.name}: {line}" for line in left]
    code = run_engine(settings, folder, config, jobs, profile=profile)
    if code != 0:
        raise InputError(last_words(folder, started) or f"the engine ended with code {code}; see {engine_log(folder)}")
    if report.stat().st_mtime_ns == stamp:
        print(f"nothing to do: every result is there and up to date\nreport: {report}", flush=True)
    else:
        minutes, seconds = divmod(round(time.time() - started), 60)
        print(f"done in {minutes} min {seconds} s\nreport: {report}", flush=True)
    return []


def _estimate(experiment, dataset):
    """The line of `estimate.dry_run`, from a process of its own: this one would hold torch for as long as it waits."""
    command = [sys.executable, "-m", "debiaslib.study.pipeline", "--dry-run", f"--experiment={experiment}"]
    done = subprocess.run([*command, f"--dataset={dataset}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"the estimate failed: {last.removeprefix('error: ')}")
    return done.stdout.splitlines()[0]


def check_before_start(settings, results=""):
    """Raise InputError if a device, data or weights are absent, or runs were made with other settings."""
    for name in settings.notebooks:
        check_choice("notebook", name, notebook_files())
    first = settings.train_config(*settings.runs[0])
    if first.device != "cpu":
        from ..devices import check_device

        check_device(first.device)
    for name in set(settings.features) - {"minifaces", "pooled"}:  # the weights of the others may be absent
        from ..metrics.features import load_extractor

        load_extractor(name)
    images = load_images(first.dataset, first.resolution, classes=first.classes)
    for arm, seed in settings.runs:
        config = settings.train_config(arm, seed)
        wanted = {**config.to_dict(), **images.identity}
        check_settings(find_run(settings.name, arm, seed, results), wanted)


def main():
    """The command line of the whole pipeline."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, default=2, help="how many to run side by side, each with the experiment's threads"
    )
    parser.add_argument("--dry-run", action="store_true", help="start nothing; print what it will cost, part by part")
    parser.add_argument("--tflops", type=float, help="for the estimate: TFLOP/s of the network in training")
    parser.add_argument("--measuring-tflops", type=float, help="for the estimate: in sampling and measuring, float32")
    parser.add_argument(
        "--minutes", type=float, help="do the most valuable work that fits, and write the report of what is there"
    )
    parser.add_argument("--profile", default="", help="a folder with a Snakemake profile, for a cluster: config/slurm")
    parser.add_argument("--engine", help="internal: run Snakemake for this folder")
    parser.add_argument("--targets", nargs="+", default=["all"], help="internal: what the engine makes")
    arguments = parser.parse_args()
    named = {key: getattr(arguments, key) for key in ("experiment", "dataset", "results")}
    if arguments.engine:
        return engine.snakemake(
            Path(arguments.engine), arguments.jobs, named, arguments.targets, profile=arguments.profile
        )
    if arguments.dry_run:
        from .cost import dry_run

        for experiment, _ in _chain(arguments.experiment, arguments.dataset):
            dry_run(experiment, arguments.dataset, arguments.tflops, arguments.measuring_tflops)
        return 0
    left = reproduce(**named, jobs=arguments.jobs, minutes=arguments.minutes, profile=arguments.profile)
    if not left:
        return 0
    print("\n".join(["the time is over; left are:", *(f"  {line}" for line in left), "the same command goes on"]))
    return WORK_IS_LEFT


if __name__ == "__main__":
    run_command(main)
