"""Networks that others trained: a diffusers pipeline by folder or hub id, or an ADM checkpoint; no code of theirs runs.

    google/ddpm-cifar10-32                        a pipeline of the hub
    /data/ddpm-cifar10                            the same in a folder (unet/ and scheduler/, or their files at the top)
    ema_0.9999_500000.pt                          of guided-diffusion, P2-weighting or Debias
    ema_0.9999_500000.pt; schedule=cosine, resolution=64, num_heads=4           with the settings that it does not hold

A source is a string, so that papermill and a command line can carry it. `load.load_pretrained` also takes ours.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub import snapshot_download

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, shown
from ..files import read_json, sha256_file, sha256_json
from ..paths import user_path
from .adm import ADM_SETTINGS, check_channels, read_adm
from .input_skip_unet import InputSkipUNet
from .safe_weights import read_weights

# Schedulers of the variance-preserving process whose schedule is given by betas; all have the same arguments for it.
_SCHEDULERS = ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep",
               "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete")  # fmt: skip
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_NETWORKS = {"UNet2DModel": UNet2DModel, "InputSkipUNet": InputSkipUNet}
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Pretrained:
    """A network and what is needed to ask it: on the CPU, float32, for evaluation.

    settings: JSON-native, what decides its answers beside the weights. training: the configuration of one of ours.
    """

    name: str
    network: torch.nn.Module
    schedule: Schedule
    prediction_type: str
    clip_x0: bool
    weights_sha256: str
    settings: dict
    training: dict = dataclasses.field(default_factory=dict)

    @property
    def resolution(self):
        """Pixels of a side of the images that it was trained on."""
        size = self.network.config.sample_size
        return size if isinstance(size, int) else size[0]

    @property
    def learned_variance(self):
        """Whether it also answers the values of its step's variance (`variance.split_variance`)."""
        return self.network.config.out_channels == 2 * self.network.config.in_channels

    @property
    def identity(self):
        """What decides its answers: the hashes of its settings and of its file of weights."""
        return {"config": sha256_json(self.settings), "ema": self.weights_sha256}

    @property
    def slug(self):
        """The name as part of a folder's name, with the beginning of the identity's hash."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.")[-60:]
        return f"{words}-{sha256_json(self.identity)[:8]}"


def parse_source(text):
    """(source, settings) of `"source"` or `"source; name=value, ..."`. Raises InputError for what cannot be read."""
    source, _, rest = (part.strip() for part in str(text).partition(";"))
    settings = {}
    for part in rest.split(",") if rest else []:
        name, _, value = (word.strip() for word in part.partition("="))
        if not source or not value or name in settings:
            raise InputError(f"model {shown(str(text))} cannot be read; write it as 'source; name=value, ...'")
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"{name} of the model is {shown(value)}; it must be a number or a word") from None
    return source, settings


def read_pretrained(source, **settings):
    """The `Pretrained` of a pipeline's folder or hub id, or of an ADM checkpoint's file.

    settings: `revision` for a hub id, `ADM_SETTINGS` for a checkpoint. Raises InputError, in one line, for a source
    that is none of these, cannot be had, or whose content is damaged, unsafe, of images without 3 channels, or
    contradicts itself or the settings.
    """
    path = user_path(source)
    is_file, is_folder = os.path.isfile(path), os.path.isdir(path)
    if not is_file and not is_folder and not _HUB_ID.fullmatch(str(source)):
        what = "no existing folder or file and no hub id, owner/name (a run of ours: train it first)"
        raise InputError(f"model {shown(str(source))} is {what}")
    for name in settings:
        if is_folder:
            raise InputError(f"a folder takes no setting; got {name!r}")
        check_choice("setting of a model", name, ADM_SETTINGS if is_file else ("revision",))
    if is_file:
        network, schedule, settings = read_adm(path, settings)
        return _made(path.stem, network, schedule, settings["prediction_type"], True, path, settings)
    if is_folder:
        return _pipeline(path, path.absolute().name)
    return _pipeline(_download(str(source), settings.get("revision")), str(source))


def _download(hub_id, revision):
    """The folder of a pipeline in the hub's cache, downloaded if it is not whole there."""
    for cached, weights in itertools.product((True, False), _WEIGHTS):
        files = ("config.json", "scheduler_config.json", weights)
        wanted = [f"{part}{file}" for part in ("", "unet/", "scheduler/") for file in files]
        try:
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted, local_files_only=cached))
        except Exception as error:  # the HTTP library's, the client's, the disk's
            reason = type(error).__name__
        else:
            if any(folder.rglob(weights)):
                return folder
            reason = "it holds no weights"
    hint = "give a folder with its files, or copy the hub's cache, HF_HOME"
    raise InputError(f"model {hub_id!r} is no existing path, and the hub does not give it ({reason}); {hint}")


