"""How much of the bare network's throughput sampling reaches, for each sampler. Prints Markdown.

python -m benchmarks.sampling_throughput               # from the root of the checkout
python benchmarks/sampling_throughput.py --pairs 50    # more pairs of batches
"""

import argparse
import datetime
import platform
import statistics
import time

import torch

from debiaslib.cli import run_command
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import check_number
from debiaslib.study.experiment import SAMPLERS, load_experiment
from debiaslib.training.network import build_network


class Timed:
    """The network, with the CPU time that its calls took."""

    def __init__(self, network):
        self.network, self.seconds = network, 0.0

    def __call__(self, x, t):
        started = time.process_time()
        output = self.network(x, t)
        self.seconds += time.process_time() - started
        return output


@torch.no_grad()
def bare_seconds(network, shape, batch_size, calls):
    """CPU time of so many calls of the bare network on a batch of noise."""
    x, t = torch.randn(batch_size, *shape), torch.full((batch_size,), 500)
    started = time.process_time()
    for _ in range(calls):
        network(x, t)
    return time.process_time() - started


def sampling_seconds(network, shape, batch_size, sampler, steps):
    """CPU time of one sampled batch, and the share of it that was spent within the network."""
    timed, settings = Timed(network), {"sampler": sampler, "steps": steps, "batch_size": batch_size}
    started = time.process_time()
    sample(timed, Schedule.linear(), range(batch_size), shape=shape, **settings)
    seconds = time.process_time() - started
    return seconds, timed.seconds / seconds


def row(network, shape, batch_size, sampler, steps, pairs):
    """A row of the table. Bare calls and sampled batches take turns (A B B A), as many calls in each."""
    calls, bare, sampled = steps, [], []
    for pair in range(pairs):
        if pair % 2 == 0:
            bare.append(bare_seconds(network, shape, batch_size, calls))
        sampled.append(sampling_seconds(network, shape, batch_size, sampler, steps))
        if pair % 2 == 1:
            bare.append(bare_seconds(network, shape, batch_size, calls))
    seconds, shares = zip(*sampled, strict=True)
    ratios = [a / b for a, b in zip(bare, seconds, strict=True)]
    medians = [statistics.median(side) / calls * 1e3 for side in (bare, seconds)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {sampler} | {calls} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[0] / medians[1]:.3f} "
        f"| {low:.3f} | {statistics.median(ratios):.3f} | {high:.3f} | {statistics.median(shares):.3f} |"
    )


def report(pairs, steps, batch_size):
    """Measure and print the table."""
    config = load_experiment("quick").train_config("debiased", 0)
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    network, side = build_network(config).eval(), config.resolution
    shape = (3, side, side)
    bare_seconds(network, shape, batch_size, 2)  # the first calls warm the allocator
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, device cpu, "
        f"threads {torch.get_num_threads()}.\n"
    )
    print(
        f"Network of `quick`, float32, batch {batch_size} of 3x{side}x{side}, {steps} steps, {pairs} pairs of batches; "
        "CPU time.\n"
    )
    columns = "bare call, ms | sampling, ms a call | ratio of medians | pairs: lower quartile | median | upper quartile"
    print(f"| sampler | calls | {columns} | share within the network |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for sampler in SAMPLERS:
        print(row(network, shape, batch_size, sampler, steps, pairs), flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20, help="pairs of batches for each sampler")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps")
    parser.add_argument("--batch-size", type=int, default=64, help="images a batch")
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        check_number(f"--{name.replace('_', '-')}", value, minimum=2 if name == "pairs" else 1, integer=True)
    report(arguments.pairs, arguments.steps, arguments.batch_size)


if __name__ == "__main__":
    run_command(main)
