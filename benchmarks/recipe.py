"""Which small network learns the task best in equal processor time? Chosen by the constant weight alone.

    python -m benchmarks.recipe --dataset minifaces --seconds 150 --out recipe.csv
    python -m benchmarks.recipe --dataset minifaces --images 60000 --seeds 0 100 --out recipe-60000.csv
    python -m benchmarks.recipe --dataset uoft-cs/cifar10 --flip --seconds 500 --only base width24 --out recipe.csv

Each row trains one candidate with constant weight for `--seconds` of one thread's processor time, or over `--images`
images, the learning rate falling to 0 by a cosine over that time (or constant, where the candidate says so), and
measures with each moving average of the weights, each EMA decay a row:

- `x0_t900` and so on: the error of the one-step estimate of x0 on 512 training images; `excess_...`: its distance from
  the exact optimum over all training images; `score`: the geometric mean of the excess over the timesteps;
- 500 samples by 25 DDIM steps against 2,048 images: the Fréchet distance in the data set's features and in pooled
  pixels, and the energy distance of the images' colours (4x4 layout).

Rows that the file already has are not made again, so the command can be stopped and repeated.
"""

import argparse
import copy
import os
import time
from pathlib import Path

import pandas as pd
import torch
from diffusers.training_utils import EMAModel

from debiaslib.data.gaussian import gaussian_law
from debiaslib.data.images import load_images
from debiaslib.diffusion.one_step import mse_by_timestep
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.randomness import stream
from debiaslib.diffusion.sampling import sample, to_float
from debiaslib.metrics.colour import energy_distance, layout_colours_lab
from debiaslib.metrics.distances import frechet_distance
from debiaslib.metrics.features import load_extractor
from debiaslib.study.common import subset
from debiaslib.study.presets import _unet
from debiaslib.training.config import TrainConfig
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective

TIMESTEPS = (10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
EMAS = (0.995, 0.999)


def unet(channels=(16, 32, 48), layers=1, attention=(), skip=True, zero=True):
    """Arguments of a small U-Net."""
    return {**_unet(16, channels, layers, attention), "input_skip": skip, "zero_init": zero}


def transformer(width, depth, patch, skip=True):
    """Arguments of a small DiT, whose heads have 32 channels."""
    return {
        "_class_name": "DiTTransformer2DModel",
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "num_attention_heads": width // 32,
        "attention_head_dim": 32,
        "num_layers": depth,
        "patch_size": patch,
        "input_skip": skip,
    }


def candidate(network=None, batch=16, lr=1e-3, decay="cosine"):
    """What one row trains."""
    return {"network": network or unet(), "batch_size": batch, "lr": lr, "lr_decay": decay}


CANDIDATES = {
    "before": candidate(unet(skip=False, zero=False), batch=64, lr=2e-3),
    "base": candidate(),
    "random-start": candidate(unet(zero=False)),
    "random-start-lr2e-3": candidate(unet(zero=False), lr=2e-3),
    "noskip": candidate(unet(skip=False)),
    "batch8": candidate(batch=8),
    "batch32": candidate(batch=32),
    "lr2e-3": candidate(lr=2e-3),
    "lr5e-4": candidate(lr=5e-4),
    "lr4e-3": candidate(lr=4e-3),
    "steady": candidate(decay="none"),
    "batch8-lr2e-3": candidate(batch=8, lr=2e-3),
    "batch32-lr2e-3": candidate(batch=32, lr=2e-3),
    "width24": candidate(unet((24, 48, 72))),
    "width32": candidate(unet((32, 64, 96))),
    "two-levels": candidate(unet((32, 64))),
    "layers2": candidate(unet(layers=2)),
    "attention8": candidate(unet(attention=(1,))),
    "dit-patch2": candidate(transformer(128, 6, 2)),
    "dit-patch4": candidate(transformer(192, 6, 4)),
    "dit-patch4-noskip": candidate(transformer(192, 6, 4, skip=False)),
    "width24-lr2e-3": candidate(unet((24, 48, 72)), lr=2e-3),
    "width32-lr2e-3": candidate(unet((32, 64, 96)), lr=2e-3),
    "width32-lr5e-4": candidate(unet((32, 64, 96)), lr=5e-4),
    "width32-batch8": candidate(unet((32, 64, 96)), batch=8),
    "layers2-lr2e-3": candidate(unet(layers=2), lr=2e-3),
    "attention8-lr2e-3": candidate(unet(attention=(1,)), lr=2e-3),
    "width32-layers2": candidate(unet((32, 64, 96), layers=2)),
    "width32-attention8": candidate(unet((32, 64, 96), attention=(1,))),
}


def fit(config, images, seconds, steps=None):
    """Train for so many seconds of processor time, or so many steps. Returns ({EMA decay: network}, steps)."""
    network, objective = build_network(config).train(), Objective(config)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0, fused=True)
    averages = {decay: EMAModel(parameters, decay=decay, foreach=True) for decay in EMAS}
    began, step = time.process_time(), 0
    while (done := step / steps if steps else (time.process_time() - began) / seconds) < 1:
        if config.lr_decay == "cosine":
            rate = torch.tensor(torch.pi * done).cos().item()
            optimizer.param_groups[0]["lr"] = config.lr * 0.5 * (1 + rate)
        index = torch.randint(len(images), (config.batch_size,), generator=stream(config.seed, "images", step))
        x0 = to_float(images[index.numpy()])
        if config.horizontal_flip:
            flip = torch.rand(len(x0), generator=stream(config.seed, "flips", step)) < 0.5
            x0 = torch.where(flip.view(-1, 1, 1, 1), x0.flip(-1), x0)
        noise = torch.randn(x0.shape, generator=stream(config.seed, "noise", step))
        objective.loss(network, x0, objective.timesteps(step), noise)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for average in averages.values():
            average.step(parameters)
        step += 1
    fitted = {}
    for decay, average in averages.items():
        fitted[decay] = copy.deepcopy(network).eval().requires_grad_(False)
        average.copy_to(fitted[decay].parameters())
    return fitted, step


