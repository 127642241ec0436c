"""Networks that others trained: a diffusers pipeline by folder or hub id, or an ADM checkpoint; no code of theirs runs.

    google/ddpm-cifar10-32                        a pipeline of the hub
    /data/ddpm-cifar10                            the same in a folder (unet/ and scheduler/, or their files at the top)
    ema_0.9999_500000.pt                          of guided-diffusion, P2-weighting or Debias
    ema_0.9999_500000.pt; schedule=cosine, resolution=64, num_heads=4           with the settings that it does not hold

A source is a string, so that papermill and a command line can carry it. `load.load_pretrained` also takes ours.
"""

import dataclasses
import json
import os
import re
import sys
from dataclasses import dataclass

import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, shown
from ..files import sha256_file, sha256_json
from ..paths import user_path
from .adm import ADM_SETTINGS, check_channels, read_adm
from .hub import WEIGHTS, download
from .input_skip_unet import InputSkipUNet
from .safe_weights import read_weights

__all__ = ["ADM_SETTINGS", "Pretrained", "parse_source", "read_pretrained"]

# Schedulers of the variance-preserving process whose schedule is given by betas; all have the same arguments for it.
_SCHEDULERS = ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep",
               "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete")  # fmt: skip
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
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
        name, equals, value = (word.strip() for word in part.partition("="))
        if not source or not equals or not value or name in settings:
            raise InputError(f"model {shown(str(text))} cannot be read; write it as 'source; name=value, ...'")
        try:
            settings[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InputError(
                f"{name} of the model is {shown(value)}; it must be a number, true, false or a word"
            ) from None
    return source, settings


def read_pretrained(source, **settings):
    """The `Pretrained` of a pipeline's folder or hub id, or of an ADM checkpoint's file.

    settings: `revision` for a hub id, `ADM_SETTINGS` for a checkpoint. Raises InputError, in one line, for a source
    that is none of these, cannot be had, or whose content is damaged, unsafe, of images without 3 channels, or
    contradicts itself or the settings.
    """
    path = user_path(source)
    if os.path.isfile(path):
        _check_known(settings, ADM_SETTINGS)
        network, schedule, settings = read_adm(path, settings)
        return _made(path.stem, network, schedule, settings["prediction_type"], True, sha256_file(path), settings)
    if os.path.isdir(path):
        _check_known(settings, ())
        return _pipeline(path, path.absolute().name)
    if not _HUB_ID.fullmatch(str(source)):
        raise InputError(
            f"model {shown(str(source))} is no existing folder or file and no hub id, owner/name (a run of ours: train"
            " it first)"
        )
    _check_known(settings, ("revision",))
    return _pipeline(download(str(source), settings.get("revision")), str(source))


def _check_known(settings, known):
    for name in settings:
        if not known:
            raise InputError(f"a folder takes no setting; got {name!r}")
        check_choice("setting of a model", name, known)


def _pipeline(folder, name):
    unet = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _json(unet / "config.json", "a diffusers pipeline needs unet/config.json")
    kinds = {"UNet2DModel": UNet2DModel, "InputSkipUNet": InputSkipUNet}
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{unet / 'config.json'} is of {shown(kind)}; it must be of UNet2DModel")
    try:
        check_channels(config.get("in_channels", 3), config.get("out_channels", 3))
    except InputError as error:
        raise InputError(f"{unet / 'config.json'}: {error}") from None
    path = next((unet / file for file in WEIGHTS if (unet / file).is_file()), None)
    if path is None:
        raise InputError(f"{unet} holds no weights; put {' or '.join(WEIGHTS)} there")
    read_weights(path)  # refused here, in one line, before the library opens it
    network = _built(kinds[kind], unet, path)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler = scheduler if scheduler.is_file() else folder / "scheduler_config.json"
    said = _json(scheduler, "a diffusers pipeline needs scheduler/scheduler_config.json")
    schedule, prediction_type, clip = _process(said, scheduler)
    if network.config.out_channels == 2 * network.config.in_channels and said.get("variance_type") == "learned":
        raise InputError(f"{scheduler} says variance_type 'learned'; known is 'learned_range'")
    settings = {key: value for key, value in said.items() if not key.startswith("_")}
    if kind == "InputSkipUNet":
        network.skip = _skip_table(unet / "config.json", config, schedule.T)
        settings["skip"] = config["_skip"]
    return _made(name, network, schedule, prediction_type, clip, sha256_file(path), settings)


def _skip_table(path, config, T):
    table = config.get("_skip")
    if not isinstance(table, list) or len(table) != T or not all(isinstance(one, float) for one in table):
        raise InputError(f"{path} has _skip={shown(table, 30)}; an InputSkipUNet needs a list of {T} numbers")
    return torch.tensor(table)


def _built(kind, unet, path):
    """The network of a folder, by diffusers itself, which knows the names of earlier versions."""
    try:
        network, info = kind.from_pretrained(
            unet,
            use_safetensors=path.suffix == ".safetensors",
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise InputError(f"{unet} is refused by diffusers: {' '.join(str(error).split())[:200]}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):  # the library would go on with random numbers
        if info[kind]:
            what, first = kind.replace("_", " "), sorted(map(str, info[kind]))[0]
            raise InputError(f"{path} does not fit its config.json: {len(info[kind])} {what}, the first {first!r}")
    return network


def _process(said, path):
    """(Schedule, prediction type, clip x0_hat?) of a scheduler's configuration."""
    kind = str(said.get("_class_name")).removesuffix("Scheduler")
    if kind not in _SCHEDULERS:
        raise InputError(f"{path} is of {shown(said.get('_class_name'))}; known: {', '.join(_SCHEDULERS)}, + Scheduler")
    if said.get("use_flow_sigmas"):
        raise InputError(f"{path} says use_flow_sigmas: flow matching; only variance-preserving schedules are known")
    prediction_type = check_choice(f"prediction_type of {path}", _prediction_type(said, path), PREDICTION_TYPES)
    try:
        scheduler = DDPMScheduler(**{key: said[key] for key in _BETAS if said.get(key) is not None})
        schedule = Schedule.from_diffusers(scheduler)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} makes no schedule: {' '.join(str(error).split())[:200]}") from None
    clip = bool(said.get("clip_sample", kind in ("DDPM", "DDIM")))
    _say_left_out(said, path, clip)
    return schedule, prediction_type, clip


def _prediction_type(said, path):
    """Before diffusers 0.10, predict_epsilon said whether the network predicts epsilon or x0."""
    old = said.get("predict_epsilon")
    if old is None:
        return said.get("prediction_type", "epsilon")
    check_choice(f"predict_epsilon of {path}", old, (True, False))
    meant = "epsilon" if old else "sample"
    new = said.get("prediction_type", meant)
    if new != meant:
        raise InputError(f"{path} says predict_epsilon={old} and prediction_type={shown(new)}")
    return new


def _say_left_out(said, path, clip):
    """Name on stderr what the scheduler does to x0_hat and our samplers do not."""
    left_out = [f"thresholding={said['thresholding']}"] if said.get("thresholding") else []
    if clip and said.get("clip_sample_range", 1.0) != 1.0:
        left_out.append(f"clip_sample_range={said['clip_sample_range']}")
    if left_out:
        does = "x0_hat is clipped to [-1, 1]" if clip else "x0_hat is not clipped"
        print(f"{path}: {', '.join(left_out)} is not applied; {does}", file=sys.stderr)


def _made(name, network, schedule, prediction_type, clip, sha256, settings):
    """The parts as a `Pretrained`; its settings are all that decides the answers."""
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    settings = json.loads(json.dumps({"network": config, **settings}, default=str))
    network = network.eval().requires_grad_(False)
    return Pretrained(name, network, schedule, prediction_type, clip, sha256, settings)


def _json(path, needed):
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path} does not exist; {needed}") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise InputError(f"{path} holds no JSON object")
    return said