def _pipeline(folder, name):
    unet = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _mapping(unet / "config.json")
    kind = check_choice(f"_class_name of {unet / 'config.json'}", config.get("_class_name"), _NETWORKS)
    path = next((unet / file for file in _WEIGHTS if (unet / file).is_file()), None)
    if path is None:
        raise InputError(f"{unet} holds no weights; put {' or '.join(_WEIGHTS)} there")
    read_weights(path)  # refused here, in one line, before the library opens it
    network = _network(_NETWORKS[kind], unet, path)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler = scheduler if scheduler.is_file() else folder / "scheduler_config.json"
    said = _mapping(scheduler)
    schedule, prediction_type, clip = _process(said, scheduler)
    settings = {key: value for key, value in said.items() if not key.startswith("_")}
    if kind == "InputSkipUNet":
        settings["skip"] = config.get("_skip")
        if not isinstance(settings["skip"], list) or len(settings["skip"]) != schedule.T:
            raise InputError(f"{unet / 'config.json'} has no _skip of {schedule.T} numbers")
        network.skip = torch.tensor(settings["skip"])
    return _made(name, network, schedule, prediction_type, clip, path, settings)


def _network(kind, unet, path):
    """The network of a folder, by diffusers itself, which knows the names of earlier versions."""
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "local_files_only": True}
    options |= {"use_safetensors": path.suffix == ".safetensors", "output_loading_info": True}
    try:
        network, info = kind.from_pretrained(unet, **options)
        check_channels(network.config)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise InputError(f"{unet} is refused: {error}") from None
    for what in ("missing_keys", "unexpected_keys"):  # the library would go on with random numbers
        if info[what]:
            raise InputError(f"{path} does not fit its config.json: {what} {', '.join(sorted(map(str, info[what])))}")
    return network


def _process(said, path):
    """(Schedule, prediction type, clip x0_hat?) of a scheduler's configuration."""
    kind = str(said.get("_class_name")).removesuffix("Scheduler")
    check_choice(f"_class_name of {path}", kind, _SCHEDULERS)
    if said.get("use_flow_sigmas") or said.get("variance_type") == "learned":
        raise InputError(f"{path} is of flow matching or of variance_type 'learned', which are not known")
    try:
        scheduler = DDPMScheduler(**{key: said[key] for key in _BETAS if said.get(key) is not None})
        schedule = Schedule.from_diffusers(scheduler)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} makes no schedule: {error}") from None
    clip = bool(said.get("clip_sample", kind in ("DDPM", "DDIM")))
    if said.get("thresholding") or said.get("clip_sample_range", 1.0) != 1.0:
        does = "clipped to [-1, 1]" if clip else "not clipped"
        print(f"{path}: thresholding and clip_sample_range are not applied; x0_hat is {does}", file=sys.stderr)
    # Before diffusers 0.10, predict_epsilon said whether the network predicts epsilon or x0.
    kind = said.get("prediction_type", "sample" if said.get("predict_epsilon") is False else "epsilon")
    return schedule, check_choice(f"prediction_type of {path}", kind, PREDICTION_TYPES), clip


def _made(name, network, schedule, prediction_type, clip, path, settings):
    """The parts as a `Pretrained`; its settings are all that decides the answers beside the weights in `path`."""
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    settings = json.loads(json.dumps({"network": config, **settings}, default=str))
    network = network.eval().requires_grad_(False)
    return Pretrained(name, network, schedule, prediction_type, clip, sha256_file(path), settings)


def _mapping(path):
    said = read_json(path)
    if not isinstance(said, dict):
        raise InputError(f"{path} is missing or holds no settings; a diffusers pipeline needs it")
    return said
