"""Train one (weighting, seed) of an experiment, resumable to the bit."""

from ..cli import experiment_parser, run_command
from ..paths import checkout
from ..study.experiment import load_experiment
from .loop import train
from .processes import processes
from .published_weights import take_published
from .run import find_run


def main():
    """The command line: train one (weighting, seed) of an experiment."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--weighting", required=True, help="such as 'debiased' or 'p2(k=1); lr=5e-4'")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.experiment, arguments.dataset)
    config = experiment.train_config(arguments.weighting, arguments.seed)
    with processes() as world:
        if experiment.weights and world.first:
            run = find_run(experiment.name, config.arm, config.seed, arguments.results)
            take_published(checkout() / experiment.weights, run)
        train(config, arguments.results, experiment.name)


if __name__ == "__main__":
    run_command(main)
