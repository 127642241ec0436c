"""The whole of an experiment with one command: check, train, measure, execute the notebooks, report.

    python -m debiaslib.study.pipeline --experiment quick
    python -m debiaslib.study.pipeline --experiment ffhq256 --dry-run
    timeout -s INT 25m python -m debiaslib.study.pipeline --experiment cifar10-h200

Snakemake orders the work and runs it side by side; this module checks everything before it starts, says what is going
on, and lets no part outlive another. Stop it at any time: trainings save, and the same command goes on where it was.
"""

import subprocess
import sys
import time
from pathlib import Path

from ..cli import check_matplotlib, experiment_parser, run_command
from ..data.images import load_images
from ..errors import InputError, WorkFailed, check_choice, check_number
from ..files import read_json, sha256_file, sha256_json, write_json
from ..paths import absolute, check_results_folder, notebook_files, results_root
from ..training.run import check_settings, find_run
from .experiment import load_experiment
from .progress import follow, last_words
from .snakemake import StopSignals, engine_log, start_engine

_PRODUCTS = ("*.*", "figures/*", "notebooks/*", "tables/*", "runs/*/*.json", "runs/*/*.safetensors")


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
    fingerprints = check_before_start(settings, results)
    report, key = folder / "report.html", _key(settings, fingerprints)
    if _is_complete(folder, key):
        print(f"nothing to do: every result is there and up to date\nreport: {report}", flush=True)
        return report
    started = time.monotonic()
    cost = _estimate(experiment, dataset) if not report.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    print(f"experiment {settings.name}: results go to {folder}", *filter(None, [cost]), sep="\n", flush=True)
    config = {"experiment": absolute(experiment), "dataset": absolute(dataset), "results": str(results_root(results))}
    _run_engine(settings, folder, config, jobs, profile)
    write_json(folder / ".complete.json", {"key": key, "files": _states(folder)})
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"done in {minutes} min {seconds} s\nreport: {report}", flush=True)
    return report


def _run_engine(settings, folder, config, jobs, profile):
    (folder / "logs").mkdir(exist_ok=True)
    threads = settings.train_config(*settings.runs[0]).threads
    with open(engine_log(folder), "w", encoding="utf-8") as log, StopSignals() as stop:
        stop.engine = start_engine(folder, jobs * threads, threads, config, profile)
        failed = follow(stop.engine.stdout, log)
        code = stop.engine.wait()
    if stop.signal is not None:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        sys.exit(128 + stop.signal)
    if code != 0:
        words = last_words(folder, failed) or f"the engine ended with code {code}; see {engine_log(folder)}"
        raise WorkFailed(words, _status([code, *failed.values()]))


def _status(statuses):
    """The exit status of a pipeline whose engine and jobs ended with these; below 0 and above 128: by a signal."""
    if any(status < 0 or status > 128 for status in statuses) or WorkFailed.KILLED in statuses:
        return WorkFailed.KILLED
    return WorkFailed.MEMORY if WorkFailed.MEMORY in statuses else WorkFailed.FAILED


def _key(settings, fingerprints):
    """What results are up to date with, apart from the code: the experiment, its data and the notebooks' sources."""
    notebooks = {name: sha256_file(notebook_files()[name]) for name in settings.notebooks}
    return sha256_json([settings.to_dict(), fingerprints, notebooks])


def _states(folder):
    """{file: its size and time} of everything that a reader may look for."""
    found = sorted(path for pattern in _PRODUCTS for path in folder.glob(pattern))
    found = [path for path in found if path.is_file() and path.name[0] != "." and ".failed." not in path.name]
    states = ((path.relative_to(folder).as_posix(), path.stat()) for path in found)
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in states}


def _is_complete(folder, key):
    """Whether all is as the last call left it. What is missing and no job declares is made to be made again."""
    try:
        before = read_json(folder / ".complete.json")
    except InputError:  # damaged; Snakemake looks itself
        before = None
    if before is None:
        return False
    states = _states(folder)
    missing = sorted(set(before["files"]) - set(states))
    for note in {note for file in missing for note in _makers(folder, file)}:
        note.unlink(missing_ok=True)
    return not missing and before["key"] == key and before["files"] == states


def _makers(folder, file):
    """The declared files whose jobs make a missing `file`: the report, its notebook, or all where that is not known."""
    place, _, name = file.rpartition("/")
    notebooks = folder / "notebooks"
    if place == "" or name.endswith(".html") or name.startswith("results."):
        return [folder / "report.html"]
    if place == "notebooks":
        return [notebooks / f"{name.partition('.')[0]}.json", folder / "report.html"]
    said = read_json((folder / file).with_suffix(".json")) if place == "figures" else None
    notes = [notebooks / f"{said['notebook']}.json"] if said else notebooks.glob("[0-9]*.json")
    return [*notes, folder / "report.html"] if place in ("figures", "tables") else []


def _estimate(experiment, dataset):
    """The line of `cost.dry_run`, from a process of its own: this one would hold torch for as long as it waits."""
    command = [sys.executable, "-m", "debiaslib.study.pipeline", "--dry-run", f"--experiment={experiment}"]
    done = subprocess.run([*command, f"--dataset={dataset}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"the estimate failed: {last.removeprefix('error: ')}")
    return done.stdout.splitlines()[0]


def check_before_start(settings, results=""):
    """Raise InputError if a device, data or weights are absent, images too few, or runs made with other settings.

    Returns the fingerprints of the data.
    """
    for name in settings.notebooks:
        check_choice("notebook", name, notebook_files())
    check_matplotlib()
    first = settings.train_config(*settings.runs[0])
    if first.device != "cpu":
        from ..devices import check_device

        check_device(first.device)
    for name in set(settings.features) - {"minifaces", "pooled"}:  # the weights of the others may be absent
        from ..metrics.features import load_extractor

        load_extractor(name)
    images = load_images(first.dataset, first.resolution, classes=first.classes)
    heldout = load_images(first.dataset, first.resolution, split="heldout", classes=first.classes)
    for found in filter(None, (images, heldout)):
        if len(found.images) < settings.enough_images:
            raise InputError(
                f"data set {found.name} has {len(found.images):,} {found.split} images; features "
                f"{', '.join(settings.features)} need {settings.enough_images:,} (or allow_singular: true)"
            )
    for arm, seed in settings.runs:
        wanted = {**settings.train_config(arm, seed).to_dict(), **images.identity}
        check_settings(find_run(settings.name, arm, seed, results), wanted)
    return [found.fingerprint for found in (images, heldout) if found]


def main():
    """The command line of the whole pipeline."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, default=2, help="how many to run side by side, each with the experiment's threads"
    )
    parser.add_argument("--dry-run", action="store_true", help="start nothing; print what it will cost, part by part")
    parser.add_argument("--tflops", type=float, help="for the dry run: TFLOP/s of the network in training")
    parser.add_argument("--profile", default="", help="a folder with a Snakemake profile, for a cluster: config/slurm")
    arguments = parser.parse_args()
    if arguments.dry_run:
        from .cost import dry_run

        dry_run(arguments.experiment, arguments.dataset, arguments.tflops)
        return
    named = {key: getattr(arguments, key) for key in ("experiment", "dataset", "results")}
    reproduce(**named, jobs=arguments.jobs, profile=arguments.profile)


if __name__ == "__main__":
    run_command(main)
