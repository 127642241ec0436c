"""What an experiment will cost, before it starts and without its data or its device: FLOPs, hours and disk.

Counted are the convolutions, matrix products and attention of the experiment's own networks, a multiplication and an
addition being two FLOPs (`torch.utils.flop_counter`, on the meta device). Not counted are feature networks, the exact
optimum and the notebooks, which are small beside them at the paper's scale.
"""

import json
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.images import IMAGES
from ..diffusion.prediction import network_output
from ..diffusion.solvers import evaluations
from ..errors import check_number
from ..training.checkpoints import KEPT
from ..training.network import build_network, build_schedule
from ..training.objective import training_weight
from .experiment import load_experiment
from .gradient_noise import BATCHES, LARGEST_BATCH, WAYS
from .samples import judged_jobs

__all__ = ["Estimate", "RATES", "dry_run", "estimate", "network_cost"]

# TFLOP/s that a network is assumed to reach: of an H200, an Apple GPU, and one thread of a processor with bfloat16
# units. They are no promise: networks as small as those of `quick` stay far below. --tflops gives a measured one.
RATES = {
    ("cuda", "bfloat16"): 300.0,
    ("cuda", "float32"): 40.0,
    ("mps", "bfloat16"): 3.0,
    ("mps", "float32"): 3.0,
    ("cpu", "bfloat16"): 0.175,
    ("cpu", "float32"): 0.08,
}
_FLOAT = 4  # bytes
_STATES = 4  # a checkpoint holds the network, its moving average and the two moments of Adam
_TRAINING_IMAGE = 3  # images through the network: forward, and twice that backward


@dataclass(frozen=True)
class Estimate:
    """The cost of an experiment. FLOPs are of one image; `calls` are images through a network; `disk` is in bytes.

    tflops: the rates assumed in training and, always in float32, in sampling and measuring. `disk["images"]` is None
    for a data set of unknown size.
    """

    name: str
    device: str
    precision: str
    trainings: int
    images: int
    parameters: int
    forward: int
    training: int
    calls: dict
    flop: dict
    tflops: tuple
    disk: dict

    @property
    def hours(self):
        """Hours of the device by kind of work."""
        rate = {"training": self.tflops[0]}
        return {kind: flop / (rate.get(kind, self.tflops[1]) * 1e12) / 3600 for kind, flop in self.flop.items()}

    @property
    def table(self):
        """The parts: a DataFrame with columns quantity, each (of one training), all and unit."""
        import pandas as pd

        n = self.trainings
        rows = [("trainings", 1, n, ""), ("images seen in training", self.images / n, self.images, "images")]
        rows += [("parameters of a network", self.parameters, None, "")]
        rows += [("forward, an image", self.forward / 1e9, None, "GFLOP")]
        rows += [("training, an image", self.training / 1e9, None, "GFLOP")]
        rows += [(f"{kind} calls", calls / n, calls, "images") for kind, calls in self.calls.items()]
        rows += [(f"{kind} time", hours / n, hours, "hours") for kind, hours in self.hours.items()]
        for kind, size in self.disk.items():
            shared = kind == "images"
            rows.append((f"disk: {kind}", None if shared or size is None else size / n / 1e9,
                         None if size is None else size / 1e9, "GB"))  # fmt: skip
        return pd.DataFrame(rows, columns=["quantity", "each", "all", "unit"])

    @property
    def line(self):
        """The estimate in one line."""
        training, measuring = self.tflops
        return (
            f"estimate of {self.name}: {self.trainings} trainings of {self.parameters:,} parameters, {self.images:,} "
            f"images seen, {_short(sum(self.hours.values()))} hours of {self.device} (at {training:g} TFLOP/s in "
            f"training, {measuring:g} in measuring, both assumed), "
            f"{_short(sum(size or 0 for size in self.disk.values()) / 1e9)} GB of disk"
        )


def estimate(experiment, tflops=None, measuring_tflops=None):
    """The `Estimate` of an `Experiment`. Rates in TFLOP/s replace the device's of `RATES`.

    tflops is of the training, and of measuring too where both are in float32. Raises InputError for one that is not
    above 0, and for a network or a weight that cannot be trained.
    """
    costs, totals, first = {}, _Totals(), experiment.train_config(*experiment.runs[0])
    for arm, seed in experiment.runs:
        config = experiment.train_config(arm, seed)
        key = json.dumps([config.network, config.learned_variance, config.resolution], sort_keys=True)
        training_weight(config, build_schedule(config))  # refused now, not when its turn to be trained has come
        if key not in costs:
            costs[key] = network_cost(config)
        totals.add_run(experiment, config, costs[key])
    parameters, forward, training = network_cost(first) if not costs else next(iter(costs.values()))
    measured = _measured(experiment, first)
    images = IMAGES.get(first.dataset)
    return Estimate(
        name=experiment.name,
        device=first.device,
        precision=first.precision,
        trainings=len(experiment.runs),
        images=totals.images,
        parameters=parameters,
        forward=forward,
        training=training,
        calls={"sampling": totals.sampled, "measuring": measured},
        flop={"training": totals.flop, "sampling": totals.sampling_flop, "measuring": measured * forward},
        tflops=_rates(first, tflops, measuring_tflops),
        disk={
            "images": None if images is None else images * 3 * first.resolution**2,
            "checkpoints": totals.checkpoints,
            "snapshots": totals.snapshots,
            "samples": totals.samples,
        },
    )


