"""The command that makes the tables of an experiment, results/<experiment>/tables/, from its trained networks.

    python -m debiaslib.study.measurements mse --experiment quick
    python -m debiaslib.study.measurements samples distances --experiment quick --weighting debiased --seed 0

Each function returns its table, from the file if it was made from equal inputs.
"""

import pandas as pd
import torch

from ..cli import experiment_parser, run_command
from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.strategies import parse_strategy
from ..diffusion.weighting import loss_weight
from ..errors import InputError, check_choice
from ..files import sha256_file
from ..training.config import run_name
from . import controls
from .bias import bias
from .distances import distances, real_distances
from .gate import gate
from .mse import arm_errors, mse, one_step
from .oracle_swap import oracle_swap, oracle_swap_samples
from .samples import samples, training_samples
from .study import open_study


def weights(study):
    """The weights by timestep in each parametrisation, raw and divided by the mean of the epsilon weight."""
    inputs = {"weightings": study.formulas, "schedule": study.schedule.name, "T": study.schedule.T}
    pairs = [(weighting, kind) for weighting in study.formulas for kind in PREDICTION_TYPES]
    return study.csv("weights.csv", inputs, lambda: pd.concat(_weights(study.schedule, *p) for p in pairs), digits=7)


def _weights(schedule, weighting, prediction_type):
    snr = schedule.snr[schedule.snr > 0]  # at SNR = 0 weights of the epsilon loss are infinite
    raw, epsilon = loss_weight(weighting, snr, prediction_type), loss_weight(weighting, snr)
    facts = {"weighting": weighting, "label": parse_strategy(weighting).label, "prediction_type": prediction_type}
    numbers = {"raw": raw, "normalized": raw / epsilon.mean(), "share": epsilon.cumsum(0) / epsilon.sum()}
    return pd.DataFrame({"t": range(len(snr)), "snr": snr, **facts, **numbers})


def arm_outcomes(study):
    """The outcomes of every training of the experiment: a DataFrame, see `controls.outcomes`."""
    return controls.outcomes(pd.concat([distances(study, *run) for run in study.experiment.runs]), arm_errors(study))


def control_ratios(study):
    """The contrasts between the arms, tables/controls.csv: a DataFrame, see `controls.contrasts`."""
    outcomes = arm_outcomes(study)
    return study.csv("controls.csv", _outcome_inputs(study), lambda: controls.contrasts(outcomes), digits=6)


def learning_rates(study):
    """Every outcome by learning rate, tables/learning_rates.csv: a DataFrame, see `controls.sweep`."""
    outcomes, e = arm_outcomes(study), study.experiment
    inputs = {**_outcome_inputs(study), "rates": {arm: e.train_config(arm, e.seeds[0]).lr for arm in e.arms}}
    return study.csv("learning_rates.csv", inputs, lambda: controls.sweep(outcomes, inputs["rates"].get), digits=6)


def _outcome_inputs(study):
    names = [*sorted(f"distances-{run_name(*run)}.csv" for run in study.experiment.runs), "arm_errors.csv"]
    tables = {name: sha256_file(study.folder / "tables" / name) for name in names}
    return {"outcomes": controls.OUTCOMES, "base": controls.BASE, "tables": tables}


_ALL = (gate, weights, one_step, mse, bias, arm_errors, real_distances, oracle_swap, oracle_swap_samples)
OF_ALL = {make.__name__: make for make in _ALL}
OF_ONE = {make.__name__: make for make in (samples, training_samples, distances)}


def main(arguments=None):
    """The command line: make the named tables of an experiment, or of one (weighting, seed)."""
    parser = experiment_parser(__doc__.splitlines()[0])
    known = f"of the experiment: {', '.join(OF_ALL)}; of one run: {', '.join(OF_ONE)}"
    parser.add_argument("names", nargs="+", help=known)
    parser.add_argument("--weighting", help="for the tables of one run")
    parser.add_argument("--seed", type=int, default=0, help="for the tables of one run")
    options = parser.parse_args(arguments)
    for name in options.names:
        check_choice("measurement", name, [*OF_ALL, *OF_ONE])
        if name in OF_ONE and options.weighting is None:
            raise InputError(f"the measurement {name!r} is of one run; name its --weighting and --seed")
    study = open_study(options.experiment, options.dataset, options.results)
    torch.set_num_threads(study.config.threads)
    for name in options.names:
        run = () if name in OF_ALL else (options.weighting, options.seed)
        {**OF_ALL, **OF_ONE}[name](study, *run)


if __name__ == "__main__":
    run_command(main)
