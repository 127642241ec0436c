"""The command that makes the tables of an experiment, results/<experiment>/tables/, from its trained networks.

    python -m debiaslib.study.measurements mse --experiment quick
    python -m debiaslib.study.measurements samples distances --experiment quick --weighting debiased --seed 0
    torchrun --standalone --nproc-per-node 4 -m debiaslib.study.measurements distances --weighting debiased

Several processes draw the samples that distances need together, and train the run if it is missing; the first process
does the rest. Each function returns its table, from the file if it was made from equal inputs.
"""

import torch

from ..cli import experiment_parser, run_command
from ..errors import InputError, check_choice
from ..training.processes import processes
from .bias import bias
from .distances import distances, draw_together, real_distances
from .gate import gate
from .gradient_noise import gradient_noise
from .mse import arm_errors, mse, one_step
from .oracle_swap import oracle_swap, oracle_swap_samples
from .samples import samples, training_samples
from .study import open_study
from .weights import weights

_ALL = (gate, weights, gradient_noise, one_step, mse, bias, arm_errors, real_distances, oracle_swap,
        oracle_swap_samples)  # fmt: skip
OF_ALL = {make.__name__: make for make in _ALL}
OF_ONE = {make.__name__: make for make in (samples, training_samples, distances)}
_MINUTES = 24 * 60  # that a process may wait for another one, which is drawing a batch of images


def main(arguments=None):
    """The command line: make the named tables of an experiment, or of one (weighting, seed)."""
    parser = experiment_parser(__doc__.splitlines()[0])
    known = f"of the experiment: {', '.join(OF_ALL)}; of one run: {', '.join(OF_ONE)}"
    parser.add_argument("names", nargs="+", help=known)
    parser.add_argument("--weighting", help="for the tables of one run")
    parser.add_argument("--seed", type=int, default=0, help="for the tables of one run")
    options = parser.parse_args(arguments)
    with processes(_MINUTES) as world:
        study = _checked(options, world)
        if world.size > 1 and "distances" in options.names:
            draw_together(study, options.weighting, options.seed)
    for name in options.names if world.first else ():
        if name in OF_ALL:
            OF_ALL[name](study)
        else:
            OF_ONE[name](study, options.weighting, options.seed)


def _checked(options, world):
    """The study of a command line; raises InputError for anything wrong in it."""
    for name in options.names:
        check_choice("measurement", name, [*OF_ALL, *OF_ONE])
        if name in OF_ONE and options.weighting is None:
            raise InputError(f"the measurement {name!r} is of one run; name its --weighting and --seed")
    study = open_study(options.experiment, options.dataset, options.results)
    if set(options.names) & set(OF_ONE):
        study.experiment.train_config(options.weighting, options.seed)
    config = study.experiment.train_config(*study.experiment.runs[0])
    world.check(config.device, world.size)  # a missing run checks its own batch
    torch.set_num_threads(config.threads)
    return study


if __name__ == "__main__":
    run_command(main)
