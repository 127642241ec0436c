"""How the feature network of CIFAR-10 was trained: `python -m debiaslib.metrics.cifar10_training`.

SGD with Nesterov momentum and a one-cycle learning rate, label smoothing, shifted crops, and flips that alternate from
epoch to epoch, so that two epochs see each image both ways. All randomness of an epoch comes from (seed, epoch), and
the state is kept after each, so a training that was interrupted goes on as if it had not been.
"""

import hashlib
import io
import json
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch.nn import functional as F

from ..cli import Parser
from ..diffusion.randomness import stream, stream_seed
from ..errors import InputError, check_number
from ..files import atomic_path, exclusive
from .cifar10_features import CLASSES, PATCH, SIDE, WHITENED, CIFAR10Features, feature_hash, pixels

__all__ = ["accuracy", "load_labelled", "train_features"]

BATCH = 256
PEAK_LR, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.25, 0.9, 1e-3, 0.1
SHIFT = 2  # pixels that a crop moves, at most


def load_labelled(folder, split):
    """(uint8 images (N, 3, 32, 32), int64 labels (N,)), tensors, of the parquet files `split`-* under `folder`.

    The hub's layout: columns img and label. Raises InputError where there are none, or other images or labels.
    """
    from pyarrow import ArrowException, parquet  # lazy: only a training reads labels

    files = sorted(Path(folder).expanduser().rglob(f"{split}-*.parquet"))
    if not files:
        raise InputError(f"{folder} holds no {split}-*.parquet; it must be a folder of CIFAR-10 in the hub's layout")
    images, labels = [], []
    try:
        for file in files:
            table = parquet.read_table(file, columns=["img", "label"])
            labels += table["label"].to_pylist()
            for row in table["img"].to_pylist():
                with Image.open(io.BytesIO(row["bytes"])) as image:
                    images.append(np.asarray(image.convert("RGB")))
    except (ArrowException, OSError, KeyError, TypeError) as error:
        raise InputError(f"{file} does not hold columns img and label: {type(error).__name__}") from error
    shapes, wrong = {image.shape for image in images}, set(labels) - set(range(CLASSES))
    if shapes != {(SIDE, SIDE, 3)} or wrong:
        raise InputError(f"{folder} has images of {sorted(shapes)} and labels {sorted(set(labels))}: not CIFAR-10's")
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


