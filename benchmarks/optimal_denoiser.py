"""The exact posterior mean against the matrix products that it consists of: time and memory. Prints Markdown.

python -m benchmarks.optimal_denoiser               # from the root of the checkout
python benchmarks/optimal_denoiser.py --pairs 30    # more pairs of calls
"""

import argparse
import datetime
import platform
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from debiaslib import Schedule
from debiaslib.cli import run_command
from debiaslib.diffusion.optimum import OptimalDenoiser
from debiaslib.diffusion.randomness import stream
from debiaslib.errors import check_number

T = 900
SHAPES = [(8192, 16), (8192, 32), (50_000, 32)]  # images, side
BATCHES = (16, 64, 256)
CHUNKS = (512, 2048, None)  # None: the default
_MEMORY = (50_000, 32, 64)  # images, side, queries


def pixels(count, side):
    """uint8 (count, 3, side, side): what they show makes no difference to the time."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def queries(count, side):
    """x_t, float32 (count, 3, side, side)."""
    return torch.randn(count, 3, side, side, generator=stream(0, "queries"))


def products(images, x_t, chunk):
    """A function of the two float64 products alone, on chunks that lie converted in memory."""
    flat = x_t.double().flatten(1)
    chunks = [torch.from_numpy(images[i : i + chunk]).double().flatten(1) for i in range(0, len(images), chunk)]
    weights = [torch.rand(len(x_t), len(part), dtype=torch.float64) for part in chunks]

    def compute():
        for part, weight in zip(chunks, weights, strict=True):
            flat @ part.T
            weight @ part

    return compute


def paired_seconds(count, side, batch, pairs):
    """Seconds of the products and of the denoiser, in turn (A B A B), each warmed up: two lists of `pairs`."""
    images, x_t = pixels(count, side), queries(batch, side)
    denoiser = OptimalDenoiser(images, Schedule.linear())
    sides = [products(images, x_t, denoiser.chunk), lambda: denoiser(x_t, T)]
    for run in sides:
        run()
    times = [[_seconds(run) for run in sides] for _ in range(pairs)]
    return [list(column) for column in zip(*times, strict=True)]


def _seconds(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def time_row(count, side, batch, pairs):
    """A row of the first table: medians of both sides, their ratio, and the pairs' ratios."""
    base, ours = paired_seconds(count, side, batch, pairs)
    ratios = sorted(b / a for a, b in zip(base, ours, strict=True))
    medians = [statistics.median(column) for column in (base, ours)]
    return (
        f"| {count:,} | 3x{side}x{side} | {batch} | {pairs} | {medians[0] * 1e3:.0f} | {medians[1] * 1e3:.0f} "
        f"| {medians[1] / medians[0]:.2f} | {ratios[0]:.2f} | {statistics.median(ratios):.2f} | {ratios[-1]:.2f} |"
    )


def peak_growth(chunk):
    """MB by which one call raises this process's peak of resident memory; the images and queries are there before."""
    count, side, batch = _MEMORY
    images, x_t = np.full((count, 3, side, side), 77, np.uint8), queries(batch, side)
    OptimalDenoiser(images[:2], Schedule.linear())(x_t[:1], T)  # what the libraries keep for themselves
    before = _peak()
    denoiser = OptimalDenoiser(images, Schedule.linear(), chunk)
    denoiser(x_t, T)
    size = 3 * side**2
    expected = denoiser.chunk * (9 * size + 8 * batch) + 32 * batch * size + 8 * count
    return denoiser.chunk, (_peak() - before) / 1e6, expected / 1e6


def _peak():
    """Bytes; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_row(chunk):
    """A row of the second table, measured in a process of its own: a peak never falls."""
    command = [sys.executable, __file__, "--memory-of", str(chunk or 0)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def report(pairs):
    """Measure and print both tables."""
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"threads {torch.get_num_threads()}.\n"
    )
    # First: a new process begins with the peak of the one that starts it.
    count, side, batch = _MEMORY
    whole = count * 3 * side**2 * 8 / 1e6
    print(f"Memory of one call, {count:,} images of 3x{side}x{side} ({whole:,.0f} MB in float64), {batch} queries.\n")
    print("| chunk | images | peak, MB | expected, MB |\n|---|---:|---:|---:|", flush=True)
    for chunk in CHUNKS:
        print(memory_row(chunk), flush=True)
    print(f"\nOne call at t = {T}, uint8 images, default chunk; products: float64, images converted before.\n")
    print("| images | size | queries | pairs | products, ms | denoiser, ms | ratio | pairs: min | median | max |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for count, side in SHAPES:
        for batch in BATCHES:
            print(time_row(count, side, batch, pairs), flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9, help="pairs of calls for each row")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_number("--pairs", arguments.pairs, minimum=1, integer=True)
    torch.set_num_threads(1)
    if arguments.memory_of is None:
        report(arguments.pairs)
    else:
        chunk, grown, expected = peak_growth(arguments.memory_of or None)
        print(f"| {'given' if arguments.memory_of else 'default'} | {chunk:,} | {grown:.0f} | {expected:.0f} |")


if __name__ == "__main__":
    run_command(main)
