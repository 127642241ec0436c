"""Samples of the trained networks, and their distances from the data, as tables of a study.

The images that distances are measured on are kept in results/<experiment>/samples/, so that another metric needs no new
ones and an interrupted job goes on.
"""

import numpy as np
import pandas as pd

from ..diffusion.sampling import sample, sample_batches
from ..metrics.colour import evaluate_colour
from ..metrics.colour_law import evaluate_law
from ..metrics.distances import evaluate
from ..metrics.features import at_hand, load_extractor
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.processes import current_world, shared_batches
from .common import load_arrays, save_arrays, subset, trained
from .sample_store import stored_samples
from .saved_tables import read_rows


def samples(study, arm, seed):
    """Samples by number of steps from the same noise: steps (K,), seeds (N,), images uint8 (K, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [arm]), **_sampling(e), "steps": e.grid_steps, "n": e.grid_images}

    def make(path):
        model = study.model(arm, seed)
        images = np.stack([_sample(study, model, arm, e.grid_images, steps) for steps in e.grid_steps])
        save_arrays(path, steps=np.array(e.grid_steps), seeds=np.arange(e.grid_images), images=images)

    return load_arrays(study.table(f"samples-{run_name(arm, seed)}.npz", inputs, make))


def training_samples(study, arm, seed):
    """Samples by the EMA weights at each snapshot: images_seen (S,), seeds (N,), images uint8 (S, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [arm]), **_sampling(e), "steps": e.snapshot_steps, "n": e.grid_images}

    def make(path):
        seen = _snapshots(study, arm, seed)
        models = [study.model(arm, seed, count) for count in seen]
        images = np.stack([_sample(study, model, arm, e.grid_images, e.snapshot_steps[-1]) for model in models])
        save_arrays(path, images_seen=np.array(seen), seeds=np.arange(e.grid_images), images=images)

    return load_arrays(study.table(f"training-{run_name(arm, seed)}.npz", inputs, make))


def distances(study, arm, seed):
    """Distances of samples from the data, by sampler and steps, and by images seen: a DataFrame, a row a metric.

    Columns: weighting and variant (together the arm), seed, network ("ema", or "raw" for the weights of the last step),
    sampler, steps, images_seen, and those of `metrics.evaluate`.
    """
    e, judge = study.experiment, _Judge(study, study.experiment.distance_images)
    name, inputs = _distance_table(study, arm, seed, trained(study, [seed], [arm]), judge)
    return _judged(study, arm, seed, name, inputs, judge, judged_jobs(e, arm, _snapshots(study, arm, seed)))


def _judged(study, arm, seed, name, inputs, judge, jobs):
    """The table of that name: the judge's rows of the samples of each job."""

    def make(path):
        rows, parsed = [], parse_arm(arm)
        for job in jobs:
            facts = {"weighting": parsed.weighting, "variant": parsed.variant, "seed": seed, **job}
            rows += judge.rows(_stored(study, arm, seed, judge.n, **job), **facts)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.10g")

    return read_rows(study.table(name, inputs, make))


def _distance_table(study, arm, seed, runs, judge):
    """The name of a run's table of distances, and what decides its content."""
    e = study.experiment
    inputs = {**runs, **_sampling(e), **judge.inputs, "samplers": e.samplers}
    inputs |= {"steps": e.distance_steps, "snapshot_steps": e.snapshot_steps, "raw": e.raw_weights}
    return f"distances-{run_name(arm, seed)}.csv", inputs


def draw_together(study, arm, seed):
    """Draw the images that a run's distances are of, each process its share; nothing if the distances are there.

    Every process of the `World` calls this alike. The run is trained by all together if it is not there; the first
    process stores the images, the same as if it had drawn them alone.
    """
    e, world, runs, needed = study.experiment, current_world(), trained(study, [seed], [arm]), None
    with world.together():
        if world.first:
            judge = _Judge(study, e.distance_images)
            needed = not study.has(*_distance_table(study, arm, seed, runs, judge))
    for job in judged_jobs(e, arm, _snapshots(study, arm, seed)) if world.same(needed) else ():
        _stored(study, arm, seed, e.distance_images, **job)


def judged_images(study, arm, seed, steps):
    """The samples of a fully trained network that its distances are of, by the first sampler: uint8 (N, 3, R, R)."""
    seen = _snapshots(study, arm, seed)[-1]
    e = study.experiment
    return _stored(study, arm, seed, e.distance_images, "ema", e.sampler, steps, seen)


