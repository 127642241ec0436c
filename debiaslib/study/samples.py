"""Samples of the trained networks: a few for the figures, and those that distances are measured on.

The latter are kept in results/<experiment>/samples/, so that another metric needs no new ones: one .npy file a job,
named by the hash of what decides it. Until all are drawn they lie in shards of about 1,000 in a folder of that name, so
that a killed job goes on at its next shard.
"""

import functools
import shutil

import numpy as np

from ..diffusion.sampling import sample
from ..files import sha256_json, write_npy
from ..store import stored
from ..training.config import run_name
from .common import trained

_SHARD = 1000  # images


def samples(study, arm, seed):
    """Samples by number of steps from the same noise: steps (K,), seeds (N,), images uint8 (K, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [arm]), **sampling_inputs(e), "steps": e.grid_steps, "n": e.grid_images}

    def make():
        model = study.model(arm, seed)
        return {"steps": np.array(e.grid_steps), **_grid(study, arm, seed, [(model, steps) for steps in e.grid_steps])}

    return study.arrays(f"samples-{run_name(arm, seed)}.npz", inputs, make)


def training_samples(study, arm, seed):
    """Samples by the EMA weights at each snapshot: images_seen (S,), seeds (N,), images uint8 (S, N, 3, R, R)."""
    e = study.experiment
    inputs = {**trained(study, [seed], [arm]), **sampling_inputs(e), "steps": e.snapshot_steps, "n": e.grid_images}

    def make():
        seen = snapshots_of(study, arm, seed)
        models = [(study.model(arm, seed, count), e.snapshot_steps[-1]) for count in seen]
        return {"images_seen": np.array(seen), **_grid(study, arm, seed, models)}

    return study.arrays(f"training-{run_name(arm, seed)}.npz", inputs, make)


def _grid(study, arm, seed, models):
    """The arrays seeds and images of samples from the same noise. models: [(model, sampling steps)]."""
    sampler, seeds = study.experiment.sampler, image_seeds(seed, study.experiment.grid_images)
    drawn = [sample(m, study.schedule, seeds, progress=True, **_settings(study, arm, sampler, n)) for m, n in models]
    return {"seeds": np.array(seeds), "images": np.stack(drawn)}


def image_seeds(seed, count):
    """The seeds of `count` samples of a training seed's networks, equal for all arms: a range.

    Each training seed has its own, so that an interval over them counts the noise of sampling too.
    """
    first = seed % 4000 * 1_000_000  # the seed of an image is below 2^32
    return range(first, first + count)


def sampling_jobs(e, arm, seen):
    """The samplings that a run's distances need: dicts of network, sampler, steps and images_seen.

    seen: after how many images the training keeps its EMA weights; at the end all samplers are taken, else the first.
    """
    jobs = [("ema", sampler, steps, seen[-1]) for sampler in e.samplers for steps in e.distance_steps]
    jobs += [("ema", e.sampler, steps, count) for count in seen for steps in e.snapshot_steps]
    if e.raw_weights and arm in e.weightings:
        jobs += [("raw", e.sampler, steps, seen[-1]) for steps in e.distance_steps]
    names = ("network", "sampler", "steps", "images_seen")
    return [dict(zip(names, job, strict=True)) for job in dict.fromkeys(jobs)]


def stored_samples(study, arm, seed, n, network, sampler, steps, images_seen):
    """The n samples of one of the `sampling_jobs`, uint8 (n, 3, R, R), from disk; those not yet there are drawn."""
    config, seeds = study.experiment.train_config(arm, seed), image_seeds(seed, n)
    settings = _settings(study, arm, sampler, steps)
    inputs = {**study.identity(arm, seed), "network": network, "images_seen": images_seen, "n": n}
    inputs |= {**settings, "threads": config.threads, "first_seed": seeds[0]}
    model = functools.cache(lambda: study.model(arm, seed, images_seen, raw=network == "raw"))

    def draw(numbers):
        return sample(model(), study.schedule, seeds[numbers.start : numbers.stop], progress=True, **settings)

    return stored_images(study.folder / "samples", inputs, (3, config.resolution, config.resolution), draw)


def stored_images(folder, inputs, shape, draw):
    """`inputs["n"]` images of `shape` (C, H, W), uint8 (n, C, H, W), mapped from disk; those not yet there are drawn.

    inputs: JSON-native; all that decides the images. draw: gives the images of a range of numbers below n.
    """
    path = folder / f"{sha256_json(inputs)[:32]}.npy"
    shards, n, batch = path.with_suffix(""), inputs["n"], inputs["batch_size"]
    size = batch * max(1, _SHARD // batch)  # whole batches: an image's last bits depend on the size of its batch

    def make(temporary):
        with open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, size):
                part = range(start, min(n, start + size))
                seeds = {"seeds": [part.start, part.stop]}
                shard = stored(shards / f"{start:06d}.npy", seeds, lambda to, part=part: write_npy(to, draw(part)))
                file.write(np.load(shard, allow_pickle=False))

    stored(path, inputs, make, note=path.with_suffix(".json"))
    shutil.rmtree(shards, ignore_errors=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def snapshots_of(study, arm, seed):
    """After how many images a run kept its EMA weights: a list, the last of them at the end."""
    return [entry["images"] for entry in study.run(arm, seed).record["snapshots"]]


def sampling_inputs(e):
    """What an experiment says of how it samples."""
    return {"sampler": e.sampler, "clip_x0": e.clip_x0, "batch": e.sampling_batch_size}


def _settings(study, arm, sampler, steps):
    e, kind = study.experiment, study.prediction_type_of(arm)
    return {"sampler": sampler, "steps": steps, "prediction_type": kind, "clip_x0": e.clip_x0,
            "batch_size": e.sampling_batch_size, "device": study.config.device}  # fmt: skip
