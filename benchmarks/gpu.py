"""Training and sampling on one GPU, ours beside diffusers' parts, with a profile. Writes rows.jsonl and gpu.md.

python -m benchmarks.gpu --out folder                         # from the root of the checkout; 9 minutes at most
python -m benchmarks.gpu --out folder --device cpu --tiny     # a rehearsal without a GPU

Each finished row is written at once; the same command goes on with those that are missing.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu_table import tables
from debiaslib.cli import run_command
from debiaslib.errors import InputError
from debiaslib.files import write_text
from debiaslib.study.presets import PRESETS

# Network, batch size, loops; the most wanted first. The last of ours is the one that is profiled.
_SHIPPED, _BF16 = "diffusers' parts, as shipped", "diffusers' parts, bf16"
_BEST, _GRAPHS = "ours, channels last, compiled", "ours, channels last, CUDA graphs"
_WHOLE = [_BEST, _SHIPPED, _BF16, "ours, channels last", "ours", _GRAPHS, "diffusers' parts, bf16, 8 workers",
          "ours, compiled", "ours, float32"]  # fmt: skip
INTERRUPTED = "it was interrupted, or its process ended"
PLAN = [("ffhq256", 32, _WHOLE), ("cifar10-ddpm", 128, _WHOLE), ("minifaces16", 64, _WHOLE),
        ("ffhq256", 8, [_SHIPPED, _BF16, _BEST])]  # fmt: skip


def plan(device, tiny):
    """Every row as (key, what, network, batch, loop), in the order of measuring."""
    found = [("matrix rate", "matrix rate", "", 0, "")]
    networks = [(name, 2 if tiny else batch, loops) for name, batch, loops in PLAN if name in PRESETS]
    for what in ("training", "profile", "sampling"):
        for name, batch, loops in networks:
            if what != "training":
                loops = [_BEST] if len(loops) == len(_WHOLE) else []
            for loop in loops:
                loop = loop if device != "cpu" else loop.replace(", compiled", "").replace(", CUDA graphs", "")
                key = f"{what}: {name}, batch {batch}, {loop if what != 'sampling' else 'ddim'}"
                if all(key != row[0] for row in found):
                    found.append((key, what, name, batch, loop))
    return found


def measure(row, setup):
    """The values of one row of the plan."""
    from benchmarks import gpu_rows

    _, what, _, _, loop = row
    if what == "matrix rate":
        return gpu_rows.matrix_rate(setup.device, 8192 if setup.device != "cpu" else 256)
    if what == "sampling":
        return gpu_rows.sampling_row(setup)
    if what == "profile":
        return gpu_rows.profile_row(setup, loop)
    return {**gpu_rows.training_row(setup, loop), "flops_per_image": gpu_rows.flops_per_image(setup)}


def work(out, device, tiny, ends):
    """Measure every missing row, each written when it is there; begin none after `ends` (time.time)."""
    import torch

    from benchmarks.setups import setups
    from benchmarks.timing import machine

    for row in plan(device, tiny):
        key, what, network, batch, loop = row
        before = read_rows(out).get(key, {"attempts": 0, "failed": INTERRUPTED})
        if time.time() > ends or is_done(before):
            continue
        made = {"key": key, "what": what, "network": network, "batch": batch, "variant": loop}
        made["attempts"] = before["attempts"] + 1
        append(out, {**made, "failed": INTERRUPTED})  # until it is there
        try:
            # The same images for all; a cache of their own for each, in a folder that goes afterwards.
            with setups({network or "minifaces16": batch or 1}, tiny=tiny, device=device) as (setup,):
                append(out, {**made, "machine": machine(device), **measure(row, setup)})
        except (ImportError, RuntimeError, InputError) as error:  # out of memory, not installed, not compiled
            append(out, {**made, "failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
        torch._dynamo.reset()
        if device != "cpu":
            torch.cuda.empty_cache()


def is_done(row):
    """Whether a row needs no (further) attempt: it is there, it failed for a reason, or ended its process twice."""
    return row.get("failed") != INTERRUPTED or row["attempts"] >= 2


def append(out, row):
    """Add a row to out/rows.jsonl; a later one of the same key counts."""
    with open(out / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(out):
    """{key: row} of out/rows.jsonl, the last of each key."""
    path = out / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # half a line of a process that was killed
            continue
        rows[row["key"]] = row
    return rows


def supervise(out, options):
    """Let another process measure until the time is up; start it again if it dies. Write out/gpu.md."""
    ends = time.monotonic() + 60 * options.minutes
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--device", options.device, "--worker"]
    command += ["--tiny"] if options.tiny else []
    for _ in range(3):  # a crash costs the row, not the rest
        left = ends - time.monotonic()
        try:
            done = subprocess.run([*command, "--ends", str(time.time() + left - 20)], timeout=max(1, left))
        except subprocess.TimeoutExpired:
            break
        write_text(out / "gpu.md", tables(read_rows(out)))
        if done.returncode == 0:
            break
    rows = read_rows(out)
    write_text(out / "gpu.md", tables(rows))
    keys = [row[0] for row in plan(options.device, options.tiny)]
    missing = [key for key in keys if key not in rows or not is_done(rows[key])]
    print((out / "gpu.md").read_text(encoding="utf-8"))
    print(f"{len(rows)} rows in {out / 'gpu.md'}" + (f"; still missing: {'; '.join(missing)}" if missing else ""))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the tables; rows that are there are not measured again")
    parser.add_argument("--minutes", type=float, default=9, help="time limit, everything included")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--tiny", action="store_true", help="networks that run in milliseconds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.worker:
        return work(out, options.device, options.tiny, options.ends)
    if not options.minutes > 0:
        raise InputError(f"--minutes is {options.minutes:g}; it must be > 0")
    from debiaslib.training.loop import check_device

    check_device(options.device)
    return supervise(out, options)


if __name__ == "__main__":
    run_command(main)
