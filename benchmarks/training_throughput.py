"""Training throughput, ours beside other people's loops on the same network. Prints Markdown.

python -m benchmarks.training_throughput                           # from the root of the checkout
python -m benchmarks.training_throughput --networks minifaces16 --rounds 30
python -m benchmarks.training_throughput --script train_unconditional.py    # diffusers' original beside them
"""

import argparse
import os
import statistics
import sys

import torch

from benchmarks.loops import BareLoop, DenoisingDiffusionLoop, DiffusersLoop, OurLoop
from benchmarks.original_script import ScriptLoop
from benchmarks.setups import setups
from benchmarks.timing import CLOCKS, machine, positive, ratios, take_turns
from debiaslib.cli import run_command
from debiaslib.errors import InputError, check_choice

# What is timed by default: batch size, steps a turn, and the settings of our loop: for the network of `quick` those of
# the experiment, for the other those that are fastest.
NETWORKS = {
    "minifaces16": (16, 20, {}),
    "cifar10-ddpm": (16, 1, {"precision": "bfloat16"}),
}
OURS = "ours"


def loops_of(setup, settings, script=""):
    """{name: loop}: ours as given, ours in float32, the bare network, and the others that are installed."""
    loops = {OURS: OurLoop(setup, **settings)}
    if loops[OURS].dtype != "float32":
        loops["ours, float32"] = OurLoop(setup, **{**settings, "precision": "float32"})
    loops["bare forward and backward of ours"] = BareLoop(loops[OURS])
    others = {"diffusers' parts": DiffusersLoop, "denoising-diffusion-pytorch": DenoisingDiffusionLoop}
    for name, make in others.items():
        try:
            loops[name] = make(setup)
        except ModuleNotFoundError as error:
            print(f"skipped: {name} ({error}); see benchmarks/requirements.txt", file=sys.stderr)
    if script:
        loops["diffusers' script"] = ScriptLoop(script, setup)
    return loops


def rows(loops, seconds, batch_size):
    """The table's rows: seconds a step, images a second, and how many times as fast ours is, with its quartiles."""
    for name, loop in loops.items():
        step = statistics.median(seconds[name])
        low, middle, high = ratios(seconds[name], seconds[OURS])
        dtype = getattr(loop, "dtype", loops[OURS].dtype)
        speed = f"{step * 1e3:.0f} | {batch_size / step:.2f}"
        yield f"| {name} | {dtype} | {speed} | {middle:.2f} | {low:.2f} | {high:.2f} |"


def report(networks, options):
    """Measure and print a table for each network."""
    print(f"{machine()} Clock: {options.clock}.", flush=True)
    sizes = {name: options.batch_size or NETWORKS[name][0] for name in networks}
    with setups(sizes, tiny=options.tiny) as made:
        for setup in made:
            _, steps, settings = NETWORKS[setup.name]
            steps = options.steps or steps
            loops = loops_of(setup, settings, options.script)
            parameters = sum(p.numel() for p in loops[OURS].training.network.parameters())
            side = setup.resolution
            print(
                f"\nNetwork of `{setup.name}`, {parameters:,} parameters, batch {setup.batch_size} of 3x{side}x{side}, "
                f"{options.rounds} rounds of {steps} steps in turn.\n"
            )
            seconds = take_turns(loops, options.rounds, steps, options.clock)
            print("| loop | dtype | ms a step | images/s | ours is faster, times | lower quartile | upper quartile |")
            print("|---|---|---:|---:|---:|---:|---:|")
            print(*rows(loops, seconds, setup.batch_size), sep="\n", flush=True)
            if options.script:
                loops["diffusers' script"].close()


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="presets, by name")
    parser.add_argument("--rounds", type=positive, default=7, help="turns of each loop")
    parser.add_argument("--steps", type=positive, help="steps a turn; default: by network")
    parser.add_argument("--batch-size", type=positive, help="images a step; default: by network; 16 or more")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="torch's threads, for all loops")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a shared machine")
    parser.add_argument("--script", default="", help="path of diffusers' train_unconditional.py")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: networks that run in milliseconds")
    options = parser.parse_args()
    for name in options.networks:
        check_choice("--networks", name, NETWORKS)
    if options.script and not os.path.isfile(options.script):
        raise InputError(f"--script is {options.script!r}, which is no file")
    torch.set_num_threads(options.threads)
    report(options.networks, options)


if __name__ == "__main__":
    run_command(main)
