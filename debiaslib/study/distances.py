"""Distances between samples and data, as tables of a study."""

from ..metrics.colour import evaluate_colour
from ..metrics.distances import evaluate
from ..metrics.features import at_hand, load_extractor
from ..training.arms import parse_arm
from ..training.config import run_name
from ..training.processes import current_world
from .common import subset, trained
from .samples import sampling_inputs, sampling_jobs, snapshots_of, stored_samples

__all__ = ["Metrics", "distances", "draw_together", "real_distances"]


class Metrics:
    """The experiment's metrics of a set of `n` images against its reference images; `inputs` says what decides them.

    Of its `further_features` those count whose weights are on this machine and whose dimension is below n.
    """

    def __init__(self, study, n):
        e, data, self.n = study.experiment, study.images(), n
        self.extractors = [load_extractor(name, study.config.device) for name in e.features]
        self.reference = subset(data.images, e.reference_images)
        further = [load_extractor(name, study.config.device) for name in e.further_features if at_hand(name)]
        self.extractors += [one for one in further if one.dimension < min(n, len(self.reference))]
        self.allow_singular = e.allow_singular
        self.inputs = {
            "data": data.fingerprint,
            "features": {one.name: [one.weights_sha256, one.rule, one.dtype] for one in self.extractors},
            "colour": {"law": False},  # True in tables that also hold distances from the law of MiniFaces' colours
            "n": n,
            "reference": e.reference_images,
            **({"allow_singular": True} if e.allow_singular else {}),
        }

    def rows(self, images, **facts):
        """A row for each metric of the images, with the facts of what they are."""
        rows = []
        for extractor in self.extractors:
            rows += evaluate(images, self.reference, extractor, allow_singular=self.allow_singular)
        rows += evaluate_colour(images, self.reference)
        return [{**facts, **row} for row in rows]


def distances(study, arm, seed):
    """Distances of samples from the data, by sampler and steps, and by images seen: a DataFrame, a row a metric.

    Columns: weighting and variant (together the arm), seed, network ("ema", or "raw" for the weights of the last step),
    sampler, steps, images_seen, and those of `metrics.evaluate`.
    """
    metrics = Metrics(study, study.experiment.distance_images)

    def rows():
        found, parsed = [], parse_arm(arm)
        for job in sampling_jobs(study.experiment, arm, snapshots_of(study, arm, seed)):
            facts = {"weighting": parsed.weighting, "variant": parsed.variant, "seed": seed, **job}
            found += metrics.rows(stored_samples(study, arm, seed, metrics.n, **job), **facts)
        return found

    return study.csv(*_table_of(study, arm, seed, trained(study, [seed], [arm]), metrics), rows, digits=10)


def real_distances(study):
    """The same for held-out images in place of samples: what a perfect sampler would get. None without them."""
    heldout = study.images("heldout")
    if heldout is None:
        return None
    metrics = Metrics(study, study.experiment.distance_images)
    facts = {"weighting": "real", "variant": ""}
    facts |= dict.fromkeys(["seed", "network", "sampler", "steps", "images_seen"])

    def rows():
        return metrics.rows(subset(heldout.images, metrics.n), **facts)

    inputs = {**metrics.inputs, "heldout": heldout.fingerprint}
    return study.csv("distances-real.csv", inputs, rows, digits=10)


def draw_together(study, arm, seed):
    """Draw the samples that a run's distances need, each process its share; nothing if the distances are there.

    Every process of the `World` calls this. All train the run together if it is not there. The images are the same as
    one process's.
    """
    e, world, runs, needed = study.experiment, current_world(), trained(study, [seed], [arm]), None
    if world.first:
        needed = not study.has(*_table_of(study, arm, seed, runs, Metrics(study, e.distance_images)))
    for job in sampling_jobs(e, arm, snapshots_of(study, arm, seed)) if world.broadcast(needed) else ():
        stored_samples(study, arm, seed, e.distance_images, **job)


def _table_of(study, arm, seed, runs, metrics):
    """The name of a run's table of distances, and what decides its content."""
    e = study.experiment
    inputs = {**runs, **sampling_inputs(e), **metrics.inputs, "samplers": e.samplers}
    inputs |= {"steps": e.distance_steps, "snapshot_steps": e.snapshot_steps, "raw": e.raw_weights}
    return f"distances-{run_name(arm, seed)}.csv", inputs
