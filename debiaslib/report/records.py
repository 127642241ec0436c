"""What a report says of the experiment itself, from its settings and records: what it is, its times, its origin."""

from pathlib import Path

import pandas as pd

from ..files import read_json
from ..paths import without_folders
from ..training.config import run_name
from ..training.run import Run
from .notebook_html import describe_commit
from .numbers_as_text import duration
from .tables import ReportTable, label

__all__ = ["missing_runs", "provenance", "records", "settings", "statement", "times"]


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
    data, parameters = Path(config.dataset).name, ""
    if made:
        data = f"{made[0]['data']['images']:,} images of {made[0]['data']['name']}"
        parameters = f" of {made[0]['parameters']:,} parameters"
    weightings, seeds = ", ".join(map(label, experiment.weightings)), ", ".join(map(str, experiment.seeds))
    wanted, size = len(experiment.runs), f"{config.resolution}x{config.resolution}"
    incomplete = "" if len(made) == wanted else f" Of the {wanted} trainings, {len(made)} are complete."
    return (
        f"The same network{parameters} is trained {wanted} times on {data}, {size} pixels, with nothing different but "
        f"the weight of the loss ({weightings}) and the seed ({seeds}). It predicts {config.prediction_type} under the "
        f"{config.schedule} schedule with {config.timesteps:,} timesteps and sees {config.images:,} images in batches "
        f"of {config.batch_size}, in {config.precision} on {config.device}. Errors by timestep are means over "
        f"{experiment.curve_images:,} images; distances compare {experiment.distance_images:,} samples by "
        f"{experiment.sampler} with {experiment.reference_images:,} reference images.{incomplete}"
    )


def missing_runs(experiment, folder):
    """The trainings that are not complete, each with the share that is done."""
    found = []
    for arm, seed in experiment.runs:
        run = Run(folder / "runs" / run_name(arm, seed))
        if run.record is None:
            rows = run.log()
            done = rows[-1]["images"] / experiment.train_config(arm, seed).images if rows else 0
            found.append(f"training not complete: {label(arm)}, seed {seed} ({100 * done:.0f} % done)")
    return found


def times(made):
    """Seconds of every job by its own clock, and their sum."""
    clocked = {name: record["seconds"] for name, record in made.items() if "seconds" in record}
    clocked["sum"] = sum(clocked.values())
    caption = (
        "Of each job by its own clock, from the records. Jobs run side by side: the whole takes less than the sum."
    )
    return ReportTable("Time", caption, _two_columns("job", "time", {n: duration(s) for n, s in clocked.items()}))


def provenance(made):
    """What the results were made with; where records differ, every value that occurs."""
    rows = {}
    for record in made.values():
        said = {name: record.get(name) for name in ("python", "machine", "device", "threads")}
        said |= {"commit": describe_commit(record), "data, sha256": (record.get("data") or {}).get("fingerprint")}
        for name, value in {**said, **(record.get("packages") or {})}.items():
            rows.setdefault(name, {})[value] = None
    values = {name: "; ".join(str(one) for one in found if one is not None) for name, found in rows.items()}
    caption = "From the records of trainings, tables and notebooks; several entries where records differ."
    return ReportTable("Provenance", caption, _two_columns("what", "value", values))


def settings(experiment):
    """Every setting: of the experiment, and of its trainings but for the weighting and the seed."""
    of_training = experiment.train_config(*experiment.runs[0]).to_dict()
    rows = {name: value for name, value in experiment.to_dict().items() if name != "training"}
    rows |= {f"training: {key}": value for key, value in of_training.items() if key not in ("weighting", "seed")}
    rows = {name: _text(value) for name, value in without_folders(rows).items()}
    caption = f"As in the experiment's file, with the defaults and those of the preset {experiment.preset!r} filled in."
    return ReportTable("Settings", caption, _two_columns("setting", "value", rows))


def _two_columns(first, second, rows):
    return pd.DataFrame({second: rows.values()}, index=pd.Index(rows, name=first))


def _text(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) or "none"
    return "none" if value in (None, "") else str(value)
