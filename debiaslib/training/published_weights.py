"""EMA weights as they are published: float16, in folders that `load_model` reads, with a model card.

    weights/README.md             the card
    weights/<run>/config.json     as of the training, without paths of its machine
                  ema-*.safetensors, record.json      rounded to float16, with the sha256 before and after

Imports no torch.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import InputError
from ..files import atomic_path, sha256_file, write_json, write_text
from ..paths import without_folders
from .arms import parse_arm
from .config import run_name
from .run import Run

__all__ = ["WEIGHTS_LIMIT", "publish_weights", "take_published"]

WEIGHTS_LIMIT = 40_000_000  # bytes of all together: they are committed
_CARD = """\
---
license: mit
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [diffusion, ddpm, loss-weighting, unet]
---

# {title}

EMA weights of networks that debiaslib trained in the experiment `{experiment}`: one U-Net, the same images, timesteps,
noise and initial weights, and nothing different but the weight of the loss (Yu et al., "Unmasking Bias in Diffusion
Model Training", ECCV 2024).

| folder | loss weight | seed | images seen | parameters | bytes |
|---|---|---|---|---|---|
{rows}

- **Network**: diffusers' `UNet2DModel`, whose arguments are `network` in `config.json`; it predicts {prediction_type}.
- **Training**: {data}, {resolution}x{resolution}, batches of {batch_size}, learning rate {lr:g} ({lr_decay} decay),
  {precision}, {schedule} schedule with T = {timesteps:,}, on {device}. EMA up to {ema_decay:g}.
- **Rounding**: trained and measured in float32, published in float16. The numbers beside this folder are of the
  float32 weights, whose sha256 is in `record.json`.
- **Use**: to look at what a loss weight does. They are small networks, briefly trained, of one seed; they make poor
  images, and what they show of an order between weights is one draw.

```python
from debiaslib import load_model

network = load_model("weights/{first}")     # a UNet2DModel in float32, for evaluation
```
"""


def publish_weights(experiment, folder, target):
    """Write the `published_weights` of an experiment's `folder` below `target`/weights; return the paths written.

    Paths are relative to `target`, sorted. Arms whose training with the first seed is not complete are left out.
    A path in a configuration becomes its last part. Raises InputError for weights that float16 does not hold, damaged
    ones, and for more than 40 MB in all.
    """
    runs = [Run(folder / "runs" / run_name(arm, experiment.seeds[0])) for arm in experiment.published_weights]
    runs, weights = [run for run in runs if run.record is not None], Path(target) / "weights"
    written = [path for run in runs for path in _publish(run, weights / run.name)]
    size = sum(path.stat().st_size for path in written)
    if size > WEIGHTS_LIMIT:
        raise InputError(f"the weights have {size / 1e6:.1f} MB, of {WEIGHTS_LIMIT / 1e6:g} MB; publish fewer of them")
    if runs:
        write_text(weights / "README.md", _card(experiment, runs, weights))
        written.append(weights / "README.md")
    return sorted(path.relative_to(target).as_posix() for path in written)


def take_published(source, run):
    """Copy the published network of that run's name from the folder `source` to where its training would be.

    Nothing is done where the run has been begun or `source` holds no network of that name.
    """
    published = Path(source) / run.name
    if run.config is None and (published / "record.json").is_file():
        run.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(published.iterdir(), key=lambda path: path.name == "record.json"):  # the record last
            with atomic_path(run.folder / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())


def _publish(run, target):
    source, record = run.snapshot(), run.record
    last = max(record["snapshots"], key=lambda entry: entry["images"])
    tensors = load_file(source)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        rounded = {name: values.astype(np.float16) for name, values in tensors.items()}
    wrong = [name for name, values in rounded.items() if not np.isfinite(values).all()]
    if wrong:
        raise InputError(f"{source} has weights that float16 does not hold, in {wrong[0]}")
    file = target / last["file"]
    with atomic_path(file) as temporary:
        save_file(rounded, temporary)
    snapshot = {**last, "sha256": sha256_file(file), "dtype": "float16", "float32_sha256": last["sha256"]}
    said = {key: value for key, value in record.items() if key not in ("raw", "log")} | {"snapshots": [snapshot]}
    texts = {"config.json": run.config, "record.json": said}
    for name, value in texts.items():
        write_json(target / name, without_folders(value))
    return [file, *(target / name for name in texts)]


def _card(experiment, runs, weights):
    rows, config, record = [], runs[0].config, runs[0].record
    for run in runs:
        facts, [snapshot] = run.record, Run(weights / run.name).record["snapshots"]
        label, size = parse_arm(run.config["weighting"]).label, (weights / run.name / snapshot["file"]).stat().st_size
        cells = [f"`{run.name}`", label, run.config["seed"], f"{facts['images']:,}", f"{facts['parameters']:,}"]
        rows.append("| " + " | ".join(map(str, [*cells, f"{size:,}"])) + " |")
    names = ("prediction_type", "resolution", "batch_size", "lr", "lr_decay", "precision", "schedule", "timesteps")
    facts = {name: config[name] for name in (*names, "ema_decay", "device")}
    facts["data"] = f"{record['data']['images']:,} images of {record['data']['name']}"
    title = " and ".join(parse_arm(run.config["weighting"]).label for run in runs)
    title = f"{record['data']['name']}, {facts['resolution']}x{facts['resolution']}: {title}"
    return _CARD.format(title=title, experiment=experiment.name, rows="\n".join(rows), first=runs[0].name, **facts)
