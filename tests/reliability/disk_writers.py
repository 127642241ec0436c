"""Everything of the package that writes files, each as something that can be written twice, with other content."""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from finished_results import note, write_results
from PIL import Image
from synthetic_results import WEIGHTINGS, write_synthetic_results

from debiaslib import trainers
from debiaslib.data.images import load_images
from debiaslib.data.labels import stored_labels
from debiaslib.diffusion.schedule import Schedule
from debiaslib.figures import draw as figures
from debiaslib.files import SEAL, exclusive, write_json, write_text
from debiaslib.metrics.cifar10_training import _keep
from debiaslib.metrics.feature_weights import Weights
from debiaslib.report.report import build_report, publish_report
from debiaslib.report.result_tables import write_result_tables
from debiaslib.study import compare, measurements
from debiaslib.study.common import save_arrays
from debiaslib.study.experiment import Experiment
from debiaslib.study.sample_store import stored_samples
from debiaslib.study.study import open_study
from debiaslib.study.time_limit import write_part
from debiaslib.training.checkpoints import save_checkpoint
from debiaslib.training.loop import train
from debiaslib.training.network import export_pipeline
from debiaslib.training.published_weights import publish_weights
from debiaslib.training.run import find_run
from debiaslib.training.write_record import save_weights

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"
NETWORK = {
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
}
TINY = {"resolution": 8, "network": NETWORK, "images": 16, "batch_size": 4, "snapshots": [8]}


@dataclass(frozen=True)
class Writer:
    """`write(version)` writes into a folder; `change()` is called before version 2, while there is room.

    whole: nothing at all may change where a write fails; else each file is the old or the new one. grows: the endings
    of files that a job which goes on finds half done. note_follows: a large file has its name before its note is made.
    named: what it is given has random names, so that two folders of it differ.
    """

    write: object
    change: object = lambda: None
    whole: bool = True
    grows: tuple = ()
    note_follows: bool = False
    named: bool = False


def numbers(version, count=30_000):
    """`count` numbers that do not compress."""
    return np.random.default_rng(version).random(count)


def _text(folder, given):
    return Writer(lambda version: write_text(folder / "page.html", f"{version} é\n" * 20_000))


def _json(folder, given):
    return Writer(lambda version: write_json(folder / "record.json", {"rows": numbers(version, 1000).tolist()}))


def _weights(folder, given):
    def write(version):
        torch.manual_seed(version)
        save_weights(folder / "raw-000000084.safetensors", torch.nn.Linear(100, 200))

    return Writer(write)


def _checkpoint(folder, given):
    def write(version):
        state = {"network": {"w": torch.from_numpy(numbers(version))}}
        save_checkpoint(folder, 10 * version, state)

    return Writer(write)


def _cifar10_checkpoint(folder, given):
    class Part:
        def __init__(self, version):
            self.version = version

        def state_dict(self):
            return {"w": torch.from_numpy(numbers(self.version))}

    def write(version):
        _keep(folder / "checkpoint.pt", ["settings"], {"network": Part(version)}, version, 1.0)

    return Writer(write)


def _table(folder, given):
    def write(version):
        study = open_study(SMOKE, "", folder)
        weightings = ("constant", "debiased", "p2(k=1,gamma=1)")[: 1 + version]
        measurements.weights(dataclasses.replace(study, experiment=dataclasses.replace(
            study.experiment, weightings=weightings)))  # fmt: skip

    return Writer(write)


def _arrays(folder, given):
    def write(version):
        study = open_study(SMOKE, "", folder)
        study.table("one_step.npz", {"version": version}, lambda path: save_arrays(path, x=numbers(version)))

    return Writer(write)


def _figure(folder, given):
    """The tables lie elsewhere, and `folder/tables` leads to those of a version."""
    for version in (1, 2):
        write_synthetic_results(given / f"v{version}", weightings=WEIGHTINGS[: 1 + version])
    folder.mkdir(parents=True)

    def lead_to(version):
        (folder / "tables").unlink(missing_ok=True)
        (folder / "tables").symlink_to(given / f"v{version}" / "tables", target_is_directory=True)

    lead_to(1)
    return Writer(lambda version: figures.draw("snr", folder) and None, lambda: lead_to(2))


def _trainers(folder, given):
    schedules = {1: Schedule.scaled_linear, 2: Schedule.linear}
    return Writer(lambda version: trainers.draw(schedules[version](), folder / "trainers.png") and None)


def _compare(folder, given):
    write_synthetic_results(folder, weightings=WEIGHTINGS[:2])
    write_synthetic_results(given, weightings=WEIGHTINGS[:2])
    line = ["--results", str(folder), "--expected", str(given), "--limit", "1"]
    return Writer(lambda version: compare.main([*line, "--tolerance", str(version)]))


def _result_tables(folder, given):
    write_synthetic_results(folder)
    runs = [(weighting, 0) for weighting in WEIGHTINGS]
    return Writer(lambda version: write_result_tables(folder, runs[: 2 * version]) and None, whole=False)


