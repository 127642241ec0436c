"""What is measured on the trained networks of an experiment, each as a table in results/<experiment>/tables/.

    python -m debiaslib.study.measurements mse --experiment quick
    python -m debiaslib.study.measurements samples distances --experiment quick --weighting debiased --seed 0
    torchrun --standalone --nproc-per-node 4 -m debiaslib.study.measurements distances --weighting debiased

Several processes share the images that distances are of, and the training if it is missing; the first does the rest.
Each function returns the table, from the file if it was made from the same inputs. Figures are drawn from these files
alone.
"""

import numpy as np
import pandas as pd
import torch

from ..cli import experiment_parser, run_command
from ..diffusion.one_step import QUANTITIES, mse_by_timestep, one_step_estimate
from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.randomness import stream
from ..diffusion.strategies import parse_strategy
from ..diffusion.weighting import loss_weight
from ..errors import InputError, check_choice
from ..training.processes import processes
from .bias import bias
from .common import load_arrays, measured_images, measured_labels, optimal_denoiser, remembered, save_arrays, trained
from .control_tables import arm_errors
from .gate import gate
from .gradient_noise import gradient_noise
from .oracle_swap import oracle_swap, oracle_swap_samples
from .samples import distances, draw_together, real_distances, samples, training_samples
from .study import open_study


def weights(study):
    """The weights by timestep in each parametrisation, raw and divided by the mean of the epsilon weight."""
    inputs = {"weightings": study.formulas, "schedule": study.schedule.name, "T": study.schedule.T}

    def make(path):
        rows = [_weight_rows(study.schedule, w, p) for w in study.formulas for p in PREDICTION_TYPES]
        pd.concat(rows).to_csv(path, index=False, float_format="%.7g")

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
    inputs = {**trained(study, [seed]), "t": e.shown_timesteps, "images": e.shown_images, "optimum": e.optimum_images}

    def make(path):
        x0, labels = measured_images(study, e.shown_images), measured_labels(study, e.shown_images)
        models = {w: (study.model(w, seed), study.prediction_type) for w in e.weightings}
        models["optimum"] = optimal_denoiser(study)[0], "sample"
        estimates = [
            [_shown(m, x0, t, study.schedule, p, labels) for t in e.shown_timesteps] for m, p in models.values()
        ]
        arrays = {key: np.array([[one[key] for one in row] for row in estimates]) for key in estimates[0][0]}
        arrays["x_t"] = arrays["x_t"][0]
        save_arrays(path, names=np.array(list(models)), t=np.array(e.shown_timesteps), x0=x0.cpu().numpy(), **arrays)

    return load_arrays(study.table("one_step.npz", inputs, make))


def _shown(model, x0, t, schedule, prediction_type, labels):
    noise = torch.randn(x0.shape, generator=stream(0, "one step", t)).to(x0)
    one = one_step_estimate(model, x0, t, noise, schedule, prediction_type, labels=labels)
    residual = (x0 - one.x0_hat - one.amplified_error).abs().max().item()
    return {
        "x_t": one.x_t.cpu().numpy(),
        "x0_hat": one.x0_hat.cpu().numpy(),
        "amplified_error": one.amplified_error.cpu().numpy(),
        "residual": residual,
    }


def mse(study):
    """Mean squared errors by timestep, and paired differences from the constant weight: a DataFrame.

    Columns: split (train, heldout), seed, model (a weighting, "initial", "optimum"), t, quantity (of
    `analysis.QUANTITIES`, and the optimum's own error as "floor"), mean, se, n, difference and difference_se (paired
    over images, against the first weighting). n counts images; every model sees the same noise. Held-out images have
    no optimum, unless it is that of the data's true law (`tables.optimal_denoiser`).
    """
    e, heldout = study.experiment, study.images("heldout")
    inputs = {**trained(study, e.seeds), "t": e.curve_timesteps, "images": e.curve_images}
    inputs |= {"optimum": e.optimum_images, "heldout": heldout.fingerprint if heldout is not None else None}
    inputs["quantities"] = QUANTITIES
    if heldout is not None and heldout.labels is not None:
        inputs["heldout_labels"] = heldout.labels_fingerprint

    def make(path):
        optimal, everywhere = optimal_denoiser(study)
        tables = []
        for split, noise_seed in (("train", 0), ("heldout", 1)):
            best = remembered(optimal) if everywhere or split == "train" else None
            x0, labels = (take(study, e.curve_images, split) for take in (measured_images, measured_labels))
            for seed in e.seeds if x0 is not None else ():
                errors = _error_rows(study, seed, x0, best, noise_seed, labels)
                tables.append(_summary(errors, e.weightings[0]).assign(split=split, seed=seed))
        pd.concat(tables).to_csv(path, index=False, float_format="%.8g")

    return pd.read_csv(study.table("mse.csv", inputs, make))


def _error_rows(study, seed, x0, optimal, noise_seed, labels):
    models = {w: study.model(w, seed) for w in study.experiment.weightings}
    timesteps, kind = study.experiment.curve_timesteps, study.prediction_type
    return mse_by_timestep(
        models, x0, timesteps, study.schedule, prediction_type=kind, seed=noise_seed, optimal=optimal, labels=labels
    )


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
    trivial = (table.model == "optimum") & table.quantity.isin(QUANTITIES[3:])  # zero by definition
    return pd.concat([table[~trivial], floor])


OF_ALL = {
    "gate": gate,
    "weights": weights,
    "gradient_noise": gradient_noise,
    "one_step": one_step,
    "mse": mse,
    "bias": bias,
    "arm_errors": arm_errors,
    "real_distances": real_distances,
    "oracle_swap": oracle_swap,
    "oracle_swap_samples": oracle_swap_samples,
}
_MINUTES = 24 * 60  # that one process may wait for another: as long as a batch of images takes
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
    with processes(_MINUTES) as world:
        with world.together():
            study = _checked(arguments, world)
        if world.size > 1 and "distances" in arguments.names:
            draw_together(study, arguments.weighting, arguments.seed)
    for name in arguments.names if world.first else ():
        if name in OF_ALL:
            OF_ALL[name](study)
        else:
            OF_ONE[name](study, arguments.weighting, arguments.seed)


def _checked(arguments, world):
    """The study of a command line; raises InputError for anything wrong in it."""
    for name in arguments.names:
        check_choice("measurement", name, [*OF_ALL, *OF_ONE])
        if name in OF_ONE and arguments.weighting is None:
            raise InputError(f"the measurement {name!r} is of one run; name its --weighting and --seed")
    study = open_study(arguments.experiment, arguments.dataset, arguments.results)
    if set(arguments.names) & set(OF_ONE):
        study.experiment.train_config(arguments.weighting, arguments.seed)
    config = study.experiment.train_config(*study.experiment.runs[0])
    world.check(config.device, world.size)  # a missing run checks its own batch
    torch.set_num_threads(config.threads)
    return study


if __name__ == "__main__":
    run_command(main)
