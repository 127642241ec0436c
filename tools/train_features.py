"""Train a feature network that ships with the package, on one CPU core; the printed sha256 belongs in feature_nets.py.

    OMP_NUM_THREADS=1 python tools/train_features.py minifaces --out minifaces_features.safetensors
    OMP_NUM_THREADS=1 python tools/train_features.py cifar10 --dataset FOLDER --out cifar10_features.safetensors

FOLDER holds uoft-cs/cifar10's parquet files. The shipped weights were made by these trainings (at commit a9853e1, where
they were part of the package) with torch 2.15.0 and numpy 2.4.6 on Linux x86-64.
"""

import argparse
import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from debiaslib.data import minifaces
from debiaslib.diffusion.randomness import stream, stream_seed
from debiaslib.metrics.feature_nets import CIFAR10Features, MiniFacesFeatures, load_network

IMAGES_SEED = 2  # of the faces trained on: runs of the package train on seed 0 and hold out seed 1
FACES_BATCH, BATCH = 128, 256
PEAK_LR, SHIFT = 0.25, 2  # SHIFT: pixels that a crop moves, at most


def targets(factors):
    """What the faces' network regresses: a dict of float64 (N,) computed from `minifaces.factors`.

    A factor that cannot be seen where another is near zero is weighted by that other: a hue by how colourful the colour
    is (as two coordinates), the redness of the hair by its lightness. The others are taken as they are.
    """
    values = {name: np.asarray(column, np.float64) for name, column in factors.items()}
    shade, shirt = values["background_shade"], values["shirt_shade"]
    background = values["background_chroma"] * np.minimum(shade, 1 - shade)
    for name, length in (("background_hue", background), ("shirt_hue", np.minimum(shirt, 1 - shirt))):
        angle = 2 * np.pi * values.pop(name)
        values |= {f"{name}_cos": length * np.cos(angle), f"{name}_sin": length * np.sin(angle)}
    values["hair_red"] = values["hair_red"] * values["hair_shade"]
    return values


@lru_cache
def _law():
    """Mean and standard deviation of each target, float64 (K,) each."""
    sample = np.stack(list(targets(minifaces.factors(range(16384), IMAGES_SEED)).values()), 1)
    return sample.mean(0), sample.std(0)


def examples(indices, seed=IMAGES_SEED):
    """uint8 faces and their targets, float32 (N, K) of mean 0 and standard deviation 1."""
    mean, std = _law()
    wanted = np.stack(list(targets(minifaces.factors(indices, seed)).values()), 1)
    images = minifaces.render(indices, MiniFacesFeatures.side, seed)
    return torch.from_numpy(images), torch.from_numpy((wanted - mean) / std).float()


def degrade(values):
    """Leave half of the float images as they are, blur the rest and add noise: (images, strengths (N, 2))."""
    count = len(values)
    strength = torch.rand(count, 2) * (torch.rand(count, 1) < 0.5)
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    values = torch.lerp(values, blurred, strength[:, 0, None, None, None])
    return values + 0.25 * strength[:, 1, None, None, None] * torch.randn_like(values), 2 * strength


def train_minifaces(images=589824, seed=0):
    """Each face is seen once; `seed` sets the start and the augmentation. Returns the network in eval mode."""
    torch.manual_seed(seed)
    network, steps = MiniFacesFeatures(), images // FACES_BATCH
    head = nn.Linear(64, len(_law()[0]) + 2)  # two more: how strong the blur and the noise are
    optimiser = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        faces, wanted = examples(range(step * FACES_BATCH, (step + 1) * FACES_BATCH))
        degraded, strength = degrade(network.pixels(faces))
        output = head(network.scale(network.body(degraded)))
        _step(F.mse_loss(output, torch.cat([wanted, strength], 1)), optimiser, schedule)
    return standardised(network, examples(range(min(images, 16384)))[0])