def network_cost(config):
    """(parameters, FLOPs of an image forward, FLOPs of an image forward and backward) of a `TrainConfig`'s network."""
    with torch.device("meta"):
        network = build_network(config, initialise=False)
        x_t, t = torch.zeros(1, 3, config.resolution, config.resolution), torch.zeros(1, dtype=torch.int64)
        labels = None if config.classes is None else torch.zeros(1, dtype=torch.int64)
    vars(network.conv_out).pop("forward", None)  # its own forward asks for autocast, which the meta device has not
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network_output(network, x_t, t, labels)
    with FlopCounterMode(display=False) as training, torch.enable_grad():
        network_output(network, x_t, t, labels).sum().backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, forward.get_total_flops(), training.get_total_flops()


class _Totals:
    """Sums over the trainings of an experiment."""

    def __init__(self):
        self.images = self.flop = self.sampled = self.sampling_flop = 0
        self.checkpoints = self.snapshots = self.samples = 0

    def add_run(self, experiment, config, cost):
        parameters, forward, training = cost
        seen = sorted(
            {-(-count // config.batch_size) * config.batch_size for count in (*config.snapshots, config.images)}
        )
        jobs = judged_jobs(experiment, config.arm, seen)
        calls = _sampling_calls(experiment, jobs, len(seen))
        if (config.arm, config.seed) in experiment.long_runs:
            long = [evaluations(sampler, s) for sampler in experiment.long_samplers for s in experiment.long_steps]
            calls += _batched(experiment, experiment.long_images) * sum(long)
            self.samples += len(long) * experiment.long_images * 3 * config.resolution**2
        self.images += seen[-1]
        self.flop += seen[-1] * training
        self.sampled += calls
        self.sampling_flop += calls * forward
        self.checkpoints += KEPT * _STATES * _FLOAT * parameters
        self.snapshots += (len(seen) + 1) * _FLOAT * parameters  # and the weights of the last step
        self.samples += len(jobs) * experiment.distance_images * 3 * config.resolution**2


def _sampling_calls(experiment, jobs, snapshots):
    """Images through the network for one training's samples; every batch has the full size."""
    e = experiment
    judged, shown = (_batched(e, count) for count in (e.distance_images, e.grid_images))
    grids = sum(evaluations(e.sampler, steps) for steps in e.grid_steps)
    grids += snapshots * evaluations(e.sampler, e.snapshot_steps[-1])
    return judged * sum(evaluations(job["sampler"], job["steps"]) for job in jobs) + shown * grids


def _batched(experiment, count):
    batch = experiment.sampling_batch_size
    return -(-count // batch) * batch


def _measured(e, config):
    """Images through the networks for the tables of the whole experiment, a training image counted three times."""
    networks = len(e.weightings) * len(e.seeds)
    splits = 2 + (2 if config.dataset == "gaussian" else 1)  # of mse.csv, and of bias.csv
    calls = len(e.weightings) * len(e.shown_timesteps) * e.shown_images
    calls += networks * len(e.curve_timesteps) * e.curve_images * splits
    if e.variants:
        judged = len(e.arms) + (len(e.weightings) if e.raw_weights else 0)
        calls += judged * len(e.seeds) * len(e.shown_timesteps) * e.curve_images
    ways = len(WAYS) - config.learned_variance
    return calls + _TRAINING_IMAGE * len(e.weightings) * BATCHES * ways * min(config.batch_size, LARGEST_BATCH)


def _rates(config, tflops, measuring):
    for name, rate in (("tflops", tflops), ("measuring_tflops", measuring)):
        if rate is not None:
            check_number(name, rate, above=0)
    kind, precision = config.device.partition(":")[0], config.precision
    if precision == "auto":  # what it will be is asked of the device, when there is one
        precision = "bfloat16" if kind == "cuda" else "float32"
    scale = config.threads if kind == "cpu" else 1
    if measuring is None:
        measuring = tflops if tflops and precision == "float32" else scale * RATES[kind, "float32"]
    return tflops or scale * RATES[kind, precision], measuring


def _short(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def dry_run(experiment, dataset="", tflops=None, measuring_tflops=None):
    """Print what an experiment will cost, part by part, and return its `Estimate`; nothing is started.

    Raises InputError for anything wrong in the experiment's file, and for a rate that is not above 0.
    """
    found = estimate(load_experiment(experiment, dataset), tflops, measuring_tflops)
    table = found.table
    for column in ("each", "all"):
        table[column] = ["" if value != value else _short(value) for value in table[column].astype(float)]
    print(found.line)
    print(table.to_string(index=False))
    if found.disk["images"] is None:
        print("the size of the data set is not known: its images come on top, R x R x 3 bytes each")
    return found
