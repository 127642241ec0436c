"""What a report says of the experiment itself, from its settings and records: what it is, its times, its origin."""

from pathlib import Path

from ..files import read_json
from ..training.config import run_name
from ..training.run import Run
from .notebook_html import describe_commit
from .tables import ReportTable, duration, label

_OF_A_RUN = ("weighting", "seed")


def records(experiment, folder):
    """{name of the job: its record} of everything that has been made, in the order of the work."""
    found = {f"training {run_name(*run)}": Run(folder / "runs" / run_name(*run)).record for run in experiment.runs}
    for path in sorted(folder.glob("tables/[!.]*.json")):
        found[f"table {path.name.removesuffix('.json')}"] = read_json(path)
    found |= {f"notebook {path.stem}": read_json(path) for path in sorted(folder.glob("notebooks/[!.]*.json"))}
    return {name: record for name, record in found.items() if isinstance(record, dict)}


def statement(experiment, folder):
    """One paragraph: which networks were trained on what, and what is compared."""
    made = [record for run in experiment.runs if (record := Run(folder / "runs" / run_name(*run)).record)]
    config = experiment.train_config(*experiment.runs[0])
    weightings = [label(weighting) for weighting in experiment.weightings]
    data, parameters, precision = Path(config.dataset).name, "", config.precision
    if made:
        precision = (made[0].get("config") or {}).get("precision", precision)  # what "auto" turned out to be
        data = f"{made[0]['data']['images']:,} images of {made[0]['data']['name']}"
        parameters = f" of {made[0]['parameters']:,} parameters"
    seeds = f"seed{'s' * (len(experiment.seeds) > 1)} {', '.join(map(str, experiment.seeds))}"
    wanted, size = len(experiment.runs), f"{config.resolution}x{config.resolution}"
    incomplete = "" if len(made) == wanted else f" Of the {wanted} trainings, {len(made)} are complete."
    return (
        f"The same network{parameters} is trained {wanted} times on {data}, {size} pixels, with nothing different but "
        f"the weight of the loss ({', '.join(weightings)}) and the seed ({seeds}). It predicts "
        f"{config.prediction_type} under the {config.schedule} schedule with {config.timesteps:,} timesteps and sees "
        f"{config.images:,} images in batches of {config.batch_size}, in {precision} on {config.device}. "
        "Errors by timestep are means over "
        f"{experiment.curve_images:,} images; distances compare {experiment.distance_images:,} samples by "
        f"{experiment.sampler} with {experiment.reference_images:,} reference images.{incomplete}"
    )


def missing_runs(experiment, folder):
    """The trainings that are not complete, each with the share that is done."""
    found = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        if run.record is None:
            done = (run.last_row() or {"images": 0})["images"] / experiment.train_config(arm, seed).images
            found.append(f"{label(arm)}, seed {seed} ({100 * done:.0f} % done)")
    return found


def times(made):
    """Seconds of every job by its own clock, and their sum."""
    clocked = {name: record["seconds"] for name, record in made.items() if "seconds" in record}
    rows = [(name, [duration(seconds)]) for name, seconds in clocked.items()]
    rows.append(("sum", [duration(sum(clocked.values()))]))
    caption = (
        "Of each job by its own clock, from the records. Jobs run side by side: the whole takes less than the sum."
    )
    return ReportTable("Time", caption, ["job", "time"], rows, last="sum")


def provenance(made):
    """What the results were made with; where records differ, every value that occurs."""
    packages = {}
    for record in made.values():
        for name, version in (record.get("packages") or {}).items():
            packages.setdefault(name, {})[version or "not installed"] = None
    rows = {
        "commit": _distinct(made, describe_commit),
        "Python": _distinct(made, lambda record: record.get("python")),
        "machine": _distinct(made, lambda record: record.get("machine")),
        "device, threads": _distinct(made, _device),
        "data, sha256": _distinct(made, lambda record: (record.get("data") or {}).get("fingerprint")),
        **{name: list(versions) for name, versions in packages.items()},
    }
    caption = "From the records of trainings, tables and notebooks; several entries where records differ."
    rows = [(name, ["; ".join(values)]) for name, values in rows.items() if values]
    return ReportTable("Provenance", caption, ["what", "value"], rows)


def settings(experiment):
    """Every setting: of the experiment, and of its trainings but for the weighting and the seed."""
    of_training = experiment.train_config(*experiment.runs[0]).to_dict()
    rows = [(name, [_text(value)]) for name, value in experiment.to_dict().items() if name != "training"]
    rows += [(f"training: {name}", [_text(value)]) for name, value in of_training.items() if name not in _OF_A_RUN]
    caption = f"As in the experiment's file, with the defaults and those of the preset {experiment.preset!r} filled in."
    return ReportTable("Settings", caption, ["setting", "value"], rows)


def _distinct(made, say):
    return [text for text in dict.fromkeys(say(record) for record in made.values()) if text]


def _device(record):
    return f"{record['device']}, {record.get('threads', '?')}" if record.get("device") else None


def _text(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) or "none"
    return "none" if value in (None, "") else str(value)
