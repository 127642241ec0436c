"""What the benchmarks share: loops that take turns on one clock, and the line that names the machine."""

import argparse
import datetime
import platform
import random
import statistics
import time

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(loops, rounds, steps, clock="wall"):
    """Seconds a step of each loop, {name: [one of each round]}: A B C, B A C, each `steps` steps at a time, warmed up.

    The order of each round is drawn anew, since a loop is slower after some of the others than after itself.

    loops: {name: function of a number of steps, which returns when the device has done them}. clock "cpu" counts the
    processor time of this process and all its threads: on a machine shared with others it is the steadier one.
    """
    now, seconds = CLOCKS[clock], {name: [] for name in loops}
    for run in loops.values():
        run(1)
    for number in range(rounds):
        for name in random.Random(number).sample(list(loops), len(loops)):
            started = now()
            loops[name](steps)
            seconds[name].append((now() - started) / steps)
    return seconds


def ratios(base, other):
    """(lower quartile, median, upper quartile) of base/other within each round: above 1, `other` is faster."""
    each = [a / b for a, b in zip(base, other, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
    return low, middle, high


def machine(device="cpu"):
    """One line: date, versions, processor, device, threads."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    return (
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, device {name}, "
        f"threads {torch.get_num_threads()}."
    )


def positive(text):
    """An argument that must be a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number >= 1")
    return int(text)
