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
_WEIGHT = 4  # bytes; a checkpoint holds the network, its moving average and the two moments of Adam


@dataclass
class Estimate:
    """Images through a network (`calls`), FLOPs and hours by kind of work; `disk` in bytes."""

    line: str
    calls: dict
    flop: dict
    hours: dict
    disk: dict


def estimate(experiment, tflops=None):
    """The `Estimate` of an `Experiment`. tflops: of the device in training, in place of what `RATES` assumes.

    Samples are drawn in float32 always. Raises InputError for a rate that is not above 0, and for a network or a weight
    that cannot be trained.
    """
    e, costs, first = experiment, {}, experiment.train_config(*experiment.runs[0])
    rates = _rates(first, tflops)
    calls, flop = (dict.fromkeys(rates, 0) for _ in range(2))
    disk = {"images": IMAGES.get(first.dataset, 0) * 3 * first.resolution**2}
    disk |= dict.fromkeys(("checkpoints", "snapshots", "samples"), 0)
    for arm, seed in e.runs:
        config = e.train_config(arm, seed)
        training_weight(config, build_schedule(config))  # refused now, not when its turn to be trained has come
        if config.learned_variance not in costs:  # all else of the network is the same in every arm
            costs[config.learned_variance] = network_cost(config)
        parameters, forward, training = costs[config.learned_variance]
        seen = sorted({-(-n // config.batch_size) * config.batch_size for n in (*config.snapshots, config.images)})
        jobs = sampling_jobs(e, config.arm, seen)
        for kind, images, each in (("training", seen[-1], training), ("sampling", _drawn(e, jobs, len(seen)), forward)):
            calls[kind], flop[kind] = calls[kind] + images, flop[kind] + images * each
        disk["checkpoints"] += KEPT * 4 * _WEIGHT * parameters
        disk["snapshots"] += (len(seen) + 1) * _WEIGHT * parameters  # and the weights of the last step
        disk["samples"] += len(jobs) * e.distance_images * 3 * config.resolution**2
    hours = {kind: flop[kind] / rates[kind] / 3.6e15 for kind in flop}
    line = (
        f"estimate of {e.name}: {len(e.runs)} trainings of {costs[first.learned_variance][0]:,} parameters, "
        f"{calls['training']:,} images seen, {_short(sum(hours.values()))} hours of {first.device} (at "
        f"{rates['training']:g} TFLOP/s in training, {rates['sampling']:g} in sampling, both assumed), "
        f"{_short(sum(disk.values()) / 1e9)} GB of disk"
    )
    return Estimate(line, calls, flop, hours, disk)


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


def _drawn(e, jobs, snapshots):
    """Images through the network for one training's samples; every batch has the full size."""
    judged, shown = (-(-n // e.sampling_batch_size) * e.sampling_batch_size for n in (e.distance_images, e.grid_images))
    grids = [*e.grid_steps, *[e.snapshot_steps[-1]] * snapshots]
    return judged * sum(job["steps"] for job in jobs) + shown * sum(grids)


def _rates(config, tflops):
    """TFLOP/s {"training", "sampling"}."""
    kind = config.device.partition(":")[0]
    half = config.precision == "bfloat16"
    scale = config.threads if kind == "cpu" else 1
    bfloat16, float32 = (scale * rate for rate in RATES[kind])
    if tflops is None:
        return {"training": bfloat16 if half else float32, "sampling": float32}
    check_number("tflops", tflops, above=0)
    return {"training": tflops, "sampling": float32 if half else tflops}


def _short(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def dry_run(experiment, dataset="", tflops=None):
    """Print what an experiment will cost, part by part, and return its `Estimate`; nothing is started.

    Raises InputError for anything wrong in the experiment's file, and for a rate that is not above 0.
    """
    found = estimate(load_experiment(experiment, dataset), tflops)
    print(found.line)
    for kind, calls in found.calls.items():
        print(f"  {kind:12} {_short(calls):>14} images through a network {_short(found.hours[kind]):>8} hours")
    for kind, size in found.disk.items():
        print(f"  {kind:12} {_short(size / 1e9):>14} GB" if size else f"  {kind:12} of unknown size")
    return found
