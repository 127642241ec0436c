"""What is measured on the trained networks of an experiment, each as a table in results/<experiment>/tables/.

    python -m debiaslib.measurements mse --experiment quick
    python -m debiaslib.measurements samples distances --experiment quick --weighting debiased --seed 0

Each function returns the table, from the file if it was made from the same inputs. Figures are drawn from these files
alone.
"""

import numpy as np
import pandas as pd
import torch

from .analysis import mse_by_timestep, one_step_estimate
from .cli import experiment_parser, run_command
from .config import run_name
from .errors import InputError, check_choice
from .optimum import OptimalDenoiser
from .prediction import PREDICTION_TYPES
from .randomness import stream
from .sampling import sample, to_float
from .strategies import parse_strategy
from .study import open_study
from .weighting import loss_weight


def weights(study):
    """The weights by timestep in each parametrisation, raw and divided by the mean of the epsilon weight."""
    inputs = {"weightings": study.experiment.weightings, "schedule": study.schedule.name, "T": study.schedule.T}

    def make(path):
        rows = [_weight_rows(study.schedule, w, p) for w in study.experiment.weightings for p in PREDICTION_TYPES]
        pd.concat(rows).to_csv(path, index=False, float_format="%.10g")

    return pd.read_csv(study.table("weights.csv", inputs, make))


def _weight_rows(schedule, weighting, prediction_type):
    raw = loss_weight(weighting, schedule, prediction_type)
    epsilon = loss_weight(weighting, schedule)
    return pd.DataFrame(
        {
            "t": range(schedule.T),
            "snr": schedule.snr,
            "weighting": weighting,
            "label": parse_strategy(weighting).label,
            "prediction_type": prediction_type,
            "raw": raw,
            "normalized": raw / epsilon.mean(),
            "share": epsilon.cumsum(0) / epsilon.sum(),
        }
    )


def one_step(study):
    """One-step estimates of a few training images, by each weighting's network and the exact optimum: a dict of arrays.

    x0 (N, 3, R, R); x_t (K, N, ...); x0_hat and amplified_error (M, K, N, ...); residual (M, K), the largest
    difference between x0 and x0_hat + amplified error; t (K,); names (M,), the last of them "optimum".
    """
    e, seed = study.experiment, study.experiment.seeds[0]
    inputs = {**_trained(study, [seed]), "t": e.shown_timesteps, "images": e.shown_images, "optimum": e.optimum_images}

    def make(path):
        x0, optimal = _train_images(study, e.shown_images)
        models = {w: (study.model(w, seed), study.prediction_type) for w in e.weightings}
        models["optimum"] = optimal, "sample"
        estimates = [[_shown(m, x0, t, study.schedule, p) for t in e.shown_timesteps] for m, p in models.values()]
        arrays = {key: np.array([[one[key] for one in row] for row in estimates]) for key in estimates[0][0]}
        arrays["x_t"] = arrays["x_t"][0]
        _save_arrays(path, names=np.array(list(models)), t=np.array(e.shown_timesteps), x0=x0.numpy(), **arrays)

    return _load_arrays(study.table("one_step.npz", inputs, make))


def _shown(model, x0, t, schedule, prediction_type):
    noise = torch.randn(x0.shape, generator=stream(0, "one step", t))
    one = one_step_estimate(model, x0, t, noise, schedule, prediction_type)
    residual = (x0 - one.x0_hat - one.amplified_error).abs().max().item()
    return {
        "x_t": one.x_t.numpy(),
        "x0_hat": one.x0_hat.numpy(),
        "amplified_error": one.amplified_error.numpy(),
        "residual": residual,
    }


