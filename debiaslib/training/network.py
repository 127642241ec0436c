"""Networks: diffusers' `UNet2DModel` of a configuration, trained weights of ours or of others, export to a pipeline."""

import os
import tempfile
import types
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiTTransformer2DModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DOutput
from safetensors.torch import load_file

from ..devices import check_device
from ..diffusion.randomness import stream_seed
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice
from ..files import naming, sha256_file
from ..paths import user_path
from .config import TrainConfig
from .pretrained import Pretrained, parse_source, read_pretrained
from .run import Run
from .safe_weights import read_weights

_DIFFUSERS_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}


class InputSkipUNet(UNet2DModel):
    """`UNet2DModel` plus a multiple of its input: scale_t x_t + f(x_t, t). Its weights are named as f's alone.

    At large t, epsilon is x_t to within a few per cent. Without the skip a small network has to copy its input through
    norms and non-linearities, and the error of that copy is what 1/sqrt(SNR) amplifies.
    """

    skip = None  # (T,), set by `build_network`; not among the weights

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The output (B, C, H, W), or (B, 2C, H, W) with learned variance, whose values get no skip."""
        output = super().forward(sample, timestep, class_labels, return_dict=False)[0]
        output = _with_skip(output, sample, timestep, self.skip)
        return UNet2DOutput(sample=output) if return_dict else (output,)


class Transformer(DiTTransformer2DModel):
    """diffusers' `DiTTransformer2DModel` called as a U-Net is, of one class, with or without the skip."""

    skip = None

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The output (B, C, H, W)."""
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        labels = torch.zeros(len(sample), dtype=torch.int64, device=sample.device)
        output = super().forward(sample, timestep=timestep, class_labels=labels, return_dict=False)[0]
        output = _with_skip(output, sample, timestep, self.skip)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def _with_skip(output, x_t, t, skip):
    if skip is None:
        return output
    scale = skip.to(x_t.device)[torch.as_tensor(t, device=x_t.device)].view(-1, 1, 1, 1)
    prediction, *values = output.split(x_t.shape[1], dim=1)
    return torch.cat([prediction + scale * x_t, *values], dim=1) if values else prediction + scale * x_t


def input_skip(config):
    """The multiple of x_t that a network with `input_skip` adds to its output at each t: float32 (T,).

    It is the best linear guess of the target from x_t for images of mean 0 and variance 1: s for epsilon, a for x0
    and 0 for v, which such images leave uncorrelated with x_t.
    """
    with torch.device("cpu"):  # the network itself may be built on the meta device
        a, s = build_schedule(config).scales(torch.arange(config.timesteps), torch.zeros(config.timesteps))
    return {"epsilon": s, "sample": a, "v_prediction": torch.zeros_like(a)}[config.prediction_type].float()


def build_network(config, *, initialise=True):
    """The network of a `TrainConfig`, float32 on the CPU, initialised from (seed, "init").

    `config.network` holds the arguments of diffusers' class `_class_name` (UNet2DModel, or DiTTransformer2DModel), and
    `input_skip`: whether a multiple of x_t is added to its output (`input_skip`).

    Weightings of one seed start from equal weights. The output layer runs in float32 also under autocast: rounding
    epsilon alone to bfloat16 costs an x0-MSE of 0.07 at t = 999, which is of the size of the effect that is measured.
    """
    settings = dict(config.network)
    kind = check_choice("_class_name of the network", settings.pop("_class_name", "UNet2DModel"), _CLASSES)
    skips = check_choice("input_skip of the network", settings.pop("input_skip", False), (True, False))
    zero = check_choice("zero_init of the network", settings.pop("zero_init", False), (True, False))
    if config.learned_variance:
        settings["out_channels"] = 2 * settings.get("out_channels", 3)
    if kind == "DiTTransformer2DModel":
        settings = {"num_embeds_ada_norm": 1, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init") if initialise else 0)
        try:
            network = _CLASSES[kind][skips](**settings)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the network's settings are refused by diffusers: {' '.join(str(error).split())}"
            ) from None
    if zero:
        _zero_last_layers(network)
    if skips:
        network.skip = input_skip(config)
    last = network.conv_out if kind == "UNet2DModel" else network.proj_out_2
    last.forward = types.MethodType(_float32_forward, last)
    return network


def _zero_last_layers(network):
    """Set the last layer of each residual block, of each attention and of the network to 0, as ADM starts.

    Each block then adds nothing at first, and a network with the skip starts as the linear guess alone.
    """
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight), torch.nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, Attention):
            torch.nn.init.zeros_(module.to_out[0].weight), torch.nn.init.zeros_(module.to_out[0].bias)
    if hasattr(network, "conv_out"):
        torch.nn.init.zeros_(network.conv_out.weight), torch.nn.init.zeros_(network.conv_out.bias)


_CLASSES = {
    "UNet2DModel": {False: UNet2DModel, True: InputSkipUNet},
    "DiTTransformer2DModel": {False: Transformer, True: Transformer},
}


def _float32_forward(layer, x):
    with torch.autocast(x.device.type, enabled=False):
        return type(layer).forward(layer, x.float())


def build_schedule(config):
    """The `Schedule` of a `TrainConfig`."""
    schedule = getattr(Schedule, config.schedule)(T=config.timesteps)
    return schedule.rescale_zero_terminal_snr() if config.zero_terminal_snr else schedule


def run_config(run):
    """The `TrainConfig` that a run was made with. Raises InputError if there is no such run."""
    made = run.config
    if made is None:
        raise InputError(f"{run.folder} holds no run; train it first")
    try:
        return TrainConfig(**{key: value for key, value in made.items() if key in TrainConfig.__dataclass_fields__})
    except InputError as error:
        raise InputError(f"{run.folder / 'config.json'}: {error}") from None


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
    said = Run(folder).config if os.path.isfile(folder / "config.json") else None
    if said is None or not {"network", "weighting", "dataset"} & set(said):
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
    if config.network.get("input_skip"):
        raise InputError(
            f"the network of {run.folder} adds its input to its output (input_skip), which diffusers' UNet2DModel "
            "does not; load_model gives the network itself"
        )
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