def train_features(images, labels, epochs=8, seed=0, precision="bfloat16", checkpoint=None, report=print):
    """Train on uint8 images (N, 3, 32, 32) and labels (N,), N >= 256; return the network in eval mode.

    `checkpoint` is a file that keeps the state after each epoch: an earlier training of the same data and settings is
    taken up there. `report` is called with a line for each epoch.
    """
    check_number("epochs", epochs, minimum=1, integer=True)
    check_number("images", len(images), minimum=BATCH, integer=True)
    content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    settings = [content, epochs, seed, precision, BATCH, PEAK_LR, MOMENTUM, WEIGHT_DECAY, SMOOTHING, SHIFT]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "cifar10 start") % 2**63)
        network = CIFAR10Features().to(memory_format=torch.channels_last)
    _whiten(network.whiten, pixels(images[:5000]))
    optimiser, schedule = _optimiser(network, epochs * (len(images) // BATCH))
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    done, seconds = _resume(checkpoint, settings, parts)
    for epoch in range(done, epochs):
        started = time.process_time()
        loss = _epoch(network, optimiser, schedule, images, labels, (seed, epoch), getattr(torch, precision))
        seconds += time.process_time() - started
        _keep(checkpoint, settings, parts, epoch + 1, seconds)
        report(f"epoch {epoch + 1} of {epochs}: loss {loss:.4f}, {seconds:.0f} s of the processor in all")
    _standardise(network, images)
    return network.eval().requires_grad_(False)


def accuracy(network, images, labels):
    """The share of uint8 images (N, 3, H, H) that the network puts in the class `labels` (N,)."""
    with torch.no_grad():
        found = torch.cat([network.logits(batch).argmax(1) for batch in images.split(500)])
    return float((found == labels).double().mean())


def _whiten(layer, values):
    """Set the layer to both signs of the principal directions of patches, each of standard deviation 1."""
    patches = F.unfold(values, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    filters = (directions / (variance + 1e-3).sqrt()).T
    with torch.no_grad():
        layer.weight.copy_(torch.cat([filters, -filters]).view(WHITENED, 3, PATCH, PATCH))
        layer.bias.copy_(torch.cat([-filters @ mean, filters @ mean]))


def _optimiser(network, steps):
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [  # decay is for the filters: scales and shifts of the normalisation are not large without it
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in learned if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=PEAK_LR, momentum=MOMENTUM, nesterov=True)
    cycle = {"pct_start": 0.2, "anneal_strategy": "linear", "cycle_momentum": False}
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LR, total_steps=steps, div_factor=10, final_div_factor=100, **cycle
    )
    return optimiser, schedule


def _epoch(network, optimiser, schedule, images, labels, key, dtype):
    """One pass over the images in random order; returns the mean loss."""
    seed, epoch = key
    network.train()
    draw = stream(seed, "cifar10 epoch", epoch)
    order = torch.randperm(len(images), generator=draw)[: len(images) // BATCH * BATCH]
    # Which images are flipped is drawn once, and the other way round in every second epoch.
    flips = torch.rand(len(images), generator=stream(seed, "cifar10 flips")) < 0.5
    flips = flips ^ bool(epoch % 2)
    total = 0.0
    for chosen in order.split(BATCH):
        batch = _shifted(pixels(images[chosen]), flips[chosen], draw).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = network.head(network.embed(batch))
        loss = F.cross_entropy(output.float(), labels[chosen], label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += loss.item()
    return total / (len(order) // BATCH)


def _shifted(values, flips, draw):
    """Mirror the images where `flips`, and move each by up to SHIFT pixels; the border is reflected."""
    values = torch.where(flips[:, None, None, None], values.flip(-1), values)
    padded = F.pad(values, (SHIFT,) * 4, mode="reflect").permute(0, 2, 3, 1)
    offsets = torch.randint(2 * SHIFT + 1, (2, len(values), 1), generator=draw)
    rows, columns = offsets + torch.arange(SIDE)
    chosen = torch.arange(len(values))[:, None, None]
    return padded[chosen, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _standardise(network, images):
    """Set the features' mean and variance to those of training images as they are, of which 10,000 are enough."""
    network.eval()
    with torch.no_grad():
        raw = torch.cat([network.averages(pixels(x)) for x in images[:10000].split(500)]).double()
    network.scale.running_mean.copy_(raw.mean(0))
    network.scale.running_var.copy_(raw.var(0))


def _resume(checkpoint, settings, parts):
    """Load the state from the file, if there is one: (epochs done, seconds)."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return 0, 0.0
    try:
        state = torch.load(checkpoint, weights_only=True)
        if state["settings"] != settings:
            raise InputError(f"{checkpoint} is of another training (data, epochs, seed or precision); remove it")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise InputError(f"{checkpoint} is damaged ({type(error).__name__}); remove it to begin anew") from error
    return state["epochs"], state["seconds"]


def _keep(checkpoint, settings, parts, epochs, seconds):
    if checkpoint is not None:
        state = {name: part.state_dict() for name, part in parts.items()}
        with atomic_path(checkpoint) as temporary:
            torch.save(state | {"settings": settings, "epochs": epochs, "seconds": seconds}, temporary)


def main(arguments=None):
    """Train the feature network of CIFAR-10 on one core; the same command goes on where it was stopped."""
    parser = Parser(prog="python -m debiaslib.metrics.cifar10_training", description=main.__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with train-* and test-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and the .safetensors")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of start, order and crops (default: %(default)s)")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16", help="of the convolutions")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # part of what the result depends on
    try:
        with exclusive(options.out / "lock", str(options.out), wait=0):
            _train_and_write(options)
    except (InputError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def _train_and_write(options):
    (images, labels), test = (load_labelled(options.dataset, split) for split in ("train", "test"))
    trained = {"epochs": options.epochs, "seed": options.seed, "precision": options.precision}
    checkpoint, path = options.out / "checkpoint.pt", options.out / "cifar10_features.safetensors"
    network = train_features(images, labels, **trained, checkpoint=checkpoint, report=lambda x: print(x, flush=True))
    # The filters in float16; scales and shifts are few. Measured is what is written.
    state = {name: value.half() if value.ndim > 1 else value for name, value in network.state_dict().items()}
    written = CIFAR10Features().eval()
    written.load_state_dict(state)
    share = accuracy(written, *test)
    command = f"python -m debiaslib.metrics.cifar10_training --epochs {options.epochs} --seed {options.seed}"
    how = {"command": f"{command} --precision {options.precision}", "test_accuracy": share, "images": len(images)}
    how |= {**trained, "threads": 1, "torch": str(torch.__version__)}
    with atomic_path(path) as temporary:
        content = {name: value.contiguous() for name, value in state.items()}
        # One entry: safetensors writes several in any order, and equal trainings are to make equal files.
        temporary.write_bytes(save(content, metadata={"training": json.dumps(how)}))
    print(f"{path}: sha256 {feature_hash(path)}\n{json.dumps(how)}")


if __name__ == "__main__":
    main()
