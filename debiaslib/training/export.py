"""A trained network as a diffusers pipeline."""

import json
import shutil
from pathlib import Path

from diffusers import DDPMPipeline, DDPMScheduler

from ..errors import InputError
from . import input_skip_unet
from .load import load_model
from .network import beta_ends
from .run import run_config

_SCHEDULES = {"cosine": "squaredcos_cap_v2"}  # diffusers' names, where they are others


def export_pipeline(run, folder, images=None):
    """Save a complete run as a `DDPMPipeline` folder that stock diffusers loads, with the paper's respacing.

    Returns `folder`. A network with `input_skip` takes its class along, unet/input_skip_unet.py, and its table in the
    U-Net's configuration: DDPMPipeline.from_pretrained(folder, trust_remote_code=True).
    Raises InputError for a network that is told the class and for a transformer, which a `DDPMPipeline` cannot call.
    """
    config, target = run_config(run), Path(folder)
    if config.classes or config.network.get("_class_name", "UNet2DModel") != "UNet2DModel":
        why = "is told a class or is no UNet2DModel, which a DDPMPipeline cannot call"
        raise InputError(f"the network of {run.folder} {why}; load_model gives the network itself")
    network = load_model(run, images)
    skips = isinstance(network, input_skip_unet.InputSkipUNet)
    if skips:
        network.register_to_config(_skip=network.skip.tolist())
    DDPMPipeline(unet=network, scheduler=_scheduler(config)).save_pretrained(target, safe_serialization=True)
    if skips:
        shutil.copy(input_skip_unet.__file__, target / "unet")
        index = json.loads((target / "model_index.json").read_text(encoding="utf-8"))
        index["unet"] = ["input_skip_unet", "InputSkipUNet"]
        (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder


def _scheduler(config):
    return DDPMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=_SCHEDULES.get(config.schedule, config.schedule),
        **({"beta_start": 0.00085, "beta_end": 0.012} if config.schedule == "scaled_linear" else beta_ends(config)),
        prediction_type=config.prediction_type,
        variance_type="learned_range" if config.learned_variance else "fixed_small",
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="linspace",
        clip_sample=True,
    )