def mse(study):
    """Mean squared errors by timestep, and paired differences from the constant weight: a DataFrame.

    Columns: split (train, heldout), seed, model (a weighting, "initial", "optimum"), t, quantity, mean, se, n,
    difference and difference_se (paired over images, against the first weighting). n counts images; every model sees
    the same noise.
    """
    e = study.experiment
    inputs = {**_trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images, "optimum": e.optimum_images}

    def make(path):
        train, optimal = _train_images(study, e.curve_images)
        splits = {"train": (train, optimal)}
        heldout = study.images("heldout")
        if heldout is not None:
            splits["heldout"] = to_float(_subset(heldout.images, e.curve_images)), None
        tables = [
            _summary(_error_rows(study, seed, x0, optimal), e.weightings[0]).assign(split=split, seed=seed)
            for split, (x0, optimal) in splits.items()
            for seed in e.seeds
        ]
        pd.concat(tables).to_csv(path, index=False, float_format="%.8g")

    return pd.read_csv(study.table("mse.csv", inputs, make))


def _error_rows(study, seed, x0, optimal):
    models = {w: study.model(w, seed) for w in study.experiment.weightings}
    timesteps, kind = study.experiment.curve_timesteps, study.prediction_type
    return mse_by_timestep(models, x0, timesteps, study.schedule, prediction_type=kind, optimal=optimal)


def _summary(rows, baseline):
    """Mean and standard error over images, and the same of the paired difference from the baseline's rows."""
    base = rows[rows.model == baseline].set_index(["t", "quantity", "image"]).value
    keys = pd.MultiIndex.from_frame(rows[["t", "quantity", "image"]])
    rows = rows.assign(difference=rows.value.to_numpy() - base.reindex(keys).to_numpy())
    groups = rows.groupby(["model", "t", "quantity"], sort=False)
    table = groups.agg(
        mean=("value", "mean"),
        se=("value", "sem"),
        n=("value", "size"),
        difference=("difference", "mean"),
        difference_se=("difference", "sem"),
    ).reset_index()
    own = (table.model == "optimum") & (table.quantity == "x0_mse")
    floor = table[own].assign(quantity="floor")
    trivial = (table.model == "optimum") & table.quantity.isin(["excess", "colour_excess"])  # zero by definition
    return pd.concat([table[~trivial], floor])


def samples(study, weighting, seed):
    """Samples by number of steps from the same noise: steps (K,), seeds (N,), images uint8 (K, N, 3, R, R)."""
    e = study.experiment
    inputs = {**_trained(study, [seed], [weighting]), **_sampling(e), "steps": e.grid_steps, "n": e.grid_images}

    def make(path):
        model = study.model(weighting, seed)
        images = np.stack([_sample(study, model, e.grid_images, steps) for steps in e.grid_steps])
        _save_arrays(path, steps=np.array(e.grid_steps), seeds=np.arange(e.grid_images), images=images)

    return _load_arrays(study.table(f"samples-{run_name(weighting, seed)}.npz", inputs, make))


def training_samples(study, weighting, seed):
    """Samples by the EMA weights at each snapshot: images_seen (S,), seeds (N,), images uint8 (S, N, 3, R, R)."""
    e = study.experiment
    inputs = {**_trained(study, [seed], [weighting]), **_sampling(e), "steps": e.snapshot_steps, "n": e.grid_images}

    def make(path):
        seen = _snapshots(study, weighting, seed)
        models = [study.model(weighting, seed, count) for count in seen]
        images = np.stack([_sample(study, model, e.grid_images, e.snapshot_steps[-1]) for model in models])
        _save_arrays(path, images_seen=np.array(seen), seeds=np.arange(e.grid_images), images=images)

    return _load_arrays(study.table(f"training-{run_name(weighting, seed)}.npz", inputs, make))


def distances(study, weighting, seed):
    """Distances of samples from the data, by sampling steps and by images seen: a DataFrame, a row a metric."""
    e = study.experiment
    inputs = {**_trained(study, [seed], [weighting]), **_sampling(e), **_judging(study)}
    inputs |= {"steps": e.distance_steps, "snapshot_steps": e.snapshot_steps}

    def make(path):
        final = _snapshots(study, weighting, seed)[-1]
        jobs = [(final, steps) for steps in e.distance_steps]
        jobs += [(seen, steps) for seen in _snapshots(study, weighting, seed) for steps in e.snapshot_steps]
        rows = []
        for seen, steps in dict.fromkeys(jobs):
            images = _sample(study, study.model(weighting, seed, seen), e.distance_images, steps)
            facts = {"weighting": weighting, "seed": seed, "sampler": e.sampler, "steps": steps, "images_seen": seen}
            rows += [{**facts, **row} for row in _judged(study, images)]
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.10g")

    return pd.read_csv(study.table(f"distances-{run_name(weighting, seed)}.csv", inputs, make))


