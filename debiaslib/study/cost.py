"""What an experiment will cost, before it starts and without its data or its device: FLOPs, hours and disk.

Counted are the convolutions, matrix products and attention of the experiment's own networks in training and sampling, a
multiplication and an addition being two FLOPs (`torch.utils.flop_counter`, on the meta device). Not counted are feature
networks, errors by timestep, the exact optimum and the notebooks, which are small beside them at the paper's scale.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.images import IMAGES
from ..diffusion.prediction import network_output
from ..errors import check_number
from ..training.checkpoints import KEPT
from ..training.network import build_network, build_schedule
from ..training.objective import training_weight
from .experiment import load_experiment
from .samples import sampling_jobs

# TFLOP/s that a network is assumed to reach in (bfloat16, float32): of an H200, an Apple GPU, and one thread of a
# processor with bfloat16 units. Networks as small as those of `quick` stay far below. --tflops gives a measured one.
RATES = {"cuda": (300.0, 40.0), "mps": (3.0, 3.0), "cpu": (0.175, 0.08)}
_STATE = 4 * 4  # bytes of a parameter in a checkpoint: network, moving average and Adam's two moments, in float32


@dataclass
class Estimate:
    """Images through a network (`calls`) and hours by kind of work; `disk` in bytes."""

    line: str
    calls: dict
    hours: dict
    disk: dict


def estimate(experiment, tflops=None):
    """The `Estimate` of an `Experiment`. tflops: of the device in training, in place of what `RATES` assumes.

    Raises InputError for a rate that is not above 0, and for a network or a weight that cannot be trained.
    """
    e, costs, first = experiment, {}, experiment.train_config(*experiment.runs[0])
    rates = _rates(first, tflops)
    calls, hours = dict.fromkeys(rates, 0), dict.fromkeys(rates, 0.0)
    disk = {"images": IMAGES.get(first.dataset, 0) * 3 * first.resolution**2}
    disk |= dict.fromkeys(("checkpoints", "snapshots", "samples"), 0)
    for arm, seed in e.runs:
        config = e.train_config(arm, seed)
        training_weight(config, build_schedule(config))  # refused now, not when its turn to be trained has come
        if config.learned_variance not in costs:  # all else of the network is the same in every arm
            costs[config.learned_variance] = network_cost(config)
        parameters, forward, training = costs[config.learned_variance]
        jobs = sampling_jobs(e, config.arm, config.snapshot_images)
        seen, drawn = config.steps * config.batch_size, _drawn(e, jobs, config)
        for kind, images, flop in (("training", seen, training), ("sampling", drawn, forward)):
            calls[kind] += images
            hours[kind] += images * flop / rates[kind] / 3.6e15
        disk["checkpoints"] += KEPT * _STATE * parameters
        disk["snapshots"] += (len(config.snapshot_images) + 1) * 4 * parameters  # and the weights of the last step
        disk["samples"] += len(jobs) * e.distance_images * 3 * config.resolution**2
    line = (
        f"estimate of {e.name}: {len(e.runs)} trainings of {costs[first.learned_variance][0]:,} parameters, "
        f"{calls['training']:,} images seen, {_short(sum(hours.values()))} hours of {first.device} (at "
        f"{rates['training']:g} TFLOP/s in training, {rates['sampling']:g} in sampling, both assumed), "
        f"{_short(sum(disk.values()) / 1e9)} GB of disk"
    )
    return Estimate(line, calls, hours, disk)


def network_cost(config):
    """(parameters, FLOPs of an image forward, FLOPs of an image forward and backward) of a `TrainConfig`'s network."""
    with torch.device("meta"):
        network = build_network(config, initialise=False)
        x_t, t = torch.zeros(1, 3, config.resolution, config.resolution), torch.zeros(1, dtype=torch.int64)
    labels = None if config.classes is None else t
    vars(network.conv_out).pop("forward", None)  # its own forward asks for autocast, which the meta device has not
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network_output(network, x_t, t, labels)
    with FlopCounterMode(display=False) as training, torch.enable_grad():
        network_output(network, x_t, t, labels).sum().backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, forward.get_total_flops(), training.get_total_flops()


def _drawn(e, jobs, config):
    """Images through the network for one training's samples; every batch has the full size."""
    judged, shown = (-(-n // e.sampling_batch_size) * e.sampling_batch_size for n in (e.distance_images, e.grid_images))
    grids = [*e.grid_steps, *[e.snapshot_steps[-1]] * len(config.snapshot_images)]
    return judged * sum(job["steps"] for job in jobs) + shown * sum(grids)


def _rates(config, tflops):
    """TFLOP/s {"training", "sampling"}; samples are drawn in float32 always."""
    kind, half = config.device.partition(":")[0], config.precision == "bfloat16"
    bfloat16, float32 = ((config.threads if kind == "cpu" else 1) * rate for rate in RATES[kind])
    training = bfloat16 if half else float32
    if tflops is not None:
        training = check_number("tflops", tflops, above=0)
    return {"training": training, "sampling": float32 if half else training}


def _short(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def dry_run(experiment, dataset="", tflops=None):
    """Print what an experiment will cost, part by part, and return its `Estimate`; nothing is started."""
    found = estimate(load_experiment(experiment, dataset), tflops)
    print(found.line)
    for kind, calls in found.calls.items():
        print(f"  {kind:12} {_short(calls):>14} images through a network {_short(found.hours[kind]):>8} hours")
    for kind, size in found.disk.items():
        print(f"  {kind:12} {_short(size / 1e9):>14} GB" if size else f"  {kind:12} of unknown size")
    return found
