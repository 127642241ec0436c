"""The command that makes the tables of an experiment, results/<experiment>/tables/, from its trained networks.

    python -m debiaslib.study.measurements mse --experiment quick
    python -m debiaslib.study.measurements samples distances --experiment quick --weighting debiased --seed 0

Each function returns its table, from the file if it was made from equal inputs.
"""

import torch

from ..cli import experiment_parser, run_command
from ..errors import InputError, check_choice
from .bias import bias
from .distances import distances, real_distances
from .gate import gate
from .mse import arm_errors, mse, one_step
from .oracle_swap import oracle_swap, oracle_swap_samples
from .samples import samples, training_samples
from .study import open_study
from .weights import weights

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
        if name in OF_ALL:
            OF_ALL[name](study)
        else:
            OF_ONE[name](study, options.weighting, options.seed)


if __name__ == "__main__":
    run_command(main)
