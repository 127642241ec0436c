"""What an experiment will cost, before it starts and without its data or its device: FLOPs and hours.

Counted are the experiment's own networks in training and sampling, a multiplication and an addition being two FLOPs
(`torch.utils.flop_counter`, on the meta device). All else is small beside them at the paper's scale.
"""

from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..diffusion.prediction import network_output
from ..training.network import build_network, build_schedule
from ..training.objective import training_weight
from .samples import sampling_jobs

# TFLOP/s that a network is assumed to reach in (bfloat16, float32): of an H200, an Apple GPU, and one thread of a
# processor with bfloat16 units. Small networks stay far below.
RATES = {"cuda": (300.0, 40.0), "mps": (3.0, 3.0), "cpu": (0.175, 0.08)}


def estimate(experiment):
    """Images through a network, `calls`, and `hours`, each of training and of sampling, and all in one `line`.

    Raises InputError for a network or a weight that cannot be trained.
    """
    e, costs, first = experiment, {}, experiment.train_config(*experiment.runs[0])
    kind, half = first.device.partition(":")[0], first.precision == "bfloat16"
    bfloat16, float32 = ((first.threads if kind == "cpu" else 1) * rate for rate in RATES[kind])
    rates = {"training": bfloat16 if half else float32, "sampling": float32}  # samples are drawn in float32 always
    calls, hours = dict.fromkeys(rates, 0), dict.fromkeys(rates, 0.0)
    for arm, seed in e.runs:
        config = e.train_config(arm, seed)
        training_weight(config, build_schedule(config))  # refused now, not when its turn to be trained has come
        if config.learned_variance not in costs:  # all else of the network is the same in every arm
            costs[config.learned_variance] = network_cost(config)
        _, forward, training = costs[config.learned_variance]
        seen, drawn = 0 if e.weights else config.steps * config.batch_size, _drawn(e, config)
        for kind, images, flop in (("training", seen, training), ("sampling", drawn, forward)):
            calls[kind] += images
            hours[kind] += images * flop / rates[kind] / 3.6e15
    line = (
        f"estimate of {e.name}: {0 if e.weights else len(e.runs)} trainings of {costs[first.learned_variance][0]:,} "
        f"parameters, {calls['training']:,} images seen, {_short(sum(hours.values()))} hours of {first.device}: "
        f"{_short(hours['training'])} of training at {rates['training']:g} TFLOP/s, {_short(hours['sampling'])} of "
        f"sampling at {rates['sampling']:g}, both rates assumed"
    )
    return SimpleNamespace(line=line, calls=calls, hours=hours)


def network_cost(config):
    """(parameters, FLOPs of an image forward, FLOPs of an image forward and backward) of a `TrainConfig`'s network."""
    with torch.device("meta"):
        network = build_network(config, initialise=False)
        x_t, t = torch.zeros(1, 3, config.resolution, config.resolution), torch.zeros(1, dtype=torch.int64)
    labels = None if config.classes is None else t
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network_output(network, x_t, t, labels)
    with FlopCounterMode(display=False) as training, torch.enable_grad():
        network_output(network, x_t, t, labels).sum().backward()
    return sum(p.numel() for p in network.parameters()), forward.get_total_flops(), training.get_total_flops()


def _drawn(e, config):
    """Images through the network for one training's samples; every batch has the full size."""
    jobs = sampling_jobs(e, config.arm, config.snapshot_images)
    judged, shown = (-(-n // e.sampling_batch_size) * e.sampling_batch_size for n in (e.distance_images, e.grid_images))
    grids = [*e.grid_steps, *[e.snapshot_steps[-1]] * len(config.snapshot_images)]
    return judged * sum(job["steps"] for job in jobs) + shown * sum(grids)


def _short(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
