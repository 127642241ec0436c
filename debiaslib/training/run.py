"""A run's folder: its configuration, log, EMA snapshots and record. Imports no torch.

runs/<arm>-s<seed>/        config.json               before the first step
                           log.jsonl                 one line every few steps; checkpoints hold it too
                           checkpoints/              see checkpoints.py
                           ema-<images>.safetensors  EMA weights after so many images
                           raw-<images>.safetensors  the weights of the last step themselves
                           record.json               last: the run is complete; the sha256 of log and weights
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, shown
from ..files import read_json, sha256_file, write_json
from ..paths import results_root
from ..provenance import provenance
from .config import TrainConfig, run_name


@dataclass(frozen=True)
class Run:
    """One training's folder. It need not exist yet."""

    folder: Path

    @property
    def name(self):
        """`debiased-s0`."""
        return self.folder.name

    @property
    def config(self):
        """The configuration as it was written before the first step (a dict), or None."""
        return read_json(self.folder / "config.json")

    @property
    def record(self):
        """The record of a complete run (a dict), or None."""
        return read_json(self.folder / "record.json")

    def weights(self, kind, images):
        """Path of the weights of a kind, "ema" or "raw", after `images` images."""
        return self.folder / f"{kind}-{images:09d}.safetensors"

    def log(self):
        """The training log: a list of dicts, one each few steps. A half-written last line is left out.

        Raises InputError if the log of a complete run is not what its record says, and for a damaged line.
        """
        path, said = self.folder / "log.jsonl", (self.record or {}).get("log")
        if said is not None:
            self._checked(said)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
        for number, line in enumerate(lines):
            try:
                lines[number] = {**json.loads(line)}
            except (ValueError, TypeError):
                raise InputError(f"{path} is damaged in line {number + 1}; going on with the run mends it") from None
        return lines

    def snapshot(self, images=None):
        """Path of the EMA weights after `images` images (None: the last), checked against the record's sha256.

        Raises InputError if the run is not complete, has no such snapshot, or the file is not what was recorded.
        """
        record = self.record
        if record is None:
            raise InputError(f"the run {self.folder} is not complete; train it first")
        known = {entry["images"]: entry for entry in record["snapshots"]}
        images = max(known) if images is None else images
        if images not in known:
            counts = ", ".join(map(str, known))
            raise InputError(f"the run {self.folder} has no snapshot at {images} images; known: {counts}")
        return self._checked(known[images])

    def raw_weights(self):
        """Path of the weights of the last step, without averaging, checked as `snapshot` does."""
        if "raw" not in (self.record or {}):
            raise InputError(f"the run {self.folder} is not complete, or published without its raw weights")
        return self._checked(self.record["raw"])

    def _checked(self, entry):
        path = self.folder / entry["file"]
        if not path.exists() or sha256_file(path) != entry["sha256"]:
            raise InputError(f"{path} is missing or damaged: its sha256 is not the recorded one; train the run again")
        return path


def find_run(experiment_name, arm, seed, results=""):
    """The `Run` of one (arm, seed) under the results folder, complete or not."""
    return Run(results_root(results) / experiment_name / "runs" / run_name(arm, seed))


def run_config(run):
    """The `TrainConfig` that a run was made with.

    Raises InputError if there is no such run, or its config.json, which it names, is not that of a training.
    """
    made = run.config
    if made is None:
        raise InputError(f"{run.folder} holds no run; train it first")
    if made.get("scale_betas"):  # a setting of earlier versions, off in every experiment
        raise InputError(f"the run {run.folder} was made with scale_betas=True; use the commit of its record")
    try:
        return TrainConfig(**{key: value for key, value in made.items() if key in TrainConfig.__dataclass_fields__})
    except InputError as error:
        raise InputError(f"{run.folder / 'config.json'}: {error}") from None


def check_settings(run, wanted, processes=None):
    """Raise InputError, naming the first field that differs, if the folder holds a run made with other settings.

    Equal images under another name are equal. Device, threads and the number of processes decide bits only, so a
    complete run may differ in them. processes: how many are to go on with an unfinished run; None: not yet known.
    """
    if run.config is None:
        return
    # A run of an earlier version lacks the settings that have come since.
    made = {**run_config(run).to_dict(), "processes": 1, **run.config}
    wanted = {**wanted, "processes": processes or made["processes"]}
    ignored = {"scale_betas", *(() if run.record is None else ("device", "threads", "processes"))}
    if made.get("data_fingerprint") == wanted["data_fingerprint"]:
        ignored.add("dataset")
    made, wanted = _flat(made), _flat(wanted)
    for name in {**wanted, **made}:
        if name not in ignored and made.get(name) != wanted.get(name):
            said = f"{name}={shown(made.get(name), 24)}, not {shown(wanted.get(name), 24)}"
            raise InputError(f"the run {run.folder} was made with {said}; name another results folder, or move it")


def _flat(settings):
    """The settings, with each of the network's as a setting of its own."""
    network = {f"network.{name}": value for name, value in settings["network"].items()}
    return {**settings, "network": None, **network}


def write_record(run, config, images, parameters, seconds, world):
    """Write the record of a complete run; it names the files of weights, which must be there.

    images: the `ImageSet`. parameters: how many. seconds: of the steps alone.
    """
    seen = config.steps * config.batch_size
    backend = None if world.size == 1 else "nccl" if config.device.startswith("cuda") else "gloo"
    data = {"name": images.name, "fingerprint": images.fingerprint, "images": len(images.images)}
    record = {"name": run.name, "config": run.config, "data": data, "parameters": parameters, "images": seen}
    record |= {"steps": config.steps, "seconds": seconds, "images_per_second": seen / seconds}
    record |= {"processes": world.size, "backend": backend}
    record["snapshots"] = [{"images": n, **_hashed(run.weights("ema", n))} for n in config.snapshot_images]
    record |= {"raw": _hashed(run.weights("raw", seen)), "log": _hashed(run.folder / "log.jsonl")}
    write_json(run.folder / "record.json", {**record, **provenance(config.device, config.threads)})


def _hashed(path):
    return {"file": path.name, "sha256": sha256_file(path)}
