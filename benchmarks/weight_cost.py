"""What a loss weight costs: building its table, and the training step against the constant weight's. Prints Markdown.

python -m benchmarks.weight_cost               # from the root of the checkout
python benchmarks/weight_cost.py --pairs 100   # more pairs of steps
"""

import argparse
import datetime
import platform
import statistics
import time
import timeit

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel, compute_snr

from debiaslib import Schedule, loss_weight
from debiaslib.cli import run_command
from debiaslib.data.minifaces import render
from debiaslib.diffusion.randomness import stream, stream_seed
from debiaslib.diffusion.sampling import to_float
from debiaslib.diffusion.strategies import KNOWN, parse_strategy
from debiaslib.errors import check_number
from debiaslib.study.experiment import load_experiment
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective

T, GAMMA, BASE = 1000, 5, "constant"
_IMAGES, _WARM_UP = 512, 4


def microseconds(function, repeats):
    """Median time of one call of `function`, over `repeats` rounds of ten calls each."""
    function()  # the first call parses the strategy and warms the allocator
    return statistics.median(timeit.repeat(function, number=10, repeat=repeats)) / 10 * 1e6


def peer_min_snr(scheduler, t):
    """The Min-SNR weight of a batch as the diffusers training examples write it, at every step anew."""
    snr = compute_snr(scheduler, t)
    return torch.stack([snr, GAMMA * torch.ones_like(snr)], dim=1).min(dim=1)[0] / snr


def table_rows(repeats, batch_size):
    """(what, how often, microseconds) of every strategy's table and of a batch's weights, the peer's last."""
    schedule, scheduler = Schedule.linear(T), DDPMScheduler(T)
    t = torch.randint(T, (batch_size,), generator=stream(0, "timesteps"))
    factor = loss_weight(f"min_snr(gamma={GAMMA})", schedule).float()
    torch.testing.assert_close(factor[t], peer_min_snr(scheduler, t), rtol=1e-3, atol=0)
    once = [(name, lambda name=name: loss_weight(name, schedule)) for name in KNOWN]
    once.append(("debiased, from a diffusers scheduler", lambda: loss_weight("debiased", scheduler)))
    rows = [(f"`loss_weight`: {name}", "training", microseconds(build, repeats)) for name, build in once]
    rows.append(("ours: `table[t]`, any strategy", "step", microseconds(lambda: factor[t], repeats)))
    peer = microseconds(lambda: peer_min_snr(scheduler, t), repeats)
    rows.append(("diffusers: Min-SNR by `compute_snr`", "step", peer))
    return rows


class Trainer:
    """Network, optimiser and EMA of a configuration, to be stepped by any objective, as `training.py` does it."""

    def __init__(self, config):
        self.config = config
        self.network = build_network(config).to(config.device).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.ema = EMAModel(self.network.parameters(), decay=config.ema_decay, foreach=True)
        self.pixels = torch.from_numpy(render(np.arange(_IMAGES), config.resolution))

    def batch(self, objective, step):
        """Images, timesteps and noise of a step, from (seed, purpose, step): the same for every uniform objective."""
        config = self.config
        index = torch.randint(_IMAGES, (config.batch_size,), generator=stream(config.seed, "images", step))
        x0 = to_float(self.pixels[index]).to(config.device)
        generator = stream(config.seed, "noise", step, config.device)
        return x0, objective.timesteps(step), torch.randn(x0.shape, generator=generator, device=config.device)

    def step(self, objective, step):
        """One training step from batch to EMA; return its seconds."""
        started = time.perf_counter()
        torch.manual_seed(stream_seed(self.config.seed, "dropout", step))
        loss, mse = objective.loss(self.network, *self.batch(objective, step))
        loss.backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if not bool(torch.stack([loss.detach(), mse, norm]).double().cpu().isfinite().all()):
            raise FloatingPointError(f"the loss of {objective.config.weighting} is not finite at step {step}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        return time.perf_counter() - started


def paired_seconds(experiment, weighting, pairs):
    """Seconds of the base's and of the weighting's steps, taken in turn (A B A B): two lists of `pairs`.

    Both step the same network on the same batches, so that nothing but the objective differs: two networks would differ
    in where they lie in memory, which is worth more than what is measured.
    """
    configs = [experiment.train_config(name, 0) for name in (BASE, weighting)]
    objectives = [Objective(config) for config in configs]
    trainer = Trainer(configs[0])
    for number in range(_WARM_UP):
        trainer.step(objectives[number % 2], number)
    times = [[trainer.step(objective, _WARM_UP + pair) for objective in objectives] for pair in range(pairs)]
    return [list(side) for side in zip(*times, strict=True)]


def step_row(experiment, weighting, pairs):
    """A row of the second table: medians of both sides, their ratio, and the pairs' ratios."""
    base, other = paired_seconds(experiment, weighting, pairs)
    ratios = sorted(b / a for a, b in zip(base, other, strict=True))
    medians = [statistics.median(side) for side in (base, other)]
    label = f"{weighting} (again: the noise)" if weighting == BASE else str(parse_strategy(weighting))
    return (
        f"| {label} | {pairs} | {medians[0] * 1e3:.1f} | {medians[1] * 1e3:.1f} | {medians[1] / medians[0]:.3f} "
        f"| {ratios[0]:.3f} | {statistics.median(ratios):.3f} | {ratios[-1]:.3f} |"
    )


def report(pairs, other_pairs, repeats):
    """Measure and print both tables."""
    experiment = load_experiment("quick")
    config = experiment.train_config(BASE, 0)
    torch.set_num_threads(config.threads)
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"device {config.device}, threads {torch.get_num_threads()}.\n"
    )
    print(
        f"Weights, T = {T}, batch of {config.batch_size}, tables float64 (diffusers: float32). "
        f"Median of {repeats} rounds of ten.\n"
    )
    rows = table_rows(repeats, config.batch_size)
    peer = rows[-1][2]
    print("| weight | once a | microseconds | ratio to diffusers' Min-SNR |\n|---|---|---:|---:|")
    for what, often, value in rows:
        print(f"| {what} | {often} | {value:.1f} | {value / peer:.2f} |")
    side = config.resolution
    print(
        f"\nTraining step, network of `quick`, batch {config.batch_size} of 3x{side}x{side}, {config.precision}, AdamW "
        f"and EMA, {config.prediction_type}. Paired with `{BASE}`.\n"
    )
    print("| weight | pairs | constant, ms | weight, ms | ratio of medians | pairs: min | median | max |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for weighting in ("debiased", BASE, *(name for name in KNOWN if name not in ("debiased", BASE))):
        print(step_row(experiment, weighting, pairs if weighting in ("debiased", BASE) else other_pairs), flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20, help="pairs of steps for debiased, and for constant twice")
    parser.add_argument("--other-pairs", type=int, default=8, help="pairs of steps for each other weight")
    parser.add_argument("--repeats", type=int, default=200, help="rounds of ten calls for each table")
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        check_number(f"--{name.replace('_', '-')}", value, minimum=1, integer=True)
    report(arguments.pairs, arguments.other_pairs, arguments.repeats)


if __name__ == "__main__":
    run_command(main)
