"""The measurements of benchmarks/gpu.py, each a function that returns one JSON-native row."""

import re
import statistics
import time

import torch
from diffusers import UNet2DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loops import BareLoop, DiffusersLoop, OurLoop, our_config
from debiaslib.diffusion.prediction import network_output
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.training.network import build_network

# Our loop's settings. "ours, float32" computes its convolutions in TF32, as every loop here does: PyTorch's default.
BF16 = {"precision": "bfloat16"}
LAST = {**BF16, "memory_format": "channels_last"}
OURS = {
    "ours, float32": {"precision": "float32"},
    "ours": BF16,
    "ours, channels last": LAST,
    "ours, compiled": {**BF16, "compilation": "default"},
    "ours, channels last, compiled": {**LAST, "compilation": "default"},
    "ours, channels last, CUDA graphs": {**LAST, "compilation": "cuda_graphs"},
}
PARTS = {  # mixed precision of accelerate, workers of the DataLoader
    "diffusers' parts, as shipped": ("no", 0),
    "diffusers' parts, bf16": ("bf16", 0),
    "diffusers' parts, bf16, 8 workers": ("bf16", 8),
}
# Kernels by the words in their names, the first that fits.
KINDS = {
    "attention": r"flash|fmha|attention|sdpa",
    "matrix products and convolutions": r"gemm|cutlass|xmma|nvjet|conv|wgrad|dgrad|cudnn",
    "compiled by torch.compile": r"^triton",
    "normalisation": r"norm|welford|rowwisemoments",
    "optimiser, average, clipping": r"multi_tensor|adam|foreach",
    "copies": r"memcpy|memset|copy|transpose|nchw|nhwc",
    "elementwise": r"elementwise|reduce|cat|upsample",
}


def matrix_rate(device, size, seconds=2.0):
    """bf16 matrix products of random size x size matrices: {"tflops"}, the rate that a training can at best reach."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    count = 1
    while True:  # as many products as the time allows, measured as one queue
        elapsed = _timed(lambda: [a @ b for _ in range(count)], device)  # noqa: B023, called at once
        if elapsed > seconds / 4:
            return {"tflops": 2 * size**3 * count / elapsed / 1e12, "size": size}
        count *= 4


def training_row(setup, variant, seconds=4.0):
    """Seconds a step (median of 5 turns), images/s, peak memory in bytes, and for ours the bare network's seconds."""
    if variant in PARTS:
        loop = DiffusersLoop(setup.with_workers(PARTS[variant][1]), PARTS[variant][0])
    else:
        loop = OurLoop(setup, **OURS[variant])
    if setup.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    step = _step_seconds(loop, setup.device, seconds)
    row = {"dtype": loop.dtype, "step": step, "images_per_second": setup.batch_size / step}
    if setup.device != "cpu":
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
    if isinstance(loop, OurLoop):
        row["bare_step"] = _step_seconds(BareLoop(loop), setup.device, seconds / 2)
        row["parameters"] = sum(p.numel() for p in loop.training.network.parameters())
    return row


def _step_seconds(loop, device, seconds):
    for _ in range(3):
        loop(1)  # compiles, records, warms the allocator
    one = _timed(lambda: loop(2), device) / 2
    steps = max(1, min(200, round(seconds / 5 / one)))
    return statistics.median(_timed(lambda: loop(steps), device) / steps for _ in range(5))


def _timed(run, device):
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def flops_per_image(setup):
    """Floating-point operations of one image's forward and backward, two for a multiply-add, counted without computing.

    What is counted are convolutions, linear layers and attention; norms and activations are not.
    """
    network = _without_memory(setup)
    x, t = torch.empty(1, 3, setup.resolution, setup.resolution, device="meta"), torch.empty(1, device="meta")
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        network_output(network, x, t).sum().backward()
    return counter.get_total_flops()


def _without_memory(setup):
    with torch.device("meta"):  # not ours: there is no autocast to keep its last convolution out of
        return UNet2DModel(**setup.unet)


@torch.no_grad()
def sampling_row(setup, steps=20):
    """Seconds of `sample` (DDIM, float32 as in measurements) and of as many bare calls of the network."""
    network, shape = build_network(our_config(setup)).to(setup.device).eval(), (3, setup.resolution, setup.resolution)
    x = torch.randn(setup.batch_size, *shape, device=setup.device)
    t = torch.full((setup.batch_size,), 500, device=setup.device)
    settings = {"sampler": "ddim", "steps": steps, "batch_size": setup.batch_size, "shape": shape}

    def bare():
        for _ in range(steps):
            network(x, t)

    def whole():
        sample(network, Schedule.linear(), range(setup.batch_size), **settings)

    for run in (bare, whole):
        run()
    pairs = [(_timed(bare, setup.device), _timed(whole, setup.device)) for _ in range(5)]
    bare_seconds, seconds = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"dtype": "float32", "bare": bare_seconds, "seconds": seconds, "calls": steps,
            "images_per_second": setup.batch_size / seconds}  # fmt: skip


def profile_row(setup, variant, steps=5):
    """Where a step's time goes: the share of each kind of kernel in the elapsed time, the rest, the largest kernels."""
    loop, gpu = OurLoop(setup, **OURS[variant]), setup.device != "cpu"
    for _ in range(4):
        loop(1)
    activity = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        elapsed = _timed(lambda: loop(steps), setup.device) * 1e6
    times = {}
    for event in profile.key_averages():
        spent = event.self_device_time_total if gpu else event.self_cpu_time_total
        times[event.key] = times.get(event.key, 0) + spent
    shares = {}
    for name, spent in times.items():
        shares[kind_of(name)] = shares.get(kind_of(name), 0) + spent / elapsed
    largest = sorted(times.items(), key=lambda item: -item[1])[:12]
    return {"step": elapsed / steps / 1e6, "shares": shares, "idle": 1 - sum(times.values()) / elapsed,
            "largest": [[name[:90], spent / elapsed] for name, spent in largest]}  # fmt: skip


def kind_of(kernel):
    """The kind of work that a kernel does, by its name."""
    return next((kind for kind, words in KINDS.items() if re.search(words, kernel.lower())), "other")