def real_distances(study):
    """The same for held-out images in place of samples: what a perfect sampler would get. None without them."""
    heldout = study.images("heldout")
    if heldout is None:
        return None
    inputs = {**_judging(study), "heldout": heldout.fingerprint}

    def make(path):
        images = _subset(heldout.images, study.experiment.distance_images)
        facts = {"weighting": "real", "seed": None, "sampler": None, "steps": None, "images_seen": None}
        pd.DataFrame([{**facts, **row} for row in _judged(study, images)]).to_csv(
            path, index=False, float_format="%.10g"
        )

    return pd.read_csv(study.table("distances-real.csv", inputs, make))


def _judged(study, images):
    from .features import load_extractor
    from .metrics import evaluate

    data = study.images()
    reference = _subset(data.images, study.experiment.reference_images)
    extractors = [load_extractor(name) for name in study.experiment.features]
    return [row for extractor in extractors for row in evaluate(images, reference, extractor)]


def _judging(study):
    e = study.experiment
    return {
        "data": study.images().fingerprint,
        "features": e.features,
        "n": e.distance_images,
        "reference": e.reference_images,
    }


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
        progress=True,
    )


def _snapshots(study, weighting, seed):
    return [entry["images"] for entry in study.run(weighting, seed).record["snapshots"]]


def _trained(study, seeds, weightings=None):
    """The identity of the runs that a table is made from; trains those that are missing."""
    pairs = [(w, s) for s in seeds for w in weightings or study.experiment.weightings]
    for weighting, seed in pairs:
        study.run(weighting, seed)
    return {"runs": {run_name(w, s): study.identity(w, s) for w, s in pairs}}


def _train_images(study, count):
    """`count` images in [-1, 1] of the set that the optimum is over, and the `OptimalDenoiser`."""
    images = study.images().images[: study.experiment.optimum_images]
    return to_float(_subset(images, count)), OptimalDenoiser(images, study.schedule)


def _subset(images, count):
    """`count` images (all, if fewer) in an order that is drawn once, since files may lie sorted by class."""
    order = torch.randperm(len(images), generator=stream(0, "subset"))[:count]
    return np.ascontiguousarray(images[np.sort(order.numpy())])


def _save_arrays(path, **arrays):
    with open(path, "wb") as file:  # an open file: numpy would append .npz to a path
        np.savez_compressed(file, **arrays)


def _load_arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


OF_ALL = {"weights": weights, "one_step": one_step, "mse": mse, "real_distances": real_distances}
OF_ONE = {"samples": samples, "training_samples": training_samples, "distances": distances}


def main():
    """The command line: make the named tables of an experiment, or of one (weighting, seed)."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", help=f"of the experiment: {', '.join(OF_ALL)}; of one run: {', '.join(OF_ONE)}"
    )
    parser.add_argument("--weighting", help="for the tables of one run")
    parser.add_argument("--seed", type=int, default=0, help="for the tables of one run")
    arguments = parser.parse_args()
    for name in arguments.names:
        check_choice("measurement", name, [*OF_ALL, *OF_ONE])
        if name in OF_ONE and arguments.weighting is None:
            raise InputError(f"the measurement {name!r} is of one run; name its --weighting and --seed")
    study = open_study(arguments.experiment, arguments.dataset, arguments.results)
    torch.set_num_threads(study.experiment.train_config(*study.experiment.runs[0]).threads)
    for name in arguments.names:
        if name in OF_ALL:
            OF_ALL[name](study)
        else:
            OF_ONE[name](study, arguments.weighting, arguments.seed)


if __name__ == "__main__":
    run_command(main)
