"""A trained network as a diffusers pipeline."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from diffusers import DDPMPipeline, DDPMScheduler

from ..errors import InputError
from ..files import naming
from .input_skip_unet import InputSkipUNet
from .load import load_model
from .network import beta_ends
from .run import run_config

__all__ = ["export_pipeline"]

_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}


def export_pipeline(run, folder, images=None):
    """Save a complete run as a `DDPMPipeline` folder that stock diffusers loads, with the paper's respacing.

    Returns `folder`, whose earlier files are replaced once all new ones are written. A network with `input_skip` takes
    its class along, unet/input_skip_unet.py: DDPMPipeline.from_pretrained(folder, trust_remote_code=True).
    Raises InputError for what a `DDPMPipeline` has no place for: a network that is told the class, or a transformer.
    """
    config, target = run_config(run), Path(folder).absolute()
    _check_exportable(run, config)
    pipeline = DDPMPipeline(unet=load_model(run, images), scheduler=_scheduler(config))
    target.mkdir(parents=True, exist_ok=True)
    with naming(target), tempfile.TemporaryDirectory(dir=target, prefix=".export-") as made:
        _save(pipeline, Path(made))
        for path in [path for path in Path(made).rglob("*") if path.is_file()]:
            place = target / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    return folder


def _check_exportable(run, config):
    kind = config.network.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        reason = f"is a {kind}, and a DDPMPipeline calls a UNet2DModel"
    elif config.classes:
        reason = f"is told one of {config.classes} classes, which a DDPMPipeline cannot pass on"
    else:
        return
    raise InputError(f"the network of {run.folder} {reason}; load_model gives the network itself")


def _scheduler(config):
    return DDPMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=_SCHEDULES[config.schedule],
        **({"beta_start": 0.00085, "beta_end": 0.012} if config.schedule == "scaled_linear" else beta_ends(config)),
        prediction_type=config.prediction_type,
        variance_type="learned_range" if config.learned_variance else "fixed_small",
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="linspace",
        clip_sample=True,
    )


def _save(pipeline, folder):
    """Write the pipeline; with an input skip, its table goes into the U-Net's configuration and its class beside it."""
    skips = isinstance(pipeline.unet, InputSkipUNet)
    if skips:
        pipeline.unet.register_to_config(_skip=pipeline.unet.skip.tolist())
    pipeline.save_pretrained(folder, safe_serialization=True)
    if skips:
        module = InputSkipUNet.__module__.rpartition(".")[2]
        shutil.copy(sys.modules[InputSkipUNet.__module__].__file__, folder / "unet" / f"{module}.py")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["unet"] = [module, InputSkipUNet.__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
