"""What the data cost a training step: steps on drawn batches beside steps on one fixed batch. Prints Markdown.

python -m benchmarks.data_step_time                                      # a folder of drawn images
python -m benchmarks.data_step_time --dataset ~/cifar10 --preset cifar10-32    # any data set: parquet, folder, hub id
"""

import argparse
import os
import statistics
from dataclasses import replace

import torch

from benchmarks.loops import OurLoop
from benchmarks.setups import setups
from benchmarks.timing import CLOCKS, machine, positive, ratios, take_turns
from debiaslib.cli import run_command
from debiaslib.training.batches import Pixels


def paired(setup, on_disk, rounds, steps, clock):
    """Seconds a step {"fixed", "data"}, in turn, of one training; on_disk: read from the file at each step."""
    loop = OurLoop(setup)
    training = loop.training
    if on_disk:
        training.batches.pixels = Pixels(training.images.images, setup.device, limit=0)
    drawn, batch = training.batches, training.batches(0)

    def fixed(count):
        training.batches = lambda step: batch
        loop(count)

    def data(count):
        training.batches = drawn
        loop(count)

    return take_turns({"fixed": fixed, "data": data}, rounds, steps, clock), training.images


def report(options):
    """Measure and print the table."""
    print(f"{machine(options.device)} Clock: {options.clock}.\n")
    print("| data | images | pixels lie | batch | fixed batch, ms a step | data, ms | ratio | lower quartile | upper |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    cache = os.environ.get("DEBIASLIB_CACHE", "")
    with setups({options.preset: options.batch_size}, tiny=options.tiny, device=options.device) as (setup,):
        if cache:
            os.environ["DEBIASLIB_CACHE"] = cache  # a large data set is decoded once, not at each benchmark
        if options.dataset:
            setup = replace(setup, folder=options.dataset)
        for on_disk in (False, True):
            seconds, images = paired(setup, on_disk, options.rounds, options.steps, options.clock)
            low, middle, high = ratios(seconds["data"], seconds["fixed"])
            medians = " | ".join(f"{statistics.median(seconds[side]) * 1e3:.1f}" for side in ("fixed", "data"))
            where = "on disk" if on_disk else "on the device"
            print(
                f"| {images.name} | {len(images.images):,} of 3x{setup.resolution}x{setup.resolution} | {where} "
                f"| {setup.batch_size} | {medians} | {middle:.3f} | {low:.3f} | {high:.3f} |",
                flush=True,
            )


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="", help="path or hub id; default: a folder of drawn images")
    parser.add_argument("--preset", default="minifaces16", help="the network")
    parser.add_argument("--batch-size", type=positive, default=64, help="images a step")
    parser.add_argument("--rounds", type=positive, default=15, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=4, help="steps a turn")
    parser.add_argument("--threads", type=positive, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a shared machine")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a network that runs in milliseconds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report(options)


if __name__ == "__main__":
    run_command(main)
