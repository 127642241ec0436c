"""The whole of an experiment with one command: check, train, measure, execute the notebooks, report.

    python -m debiaslib.study.pipeline --experiment quick
    python -m debiaslib.study.pipeline --experiment ffhq256 --dry-run
    timeout -s INT 25m python -m debiaslib.study.pipeline --experiment cifar10-h200

Snakemake orders the work and runs it side by side; this module checks everything before it starts, says what is going
on, and lets no part outlive another. Stop it at any time: trainings save, and the same command goes on where it was.
"""

import shlex
import sys
import time
from pathlib import Path

from ..cli import experiment_parser, run_command
from ..data.images import DRAWN, load_images
from ..devices import check_device
from ..errors import InputError, WorkFailed, check_choice, check_number
from ..files import read_json, write_json
from ..paths import absolute, check_results_folder, checkout, notebook_files, results_root
from ..training.config import run_name
from ..training.run import Run, check_settings, find_run
from .experiment import known_experiments, load_experiment
from .snakemake import last_words, run_engine

_UNDECLARED = ("figures/*.png", "notebooks/*.ipynb", "notebooks/*.html", "tables/*")  # what notebooks and report make


def reproduce(experiment="quick", dataset="", results="", jobs=2, profile=""):
    """Bring results/<experiment> up to date and return the path of its report.

    jobs: how many run side by side. profile: a folder with a Snakemake profile, such as config/slurm, that says where
    and how many jobs run; `jobs` is then not used. Raises InputError, before any work, if anything in the experiment,
    its data or existing results is wrong; and WorkFailed, naming the jobs and their last words, if a job failed.
    """
    check_number("jobs", jobs, minimum=1, integer=True)
    if profile and not (Path(profile) / "config.yaml").is_file():
        raise InputError(f"profile is {profile!r}; it must be a folder with a config.yaml, such as config/slurm")
    settings = load_experiment(experiment, dataset)
    folder = check_results_folder(settings.name, results)
    found = check_before_start(settings, results)
    started, report = time.monotonic(), folder / "report.html"
    print(f"experiment {settings.name}: results go to {folder}", flush=True)
    if not report.exists():
        from .cost import estimate  # lazy: it needs torch

        print(estimate(settings).line, flush=True)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    _forget_what_lacks_a_file(folder)
    config = {"experiment": absolute(experiment, known_experiments()), "dataset": absolute(settings.dataset, DRAWN)}
    config |= {"results": str(results_root(results)), **found}
    _run_engine(settings, folder, config, jobs, profile)
    write_json(folder / ".complete.json", _undeclared(folder))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"done in {minutes} min {seconds} s\nreport: {report}", flush=True)
    if settings.longer:
        named = {"DATASET": settings.dataset, "RESULTS": results}
        named = "".join(f" {name}={shlex.quote(str(value))}" for name, value in named.items() if value)
        print(f"longer, on the same images: make reproduce EXPERIMENT={settings.longer}{named}", flush=True)
    return report


def _run_engine(settings, folder, config, jobs, profile):
    threads = settings.train_config(*settings.runs[0]).threads
    code, failed, stopped = run_engine(folder, jobs * threads, threads, config, profile)
    if stopped is not None:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        sys.exit(128 + stopped)
    if code != 0:
        words = last_words(folder, failed) or f"the engine ended with code {code}; see {folder / 'logs/engine.log'}"
        ended = [code, *failed.values()]  # below 0 and above 128: by a signal
        if WorkFailed.KILLED in ended or not all(0 <= status <= 128 for status in ended):
            raise WorkFailed(words, WorkFailed.KILLED)
        raise WorkFailed(words, WorkFailed.MEMORY if WorkFailed.MEMORY in ended else WorkFailed.FAILED)


def _undeclared(folder):
    """The files, sorted, that no job declares or that a reader may delete; relative to `folder`."""
    found = (path.relative_to(folder) for pattern in _UNDECLARED for path in folder.glob(pattern))
    return sorted(path.as_posix() for path in found if path.name[0] != "." and ".failed." not in path.name)


def _forget_what_lacks_a_file(folder):
    """Have what is made without a rule of its own made again if a file of the last complete call is gone."""
    before = read_json(folder / ".complete.json")
    gone = set(before if isinstance(before, list) else ()) - set(_undeclared(folder))
    notes = [*folder.glob("notebooks/*.json"), folder / "report.html", folder / "tables/weights.csv.json"]
    for note in notes if gone else ():
        note.unlink(missing_ok=True)


def check_before_start(settings, results=""):
    """Raise InputError if a device, data or weights are absent, images too few, or runs made with other settings.

    Returns what decides tables and the settings do not say: {"heldout": fingerprint, "further": features at hand}.
    """
    for name in settings.notebooks:
        check_choice("notebook", name, notebook_files())
    first = settings.train_config(*settings.runs[0])
    check_device(first.device)
    for name in set(settings.features) - {"minifaces", "pooled"}:  # the weights of the others may be absent
        from ..metrics.features import load_extractor

        load_extractor(name)
    given = (first.dataset, first.resolution)
    sets = {split: load_images(*given, split=split, classes=first.classes) for split in ("train", "heldout")}
    for split, found in sets.items():
        if found is not None and len(found.images) < settings.enough_images:
            needed = f"{', '.join(settings.features)} need {settings.enough_images:,} (or allow_singular: true)"
            raise InputError(f"data set {found.name} has {len(found.images):,} {split} images; features {needed}")
    for arm, seed in settings.runs:
        wanted = {**settings.train_config(arm, seed).to_dict(), **sets["train"].identity}
        check_settings(find_run(settings.name, arm, seed, results), wanted)
        if settings.weights:
            published = Run(checkout() / settings.weights / run_name(arm, seed))
            if published.record is None:
                raise InputError(f"weights {settings.weights!r} hold no {published.name}; leave out what they lack")
            check_settings(published, wanted)
    further = ()
    if settings.further_features:
        from ..metrics.features import at_hand

        further = filter(at_hand, settings.further_features)
    return {"heldout": sets["heldout"].fingerprint if sets["heldout"] else "", "further": " ".join(further)}


def main(arguments=None):
    """The command line of the whole pipeline."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="how many run side by side, each with the same threads")
    parser.add_argument("--dry-run", action="store_true", help="start nothing; print what it will cost")
    parser.add_argument("--profile", default="", help="a folder with a Snakemake profile, for a cluster: config/slurm")
    options = parser.parse_args(arguments)
    if options.dry_run:
        from .cost import estimate  # lazy: it needs torch

        print(estimate(load_experiment(options.experiment, options.dataset)).line)
    else:
        reproduce(options.experiment, options.dataset, options.results, options.jobs, options.profile)


if __name__ == "__main__":
    run_command(main)
