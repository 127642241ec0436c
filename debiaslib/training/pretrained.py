"""Networks that others trained: a diffusers pipeline by folder or hub id, or an ADM checkpoint; no code of theirs runs.

    google/ddpm-cifar10-32                        a pipeline of the hub
    /data/ddpm-cifar10                            the same in a folder (unet/ and scheduler/, or their files at the top)
    ema_0.9999_500000.pt                          of guided-diffusion, P2-weighting or Debias, with their settings
    ema_0.9999_500000.pt; schedule=cosine, resolution=64, num_heads=4           and with others (`ADM_SETTINGS`)

A source is a string, so that papermill and a command line can carry it. `models.load_pretrained` also takes ours.
"""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, check_number, shown
from ..files import sha256_file, sha256_json
from ..paths import user_path
from .convert import convert_adm
from .safe_weights import read_weights

__all__ = ["ADM_SETTINGS", "Pretrained", "parse_source", "read_pretrained"]

# What a checkpoint of ADM does not say, with what the paper's scripts set; None: see `convert.infer_network`. The
# network is given t itself: a checkpoint trained with rescale_timesteps=True fits with 1000 timesteps alone.
ADM_SETTINGS = {
    "resolution": None,
    "num_head_channels": None,
    "num_heads": None,
    "new_attention_order": False,
    "schedule": "linear",
    "timesteps": 1000,
    "prediction_type": "epsilon",
}
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
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
        """Whether it answers with the values of its step's variance too (`variance.split_variance`)."""
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
    that is none of these, cannot be had, or whose content is damaged, unsafe or contradicts itself or the settings.
    """
    path = user_path(source)
    if os.path.isfile(path):
        return _checkpoint(path, settings)
    if os.path.isdir(path):
        _check_known(settings, ())
        return _pipeline(path, path.absolute().name)
    if not _HUB_ID.fullmatch(str(source)):
        raise InputError(
            f"model {shown(str(source))} is no existing folder or file and no hub id, owner/name (a run of ours: train"
            " it first)"
        )
    _check_known(settings, ("revision",))
    return _pipeline(_downloaded(str(source), settings.get("revision")), str(source))


def _check_known(settings, known):
    for name in settings:
        if not known:
            raise InputError(f"a folder takes no setting; got {name!r}")
        check_choice("setting of a model", name, known)


def _checkpoint(path, settings):
    _check_known(settings, ADM_SETTINGS)
    settings = {**ADM_SETTINGS, **settings}
    check_choice("prediction_type", settings["prediction_type"], PREDICTION_TYPES)
    check_choice("schedule", settings["schedule"], ("linear", "cosine"))  # those that ADM has
    check_choice("new_attention_order", settings["new_attention_order"], (True, False))
    check_number("timesteps", settings["timesteps"], minimum=2, integer=True)
    state = read_weights(path)
    shape = {name: settings[name] for name in list(ADM_SETTINGS)[:4]}
    try:
        network = convert_adm(state, **shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    steps = settings["timesteps"]
    # ADM scales its linear betas with 1000 / T.
    ends = {"beta_start": 0.1 / steps, "beta_end": 20 / steps} if settings["schedule"] == "linear" else {}
    schedule = getattr(Schedule, settings["schedule"])(T=steps, **ends)
    return _made(path.stem, network, schedule, settings["prediction_type"], True, sha256_file(path), settings)


def _pipeline(folder, name):
    unet = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _json(unet / "config.json", "a diffusers pipeline needs unet/config.json")
    if config.get("_class_name") != "UNet2DModel":
        raise InputError(f"{unet / 'config.json'} is of {shown(config.get('_class_name'))}; it must be of UNet2DModel")
    path = next((unet / file for file in _WEIGHTS if (unet / file).is_file()), None)
    if path is None:
        raise InputError(f"{unet} holds no weights; put {' or '.join(_WEIGHTS)} there")
    read_weights(path)  # refused here, in one line, before the library opens it
    network = _built(unet, path)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler = scheduler if scheduler.is_file() else folder / "scheduler_config.json"
    said = _json(scheduler, "a diffusers pipeline needs scheduler/scheduler_config.json")
    schedule, prediction_type, clip = _process(said, scheduler)
    if network.config.out_channels == 2 * network.config.in_channels and said.get("variance_type") == "learned":
        raise InputError(f"{scheduler} says variance_type 'learned'; known is 'learned_range'")
    settings = {key: value for key, value in said.items() if not key.startswith("_")}
    return _made(name, network, schedule, prediction_type, clip, sha256_file(path), settings)


def _built(unet, path):
    """The network of a folder, by diffusers itself, which knows the names of earlier versions."""
    try:
        network, info = UNet2DModel.from_pretrained(
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
    prediction_type = check_choice(
        f"prediction_type of {path}", said.get("prediction_type", "epsilon"), PREDICTION_TYPES
    )
    try:
        scheduler = DDPMScheduler(**{key: said[key] for key in _BETAS if said.get(key) is not None})
        schedule = Schedule.from_diffusers(scheduler)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} makes no schedule: {' '.join(str(error).split())[:200]}") from None
    return schedule, prediction_type, bool(said.get("clip_sample", kind in ("DDPM", "DDIM")))


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


def _downloaded(hub_id, revision):
    """The folder of a pipeline in the hub's cache: as it lies there if it is whole, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    configs = ["config.json", "scheduler_config.json", "unet/config.json", "scheduler/scheduler_config.json"]
    wanted = [(local, file) for local in (True, False) for file in _WEIGHTS]
    for local, weights in wanted:
        patterns = [*configs, weights, f"unet/{weights}"]
        try:
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=local))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise InputError(
                f"model {hub_id!r} is no existing path and not on the hub (revision {revision or 'main'}), or it is"
                " private and needs `hf auth login`"
            ) from None
        except Exception as error:  # the HTTP library's, the client's, the disk's
            if not local:
                raise _unreachable(hub_id, error) from None
            continue
        if any((place / weights).is_file() for place in (folder, folder / "unet")):
            return folder
    raise InputError(f"the hub's {hub_id!r} holds no {' or '.join(_WEIGHTS)}: it is no diffusers pipeline of a U-Net")


def _unreachable(hub_id, error):
    return InputError(
        f"model {hub_id!r} is no existing path, and the hub cannot be reached ({type(error).__name__}); give a folder"
        " with its files, or copy the hub's cache, HF_HOME"
    )
