"""Samples of the trained networks, and their distances from the data, as tables of a study."""

import numpy as np
import pandas as pd

from .config import run_name
from .features import load_extractor
from .metrics import evaluate
from .sampling import sample
from .tables import load_arrays, save_arrays, subset, trained


def samples(study, weighting, seed):
    """Samples by number of steps from the same noise: steps (K,), seeds (N,), images uint8 (K, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [weighting]), **_sampling(e), "steps": e.grid_steps, "n": e.grid_images}

    def make(path):
        model = study.model(weighting, seed)
        images = np.stack([_sample(study, model, e.grid_images, steps) for steps in e.grid_steps])
        save_arrays(path, steps=np.array(e.grid_steps), seeds=np.arange(e.grid_images), images=images)

    return load_arrays(study.table(f"samples-{run_name(weighting, seed)}.npz", inputs, make))


def training_samples(study, weighting, seed):
    """Samples by the EMA weights at each snapshot: images_seen (S,), seeds (N,), images uint8 (S, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [weighting]), **_sampling(e), "steps": e.snapshot_steps, "n": e.grid_images}

    def make(path):
        seen = _snapshots(study, weighting, seed)
        models = [study.model(weighting, seed, count) for count in seen]
        images = np.stack([_sample(study, model, e.grid_images, e.snapshot_steps[-1]) for model in models])
        save_arrays(path, images_seen=np.array(seen), seeds=np.arange(e.grid_images), images=images)

    return load_arrays(study.table(f"training-{run_name(weighting, seed)}.npz", inputs, make))


def distances(study, weighting, seed):
    """Distances of samples from the data, by sampling steps and by images seen: a DataFrame, a row a metric."""
    e = study.experiment
    judge = _Judge(study)
    inputs = {**trained(study, [seed], [weighting]), **_sampling(e), **judge.inputs}
    inputs |= {"steps": e.distance_steps, "snapshot_steps": e.snapshot_steps}

    def make(path):
        final = _snapshots(study, weighting, seed)[-1]
        jobs = [(final, steps) for steps in e.distance_steps]
        jobs += [(seen, steps) for seen in _snapshots(study, weighting, seed) for steps in e.snapshot_steps]
        rows = []
        for seen, steps in dict.fromkeys(jobs):
            images = _sample(study, study.model(weighting, seed, seen), e.distance_images, steps)
            facts = {"weighting": weighting, "seed": seed, "sampler": e.sampler, "steps": steps, "images_seen": seen}
            rows += judge.rows(images, **facts)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.10g")

    return pd.read_csv(study.table(f"distances-{run_name(weighting, seed)}.csv", inputs, make))


def real_distances(study):
    """The same for held-out images in place of samples: what a perfect sampler would get. None without them."""
    heldout = study.images("heldout")
    if heldout is None:
        return None
    judge = _Judge(study)
    inputs = {**judge.inputs, "heldout": heldout.fingerprint}

    def make(path):
        images = subset(heldout.images, study.experiment.distance_images)
        facts = {"weighting": "real", "seed": None, "sampler": None, "steps": None, "images_seen": None}
        pd.DataFrame(judge.rows(images, **facts)).to_csv(path, index=False, float_format="%.10g")

    return pd.read_csv(study.table("distances-real.csv", inputs, make))


class _Judge:
    """The experiment's metrics of a set of images against its reference images."""

    def __init__(self, study):
        e, data = study.experiment, study.images()
        self.extractors = [load_extractor(name, study.device) for name in e.features]
        self.inputs = {
            "data": data.fingerprint,
            "features": {extractor.name: extractor.weights_sha256 for extractor in self.extractors},
            "n": e.distance_images,
            "reference": e.reference_images,
        }
        self.reference = subset(data.images, e.reference_images)

    def rows(self, images, **facts):
        """A row for each metric, with the facts of what was judged."""
        return [
            {**facts, **row} for extractor in self.extractors for row in evaluate(images, self.reference, extractor)
        ]


def _sampling(e):
    return {"sampler": e.sampler, "clip_x0": e.clip_x0, "batch": e.sampling_batch_size}


def _sample(study, model, count, steps):
    e = study.experiment
    return sample(
        model,
        study.schedule,
        range(count),
        sampler=e.sampler,
        steps=steps,
        prediction_type=study.prediction_type,
        clip_x0=e.clip_x0,
        batch_size=e.sampling_batch_size,
        device=study.device,
        progress=True,
    )


def _snapshots(study, weighting, seed):
    return [entry["images"] for entry in study.run(weighting, seed).record["snapshots"]]
