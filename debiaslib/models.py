"""Networks: diffusers' `UNet2DModel` of a configuration, a trained run's EMA weights, export to a pipeline."""

import types

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

from .config import TrainConfig
from .errors import InputError
from .randomness import stream_seed
from .runs import Run
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


def load_model(run, images=None, device="cpu", *, raw=False):
    """The network of a complete run with its EMA weights after `images` images (None: at the end), for evaluation.

    run: a `Run` or its folder. raw: the weights of the last step themselves, without averaging.
    Raises InputError if the run is not complete or the file is not what its record says.
    """
    run = run if isinstance(run, Run) else Run(run)
    path = run.raw_weights() if raw else run.snapshot(images)
    network = build_network(run_config(run), initialise=False)
    network.load_state_dict(load_file(path))
    return network.to(device).eval().requires_grad_(False)


def export_pipeline(run, folder, images=None):
    """Save a complete run as a `DDPMPipeline` folder that stock diffusers loads, with the paper's respacing.

    Returns `folder`.
    """
    config = run_config(run)
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
    DDPMPipeline(unet=load_model(run, images), scheduler=scheduler).save_pretrained(folder, safe_serialization=True)
    return folder
