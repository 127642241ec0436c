"""EMA weights as they are published: float16, in folders that `load_model` reads, with a model card. Imports no torch.

weights/README.md             the card
weights/<run>/config.json     as of the training, without paths of its machine
              ema-*.safetensors, record.json      rounded to float16, with the sha256 before and after
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import InputError
from ..files import atomic_path, sha256_file, write_json, write_text
from ..paths import without_folders
from .arms import parse_arm
from .config import run_name
from .run import Run, run_config


def publish_weights(experiment, folder, target):
    """Write the `published_weights` of an experiment's `folder` below `target`/weights; return the paths written.

    They are of its first `published_seeds` seeds. A training that is not complete is left out, and weights of an
    earlier one of the same name are removed. Paths are relative to `target`, sorted; a path in a configuration becomes
    its last part. Raises InputError for damaged weights, and for those that are larger than float16's largest number.
    """
    seeds = experiment.seeds[: experiment.published_seeds]
    runs = [Run(folder / "runs" / run_name(arm, seed)) for arm in experiment.published_weights for seed in seeds]
    runs, weights = [run for run in runs if run.record is not None], Path(target) / "weights"
    written = [path for run in runs for path in _publish(run, weights / run.name)]
    if runs:
        write_text(weights / "README.md", _card(experiment, runs, weights))
        written.append(weights / "README.md")
    return sorted(path.relative_to(target).as_posix() for path in written)


def take_published(source, run):
    """Copy the network of that run's name from the folder `source`, if it holds one, unless the run has been begun."""
    published = Path(source) / run.name
    if run.config is None and (published / "record.json").is_file():
        run.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(published.iterdir(), key=lambda path: path.name == "record.json"):  # the record last
            with atomic_path(run.folder / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())


def _publish(run, target):
    source, record = run.snapshot(), run.record
    last = max(record["snapshots"], key=lambda entry: entry["images"])
    weights = load_file(source)
    for name, largest in ((name, np.abs(values).max(initial=0)) for name, values in weights.items()):
        if not largest <= np.finfo(np.float16).max:
            raise InputError(f"{name} of {source} reaches {largest:g}; float16, as published, ends at 65504")
    rounded = {name: values.astype(np.float16) for name, values in weights.items()}
    file = target / last["file"]
    for old in target.glob("*.safetensors"):
        old.unlink()
    with atomic_path(file) as temporary:
        save_file(rounded, temporary)
    snapshot = {**last, "sha256": sha256_file(file), "dtype": "float16", "float32_sha256": last["sha256"]}
    said = {key: value for key, value in record.items() if key not in ("raw", "log")} | {"snapshots": [snapshot]}
    write_json(target / "config.json", without_folders(run.config))
    write_json(target / "record.json", without_folders(said))
    return [file, target / "config.json", target / "record.json"]


def _card(experiment, runs, weights):
    config, data = runs[0].config, runs[0].record["data"]
    labels, rows = [parse_arm(run_config(run).arm).label for run in runs], []
    for run, label in zip(runs, labels, strict=True):
        size = next((weights / run.name).glob("*.safetensors")).stat().st_size
        made, seen, parameters = run.config, run.record["images"], run.record["parameters"]
        how = f"{label} | {made['prediction_type']} | {made['lr']:g} | {made['seed']}"
        rows.append(f"| `{run.name}` | {how} | {seen:,} | {parameters:,} | {size:,} |")
    card = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    return card.format(
        title=f"{data['name']}, {config['resolution']}x{config['resolution']}: {', '.join(dict.fromkeys(labels))}",
        experiment=experiment.name,
        rows="\n".join(rows),
        data=f"{data['images']:,} images of {data['name']}",
        first=runs[0].name,
        kind=config["network"].get("_class_name", "UNet2DModel"),
        **config,
    )
