"""Distances between samples and data, as tables of a study."""

from ..metrics.colour import evaluate_colour
from ..metrics.distances import evaluate
from ..metrics.features import at_hand, load_extractor
from ..training.arms import parse_arm
from ..training.config import run_name
from .common import subset, trained
from .samples import sampling_inputs, sampling_jobs, snapshots_of, stored_samples


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
    e, metrics, parsed = study.experiment, Metrics(study, study.experiment.distance_images), parse_arm(arm)
    inputs = {**trained(study, [seed], [arm]), **sampling_inputs(e), **metrics.inputs, "samplers": e.samplers}
    inputs |= {"steps": e.distance_steps, "snapshot_steps": e.snapshot_steps, "raw": e.raw_weights}

    def rows():
        found = []
        for job in sampling_jobs(e, arm, snapshots_of(study, arm, seed)):
            facts = {"weighting": parsed.weighting, "variant": parsed.variant, "seed": seed, **job}
            found += metrics.rows(stored_samples(study, arm, seed, metrics.n, **job), **facts)
        return found

    return study.csv(f"distances-{run_name(arm, seed)}.csv", inputs, rows, digits=10)


def real_distances(study):
    """The same for held-out images in place of samples: what a perfect sampler would get. None without them."""
    heldout = study.images("heldout")
    if heldout is None:
        for path in (study.folder / "tables").glob("distances-real.csv*"):
            path.unlink()  # of images that are gone
        return None
    held = subset(heldout.images, study.experiment.distance_images)
    metrics = Metrics(study, len(held))
    facts = {"weighting": "real", "variant": ""}
    facts |= dict.fromkeys(["seed", "network", "sampler", "steps", "images_seen"])
    inputs = {**metrics.inputs, "heldout": heldout.fingerprint}
    return study.csv("distances-real.csv", inputs, lambda: metrics.rows(held, **facts), digits=10)