def load_labelled(folder, split):
    """(uint8 images (N, 3, 32, 32), int64 labels (N,)) of the parquet files `split`-* under `folder`, the hub's."""
    from pyarrow import parquet

    images, labels = [], []
    for file in sorted(Path(folder).expanduser().rglob(f"{split}-*.parquet")):
        table = parquet.read_table(file, columns=["img", "label"])
        labels += table["label"].to_pylist()
        for row in table["img"].to_pylist():
            images.append(np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")))
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


def whiten(layer, values):
    """Set the layer to both signs of the principal directions of 2x2 patches, each of standard deviation 1."""
    patches = F.unfold(values, 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    filters = (directions / (variance + 1e-3).sqrt()).T
    with torch.no_grad():
        layer.weight.copy_(torch.cat([filters, -filters]).view(24, 3, 2, 2))
        layer.bias.copy_(torch.cat([-filters @ mean, filters @ mean]))


def moved(values, flips, draw):
    """Mirror the images where `flips`, and move each by up to SHIFT pixels; the border is reflected."""
    values = torch.where(flips[:, None, None, None], values.flip(-1), values)
    padded = F.pad(values, (SHIFT,) * 4, mode="reflect").permute(0, 2, 3, 1)
    offsets = torch.randint(2 * SHIFT + 1, (2, len(values), 1), generator=draw)
    rows, columns = offsets + torch.arange(values.shape[-1])
    chosen = torch.arange(len(values))[:, None, None]
    return padded[chosen, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train_cifar10(images, labels, epochs=8, seed=0):
    """SGD, one-cycle rate, label smoothing, shifted crops, bfloat16; returns the network in eval mode.

    Which images are flipped is drawn once, and the other way round in every second epoch, so that two epochs see each
    image both ways.
    """
    torch.manual_seed(stream_seed(seed, "cifar10 start") % 2**63)
    network = CIFAR10Features().to(memory_format=torch.channels_last)
    whiten(network.whiten, network.pixels(images[:5000]))
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [  # decay is for the filters: scales and shifts of the normalisation are not large without it
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": 1e-3},
        {"params": [p for p in learned if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=PEAK_LR, momentum=0.9, nesterov=True)
    cycle = {"pct_start": 0.2, "anneal_strategy": "linear", "cycle_momentum": False}
    cycle |= {"total_steps": epochs * (len(images) // BATCH), "div_factor": 10, "final_div_factor": 100}
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LR, **cycle)
    flipped_first = torch.rand(len(images), generator=stream(seed, "cifar10 flips")) < 0.5
    for epoch in range(epochs):
        network.train()
        draw, flips = stream(seed, "cifar10 epoch", epoch), flipped_first ^ bool(epoch % 2)
        order = torch.randperm(len(images), generator=draw)[: len(images) // BATCH * BATCH]
        for chosen in order.split(BATCH):
            batch = moved(network.pixels(images[chosen]), flips[chosen], draw).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                output = network.head(network.scale(network.body(batch)))
            _step(F.cross_entropy(output.float(), labels[chosen], label_smoothing=0.1), optimiser, schedule)
    return standardised(network, images[:10000])


def _step(loss, optimiser, schedule):
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()


def standardised(network, images):
    """Set the last layer's mean and variance to those of clean images; the network, in eval mode."""
    network.eval().requires_grad_(False)
    raw = torch.cat([network.body(network.pixels(part)) for part in images.split(500)]).double()
    network.scale.running_mean.copy_(raw.mean(0))
    network.scale.running_var.copy_(raw.var(0))
    return network


def accuracy(network, images, labels):
    """The share of uint8 images (N, 3, H, H) that the network puts in the class `labels` (N,)."""
    with torch.no_grad():
        found = torch.cat([network.logits(batch).argmax(1) for batch in images.split(500)])
    return float((found == labels).double().mean())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("network", choices=["minifaces", "cifar10"])
    parser.add_argument("--dataset", help="for cifar10: a folder with train-* and test-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # part of what the result depends on
    how = {"command": f"python tools/train_features.py {options.network}", "torch": str(torch.__version__)}
    if options.network == "minifaces":
        state = train_minifaces().state_dict()
    else:
        network = train_cifar10(*load_labelled(options.dataset, "train"))
        # The filters in float16; scales and shifts are few. Measured is what is written.
        state = {name: value.half() if value.ndim > 1 else value for name, value in network.state_dict().items()}
        network.load_state_dict(state)
        how["test_accuracy"] = accuracy(network, *load_labelled(options.dataset, "test"))
    state = {name: value.contiguous() for name, value in state.items()}
    options.out.write_bytes(save(state, metadata={"training": json.dumps(how)}))
    print(f"{options.out}: sha256 {load_network(options.network, options.out)[1]}\n{json.dumps(how)}")


if __name__ == "__main__":
    main()