class Judge:
    """The measurements of a row, with what they share over rows."""

    def __init__(self, dataset, images, schedule):
        self.schedule, self.x0 = schedule, to_float(subset(images, 512))
        if dataset == "gaussian":
            best = GaussianDenoiser(*gaussian_law(images.shape[-1]), schedule)
        else:
            best = OptimalDenoiser(images, schedule)
        answers = {}

        def optimal(x_t, t):  # all candidates are asked at the same x_t
            if t not in answers:
                answers[t] = best(x_t, t)
            return answers[t]

        self.optimal = optimal
        names = {"minifaces": ("minifaces", "pooled"), "gaussian": ("pooled",)}.get(dataset, ("cifar10", "pooled"))
        self.extractors = [load_extractor(name) for name in names]
        reference = subset(images, 2048)
        self.reference = {one.name: one.features(reference) for one in self.extractors}
        self.layout = layout_colours_lab(reference).reshape(len(reference), -1) / 4

    def row(self, network):
        """One network's numbers: a dict."""
        errors = mse_by_timestep({"network": network}, self.x0, TIMESTEPS, self.schedule, optimal=self.optimal)
        mean = errors.groupby(["model", "quantity", "t"]).value.mean()
        row = {f"x0_t{t}": mean["network", "x0_mse", t] for t in (50, 200, 400, 600, 800, 900, 999)}
        row |= {f"excess_t{t}": mean["network", "excess", t] for t in (50, 600, 900)}
        row |= {f"optimum_t{t}": mean["optimum", "x0_mse", t] for t in (600, 900)}
        row["x_t_t900"] = mean["initial", "x0_mse", 900]
        row["score"] = float(torch.tensor([mean["network", "excess", t] for t in TIMESTEPS]).log().mean().exp())
        images = sample(network, self.schedule, range(500), steps=25, shape=tuple(self.x0.shape[1:]))
        for one in self.extractors:
            row[one.distance] = frechet_distance(one.features(images), self.reference[one.name])
        layout = layout_colours_lab(images).reshape(len(images), -1) / 4
        row["layout_energy"] = energy_distance(layout, self.layout)[0]
        return row


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="minifaces", help="minifaces, gaussian, or a folder or hub id of CIFAR-10")
    parser.add_argument("--seconds", type=float, default=150, help="processor seconds of each training")
    parser.add_argument("--images", type=int, help="images of each training, in place of --seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100], help="not those of any judged training")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="CANDIDATE")
    parser.add_argument("--flip", action="store_true", help="horizontal flips")
    parser.add_argument("--out", type=Path, default=Path("recipe.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = load_images(arguments.dataset, 16).images
    judge = None
    for seed in arguments.seeds:
        for name in arguments.only:
            key = {
                "dataset": arguments.dataset.rstrip("/").rsplit("/")[-1],
                "candidate": name,
                "seed": seed,
                "seconds": 0 if arguments.images else arguments.seconds,
            }
            if arguments.out.exists():
                made = pd.read_csv(arguments.out)
                if (made[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
            settings = {**CANDIDATES[name], "dataset": arguments.dataset, "images": 10**9, "weighting": "constant"}
            config = TrainConfig(resolution=16, seed=seed, horizontal_flip=arguments.flip, **settings)
            judge = judge or Judge(arguments.dataset, images, Objective(config).schedule)
            wanted = arguments.images // config.batch_size if arguments.images else None
            fitted, steps = fit(config, images, arguments.seconds, wanted)
            size = sum(parameter.numel() for parameter in fitted[EMAS[0]].parameters())
            facts = {
                **key,
                "parameters": size,
                "batch": config.batch_size,
                "lr": config.lr,
                "decay": config.lr_decay,
                "images": steps * config.batch_size,
            }
            rows = pd.DataFrame([{**facts, "ema": decay, **judge.row(network)} for decay, network in fitted.items()])
            rows.to_csv(
                arguments.out, mode="a", header=not os.path.exists(arguments.out), index=False, float_format="%.5g"
            )
            print(rows[["candidate", "images", "ema", "x0_t50", "x0_t600", "x0_t900", "score"]].to_string(), flush=True)


if __name__ == "__main__":
    main()