def _report(folder, given):
    folder.mkdir(parents=True)
    file, results, data = write_results(folder)

    def change():
        note(results / "tiny" / "figures" / "snr.json", {"title": "SNR", "caption": "Another one.", "data": []})
        for path in (results / "tiny" / "notebooks").glob("*.ipynb"):
            path.write_text(path.read_text().replace("0123456789abcdef", "fedcba9876543210"))

    return Writer(lambda version: build_report(str(file), str(data), str(results)) and None, change, whole=False,
                  named=True)  # fmt: skip


def _published(folder, given):
    file, results, data = write_results(given / folder.parent.name)

    def change():
        for path in [*(results / "tiny").glob("tables/distances-*.csv"), results / "tiny" / "tables" / "bias.csv"]:
            path.write_text(path.read_text().replace(".", ".1"))

    def write(version):
        publish_report(folder / "tiny", str(file), str(data), str(results))

    return Writer(write, change, whole=False, named=True)


def _trained(given, **more):
    """An experiment of two weightings and its folder, trained."""
    experiment = Experiment(
        name="tiny", preset="minifaces16", weightings=("constant", "debiased"), training=TINY, **more
    )
    for arm in experiment.weightings:
        train(experiment.train_config(arm, 0), given, "tiny", progress=False)
    return experiment, given / "tiny"


def _published_weights(folder, given):
    experiment, made = _trained(given, published_weights=("debiased",))
    return Writer(lambda version: publish_weights(experiment, made, folder, lambda text: text + " " * version) and None,
                  whole=False)  # fmt: skip


def _pipeline_folder(folder, given):
    _trained(given)
    run = find_run("tiny", "debiased", 0, given)
    return Writer(lambda version: export_pipeline(run, folder / "pipeline", 8 * version) and None, whole=False)


def _part(folder, given):
    experiment = Experiment(name="tiny", preset="minifaces16", weightings=("constant", "debiased"))
    parts = {1: experiment, 2: dataclasses.replace(experiment, seeds=tuple(range(2000)))}
    return Writer(lambda version: write_part(parts[version], folder) and None)


def _samples(folder, given):
    shape = (3, 48, 48)

    def draw(seeds):
        for seed in seeds:
            yield np.random.default_rng(seed).integers(0, 256, (1, *shape), dtype=np.uint8)

    def write(version):
        stored_samples(folder, {"version": version}, range(4), shape, draw)

    return Writer(write, grows=(".partial", ".progress.json"), note_follows=True)


def _images(folder, given):
    for i in range(12) if not given.exists() else ():
        given.mkdir(exist_ok=True, parents=True)
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(given / f"{i:02d}.png")
    return Writer(lambda version: load_images(str(given), 16 * version, progress=False) and None, whole=False,
                  note_follows=True)  # fmt: skip


def _labels(folder, given):
    folder.mkdir(parents=True)

    def write(version):
        stored_labels(folder / f"{version}.npy", 5000, lambda: np.arange(5000) % (3 * version))

    return Writer(write, whole=False, note_follows=True)


def _fetched(folder, given):
    for made in (given, folder):  # the environment names the folder that the file belongs in
        made.mkdir(parents=True, exist_ok=True)

    def write(version):
        source = given / f"{version}.pth"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        weights = Weights("a network", source.name, source.as_uri(), digest, "0.2 MB", "TESTED_WEIGHTS", "fetch")
        weights.fetch(progress=False)

    for version in (1, 2):
        (given / f"{version}.pth").write_bytes(numbers(version).tobytes())
    return Writer(write)


def _lock(folder, given):
    def write(version):
        with exclusive(folder / f"{version}.lock", "it", wait=0):
            (folder / f"{version}.txt").touch()

    return Writer(write)


SHORT = {
    "a page (write_text)": _text,
    "a record (write_json)": _json,
    "weights": _weights,
    "a checkpoint": _checkpoint,
    "a checkpoint of cifar10_training": _cifar10_checkpoint,
    "a table": _table,
    "a table of arrays": _arrays,
    "a part of an experiment": _part,
    "samples": _samples,
    "decoded images": _images,
    "labels": _labels,
    "fetched weights": _fetched,
    "the owner of a lock": _lock,
}
LONG = {
    "a figure": _figure, "a figure of trainers": _trainers, "compare.csv": _compare,
    "result tables": _result_tables, "published weights": _published_weights, "a diffusers pipeline": _pipeline_folder,
    "the report": _report, "a published report": _published,
}  # fmt: skip
WRITERS = {**SHORT, **LONG}


def plain(path, data):
    """What is to be the same in two folders of a file: without seconds and seal, and of a checkpoint what it holds."""
    if path.endswith(".pt"):
        # Torch writes the random name of the temporary file into it.
        return str(torch.load(io.BytesIO(data), weights_only=True))
    if path.endswith(".json"):
        value = json.loads(data)
        drop = {"seconds", "images_per_second", SEAL}
        drop |= {"sha256"} if "/step-" in f"/{path}" else set()
        drop |= {"file"} if path.startswith("cache/images/") else set()  # size and times of the images
        return {key: one for key, one in value.items() if key not in drop} if isinstance(value, dict) else value
    return data
