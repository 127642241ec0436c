"""Networks: diffusers' `UNet2DModel` of a configuration, trained weights of ours or of others, export to a pipeline."""

import os
import tempfile
import types
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

from .config import TrainConfig
from .devices import check_device
from .errors import InputError
from .files import naming, read_json, sha256_file
from .paths import user_path
from .pretrained import Pretrained, parse_source, read_pretrained
from .randomness import stream_seed
from .runs import Run
from .safe_weights import read_weights
from .schedule import Schedule

_DIFFUSERS_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}


def build_network(config, *, initialise=True):
    """The `UNet2DModel` of a `TrainConfig`, float32 on the CPU, initialised from (seed, "init").

    Weightings of one seed start from equal weights. The output convolution runs in float32 also under autocast:
    rounding epsilon alone to bfloat16 costs an x0-MSE of 0.07 at t = 999, which is of the size of the effect that is
    measured.
    """
    settings = dict(config.network)
    if config.learned_variance:
        settings["out_channels"] = 2 * settings.get("out_channels", 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init") if initialise else 0)
        try:
            network = UNet2DModel(**settings)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the network's settings are refused by diffusers: {' '.join(str(error).split())}"
            ) from None
    network.conv_out.forward = types.MethodType(_float32_forward, network.conv_out)
    return network


def _float32_forward(convolution, x):
    with torch.autocast(x.device.type, enabled=False):
        return torch.nn.Conv2d.forward(convolution, x.float())


def build_schedule(config):
    """The `Schedule` of a `TrainConfig`."""
    schedule = getattr(Schedule, config.schedule)(T=config.timesteps)
    return schedule.rescale_zero_terminal_snr() if config.zero_terminal_snr else schedule


def run_config(run):
    """The `TrainConfig` that a run was made with. Raises InputError if there is no such run."""
    made = run.config
    if made is None:
        raise InputError(f"{run.folder} holds no run; train it first")
    return TrainConfig(**{key: value for key, value in made.items() if key in TrainConfig.__dataclass_fields__})


def load_model(source, images=None, device="cpu", *, raw=False, **settings):
    """A trained network for evaluation, float32.

    source: a complete `Run` or its folder, whose EMA weights after `images` images are taken (None: at the end), or
        with `raw` those of the last step themselves; or what `load_pretrained` takes, with its settings.
    Raises InputError if the run is not complete, a file is not what its record says, and as `load_pretrained` does.
    """
    check_device(device)
    run = _own_run(source)
    if run is None:
        if raw or images is not None:
            raise InputError(f"{source} is no run of ours, so it has no snapshots; leave out images and raw")
        return load_pretrained(source, **settings).network.to(device)
    if settings:
        raise InputError(f"a run of ours takes no setting; got {next(iter(settings))!r}")
    path = run.raw_weights() if raw else run.snapshot(images)
    network = build_network(run_config(run), initialise=False)
    network.load_state_dict(load_file(path))
    return network.to(device).eval().requires_grad_(False)


def load_pretrained(source, **settings):
    """A network with its schedule, prediction type, resolution and identity: a `Pretrained`.

    source: what `pretrained.read_pretrained` takes (a diffusers pipeline, an ADM checkpoint, either as "source;
    name=value"); or one of ours: a complete run's folder, a folder of config.json and one .safetensors file of EMA
    weights, or that file itself. Half precision becomes float32. Raises InputError, in one line, for anything else.
    """
    if isinstance(source, (str, Path)):
        source, given = parse_source(source)
        settings = {**given, **settings}
    run = _own_run(source)
    path = run.snapshot() if run else _published(user_path(source))
    if path is None:
        return read_pretrained(source, **settings)
    if settings:
        raise InputError(f"a network of ours takes no setting; got {next(iter(settings))!r}")
    run = Run(path.parent)
    config = run_config(run)
    network, state = build_network(config, initialise=False), read_weights(path)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its config.json: {' '.join(str(error).split())[:200]}") from None
    network = network.eval().requires_grad_(False)
    schedule, made = build_schedule(config), config.to_dict()
    decides = ("network", "schedule", "timesteps", "zero_terminal_snr", "prediction_type", "learned_variance")
    facts = {key: made[key] for key in decides}
    name = path.parent.name
    return Pretrained(name, network, schedule, config.prediction_type, True, sha256_file(path), facts, made)


def _own_run(source):
    """The `Run` that it is, complete or not, or None."""
    if isinstance(source, Run):
        return source
    folder = user_path(source)
    known = any(os.path.isfile(folder / name) for name in ("record.json", "log.jsonl"))
    return Run(folder) if known else None


def _published(path):
    """The file of EMA weights of ours that `path` is or that is alone in the folder `path`, or None."""
    folder = path.parent if os.path.isfile(path) else path
    said = read_json(folder / "config.json") if os.path.isfile(folder / "config.json") else None
    if not isinstance(said, dict) or not {"network", "weighting"} <= set(said):
        return None
    if os.path.isfile(path):
        return Run(folder).checked(path) if path.suffix == ".safetensors" else None
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{folder} holds a network of ours, but not one .safetensors file of weights: {names}")
    return files[0]


def export_pipeline(run, folder, images=None):
    """Save a complete run as a `DDPMPipeline` folder that stock diffusers loads, with the paper's respacing.

    Returns `folder`, whose earlier files are replaced once all new ones are written. Raises InputError for a network
    that is told the class: a `DDPMPipeline` has no place for it.
    """
    config = run_config(run)
    if config.classes:
        raise InputError(
            f"the network of {run.folder} is told one of {config.classes} classes, which a DDPMPipeline cannot pass "
            "on; load_model gives the network itself"
        )
    scheduler = DDPMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=_DIFFUSERS_SCHEDULES[config.schedule],
        **({"beta_start": 0.00085, "beta_end": 0.012} if config.schedule == "scaled_linear" else {}),
        prediction_type=config.prediction_type,
        variance_type="learned_range" if config.learned_variance else "fixed_small",
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="linspace",
        clip_sample=True,
    )
    pipeline, target = DDPMPipeline(unet=load_model(run, images), scheduler=scheduler), Path(folder).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with naming(target), tempfile.TemporaryDirectory(dir=target, prefix=".export-") as made:
        pipeline.save_pretrained(made, safe_serialization=True)
        for path in [path for path in Path(made).rglob("*") if path.is_file()]:
            place = target / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    return folder
