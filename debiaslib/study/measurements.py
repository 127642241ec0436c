"""The command that makes the tables of an experiment, results/<experiment>/tables/, from its trained networks.

    python -m debiaslib.study.measurements mse --experiment quick
    python -m debiaslib.study.measurements samples distances --experiment quick --weighting debiased --seed 0
    torchrun --standalone --nproc-per-node 4 -m debiaslib.study.measurements distances --weighting debiased

Several processes draw the samples that distances need together, and train the run if it is missing; the first process
does the rest. Each of these functions returns its table, from the file if it was made from equal inputs. Figures are
drawn from these files alone.
"""

import torch

from ..cli import experiment_parser, run_command
from ..errors import InputError, check_choice
from ..training.processes import processes
from .bias import bias
from .control_tables import arm_errors
from .distances import distances, draw_together, real_distances
from .gate import gate
from .gradient_noise import gradient_noise
from .mse import mse, one_step
from .oracle_swap import oracle_swap, oracle_swap_samples
from .samples import samples, training_samples
from .study import open_study
from .weights import weights

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
_MINUTES = 24 * 60  # that a process may wait for another one, which is drawing a batch of images
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
