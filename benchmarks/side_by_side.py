"""What the pipeline's allocator settings gain two trainings that run side by side. Prints Markdown.

python -m benchmarks.side_by_side                # about two minutes on two cores

Pairs of processes, each with one step of quick's training after another on one thread, with the settings and without
them in turn. Counted are wall time, page faults and peak memory of each process.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.loops import OurLoop
from benchmarks.setups import setups
from benchmarks.timing import machine, positive
from debiaslib.cli import run_command
from debiaslib.study.snakemake import ALLOCATOR

KINDS = {"as the system has it": {}, "as the pipeline sets it": ALLOCATOR}


def train(steps, tiny):
    """In a process of its own: warm up, say so, wait for a line, then print milliseconds and page faults a step, MB."""
    torch.set_num_threads(1)
    with setups({"minifaces16": 16}, tiny=tiny) as (setup,):
        loop = OurLoop(setup)
        loop(10)
        print("ready", flush=True)
        sys.stdin.readline()
        faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        loop(steps)
        seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        print(seconds / steps * 1e3, (used.ru_minflt - faults) / steps, used.ru_maxrss / 1024, flush=True)


def pair(steps, tiny, settings):
    """Two such processes at once: [(ms, page faults, MB) of each]."""
    command = [sys.executable, "-m", "benchmarks.side_by_side", "--child", f"--steps={steps}", *["--tiny"] * tiny]
    kept = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env={**kept, **settings}, **pipes) for _ in range(2)]
    for child in started:
        child.stdout.readline()
    for child in started:
        child.stdin.write("\n")
        child.stdin.flush()
    return [tuple(map(float, child.communicate()[0].split())) for child in started]


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=4, help="pairs of each kind")
    parser.add_argument("--steps", type=positive, default=200, help="of each process")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a network that runs in milliseconds")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return train(options.steps, options.tiny)
    found = {name: [] for name in KINDS}
    for _ in range(options.rounds):
        for name, settings in KINDS.items():
            found[name].append(
                [statistics.mean(column) for column in zip(*pair(options.steps, options.tiny, settings), strict=True)]
            )
    print(machine() + "\n\n| allocator | ms a step | page faults a step | peak MB of a process |\n|---|---:|---:|---:|")
    for name, rows in found.items():
        ms, faults, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {ms:.1f} | {faults:.0f} | {memory:.0f} |")
    plain, ours = ([row[0] for row in rows] for rows in found.values())
    each = sorted(a / b for a, b in zip(plain, ours, strict=True))
    print(
        f"\nThe pipeline's settings are {statistics.median(each):.2f} times as fast ({each[0]:.2f} to {each[-1]:.2f})."
    )
    return 0


if __name__ == "__main__":
    run_command(main)