def judged_jobs(e, arm, seen):
    """What is judged of a training with EMA weights after each of `seen` images: dicts of network, sampler, steps and
    images_seen. Every sampler and number of steps at the end, and the snapshots by the first sampler.
    """
    jobs = [("ema", sampler, steps, seen[-1]) for sampler in e.samplers for steps in e.distance_steps]
    jobs += [("ema", e.sampler, steps, count) for count in seen for steps in e.snapshot_steps]
    if e.raw_weights and arm in e.weightings:
        jobs += [("raw", e.sampler, steps, seen[-1]) for steps in e.distance_steps]
    names = ("network", "sampler", "steps", "images_seen")
    return [dict(zip(names, job, strict=True)) for job in dict.fromkeys(jobs)]


def real_distances(study):
    """The same for held-out images in place of samples: what a perfect sampler would get. None without them."""
    heldout = study.images("heldout")
    if heldout is None:
        return None
    judge = _Judge(study, study.experiment.distance_images)
    inputs = {**judge.inputs, "heldout": heldout.fingerprint}

    def make(path):
        images = subset(heldout.images, study.experiment.distance_images)
        nobody = dict.fromkeys(["seed", "network", "sampler", "steps", "images_seen"])
        facts = {"weighting": "real", "variant": "", **nobody}
        pd.DataFrame(judge.rows(images, **facts)).to_csv(path, index=False, float_format="%.10g")

    return read_rows(study.table("distances-real.csv", inputs, make))


class _Judge:
    """The experiment's metrics of a set of `n` images against its reference images.

    Of its `further_features` those count whose weights are on this machine and whose dimension is below n.
    """

    def __init__(self, study, n):
        e, data, self.n = study.experiment, study.images(), n
        self.extractors = [load_extractor(name, study.device) for name in e.features]
        self.reference = subset(data.images, e.reference_images)
        further = [load_extractor(name, study.device) for name in e.further_features if at_hand(name)]
        self.extractors += [one for one in further if one.dimension < min(n, len(self.reference))]
        self.law = data.name == "minifaces"
        self.allow_singular = e.allow_singular
        self.inputs = {
            "data": data.fingerprint,
            "features": {one.name: [one.weights_sha256, one.rule, one.dtype] for one in self.extractors},
            "colour": {"law": self.law},
            "n": n,
            "reference": e.reference_images,
            **({"allow_singular": True} if e.allow_singular else {}),
        }

    def rows(self, images, **facts):
        """A row for each metric, with the facts of what was judged."""
        rows = []
        for extractor in self.extractors:
            rows += evaluate(images, self.reference, extractor, allow_singular=self.allow_singular)
        rows += evaluate_colour(images, self.reference)
        rows += evaluate_law(images) if self.law else []
        return [{**facts, **row} for row in rows]


def _sampling(e):
    return {"sampler": e.sampler, "clip_x0": e.clip_x0, "batch": e.sampling_batch_size}


def _settings(study, arm, sampler, steps):
    e = study.experiment
    return {
        "sampler": sampler,
        "steps": steps,
        "prediction_type": study.prediction_type_of(arm),
        "clip_x0": e.clip_x0,
        "batch_size": e.sampling_batch_size,
        "device": study.device,
        "progress": current_world().first,
    }


def _sample(study, model, arm, count, steps):
    settings = _settings(study, arm, study.experiment.sampler, steps)
    return sample(model, study.schedule, range(count), **settings)


def _stored(study, arm, seed, n, network, sampler, steps, images_seen):
    """The n images that a job is judged on, from the store or drawn into it by all processes; None but on the first."""
    e, world = study.experiment, current_world()
    settings = _settings(study, arm, sampler, steps)
    inputs = {**study.identity(arm, seed), "network": network, "images_seen": images_seen, "n": n}
    inputs |= {key: value for key, value in settings.items() if key != "progress"}
    config = e.train_config(arm, seed)
    inputs["threads"] = config.threads

    def draw(seeds):
        model = study.model(arm, seed, images_seen, raw=network == "raw")
        return sample_batches(model, study.schedule, seeds, **settings)

    shape, asked = (3, config.resolution, config.resolution), []

    def share(seeds):
        asked.append(world.same(seeds))
        return shared_batches(world, asked[0], settings["batch_size"], shape, draw)

    if not world.first:
        return next(share(None), None)  # it yields nothing
    images = stored_samples(study.folder / "samples", inputs, range(n), shape, share)
    if not asked:
        world.same([])  # nothing was to do, and the others wait to be told
    return images


def _snapshots(study, arm, seed):
    return [entry["images"] for entry in study.run(arm, seed).record["snapshots"]]
