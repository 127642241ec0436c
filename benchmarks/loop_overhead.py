"""What our training loop costs beside the network: its steps against bare forward and backward passes. Prints Markdown.

python -m benchmarks.loop_overhead                                       # quick's training: float32, one thread
python -m benchmarks.loop_overhead --network cifar10-ddpm --batch-size 64 --precision bfloat16 --threads 2 --pairs 12
python -m benchmarks.loop_overhead --variants                            # what compiling and others gain: three minutes
"""

import argparse
import statistics
import time

import torch

from benchmarks.loops import BareLoop, OurLoop
from benchmarks.setups import setups
from benchmarks.timing import CLOCKS, machine, positive, ratios, take_turns
from debiaslib.cli import run_command
from debiaslib.errors import check_choice
from debiaslib.study.presets import PRESETS

VARIANTS = {
    "as it is": {},
    "channels last": {"memory_format": "channels_last"},
    "compiled": {"compilation": "default"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compiled": {"precision": "bfloat16", "compilation": "default"},
}


def report_variants(options):
    """Measure the step as it is in turn with other settings of it and print the table."""
    print(f"{machine(options.device)} Clock: {options.clock}. `{options.network}`, batch {options.batch_size}.\n")
    print("| step | ms | first step, s | as it is/this, lower quartile | median | upper |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    with setups({options.network: options.batch_size}, tiny=options.tiny, device=options.device) as (setup,):
        loops = {name: OurLoop(setup, **{"precision": "float32", **given}) for name, given in VARIANTS.items()}
        first = {}
        for name, loop in loops.items():
            started = time.perf_counter()
            loop(1)
            first[name] = time.perf_counter() - started
        seconds = take_turns(loops, options.pairs, 1, options.clock)
        for name, taken in seconds.items():
            gains = " | ".join(f"{ratio:.3f}" for ratio in ratios(seconds["as it is"], taken))
            print(f"| {name} | {statistics.median(taken) * 1e3:.1f} | {first[name]:.1f} | {gains} |")


def report(options):
    """Measure single steps in turn with single bare passes and print the table."""
    print(f"{machine(options.device)} Clock: {options.clock}.\n")
    print("| network | batch | dtype | bare, ms | step, ms | bare/step | lower quartile | median | upper |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with setups({options.network: options.batch_size}, tiny=options.tiny, device=options.device) as (setup,):
        ours = OurLoop(setup, precision=options.precision, max_grad_norm=None)
        loops = {"bare": BareLoop(ours), "step": ours}
        seconds = take_turns(loops, options.pairs, 1, options.clock)
        bare, step = (statistics.median(seconds[name]) for name in loops)
        quartiles = " | ".join(f"{ratio:.3f}" for ratio in ratios(seconds["bare"], seconds["step"]))
        print(
            f"| `{setup.name}` | {setup.batch_size} | {ours.dtype} | {bare * 1e3:.1f} | {step * 1e3:.1f} "
            f"| {bare / step:.3f} | {quartiles} |"
        )


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="minifaces16", help="a preset, by name")
    parser.add_argument("--batch-size", type=positive, default=16, help="images a step")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    parser.add_argument("--pairs", type=positive, default=60, help="steps and bare passes, in turn")
    parser.add_argument("--threads", type=positive, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a shared machine")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--variants", action="store_true", help="other settings of the step in place of bare passes")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a network that runs in milliseconds")
    options = parser.parse_args()
    check_choice("--network", options.network, PRESETS)
    check_choice("--precision", options.precision, ("float32", "bfloat16"))
    torch.set_num_threads(options.threads)
    report_variants(options) if options.variants else report(options)


if __name__ == "__main__":
    run_command(main)
