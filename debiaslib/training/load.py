"""Trained networks, for evaluation: of a run of ours, also as published, or of others; no code of theirs runs.

results/quick/runs/debiased-s0                a complete run of ours, or a published one
google/ddpm-cifar10-32                        a pipeline of the hub
/data/ddpm-cifar10                            the same in a folder (unet/ and scheduler/, or their files at the top)
ema_0.9999_500000.pt                          of guided-diffusion, P2-weighting or Debias
ema_0.9999_500000.pt; schedule=cosine, resolution=64, num_heads=4           with the settings that it does not hold
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

from ..devices import check_device
from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.schedule import Schedule
from ..errors import InputError, check_choice, shown
from ..files import read_json, sha256_file, sha256_json
from ..paths import user_path
from .adm import ADM_SETTINGS, check_channels, read_adm
from .arms import split_settings
from .network import build_network, build_schedule
from .run import Run, run_config

# Schedulers of the variance-preserving process whose schedule is given by betas; all have the same arguments for it.
_SCHEDULERS = ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep",
               "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete")  # fmt: skip
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DECIDES = ("network", "schedule", "timesteps", "zero_terminal_snr", "prediction_type", "learned_variance")


@dataclass(frozen=True)
class Pretrained:
    """A network and what is needed to ask it: on the CPU, float32, for evaluation.

    clip_x0: whether sampling clips its estimate of x0 to [-1, 1]. weights_sha256: of the file of its weights.
    settings: JSON-native, what decides its answers beside the weights. training: the configuration of one of ours.
    """

    name: str
    network: torch.nn.Module
    schedule: Schedule
    prediction_type: str
    clip_x0: bool
    weights_sha256: str
    settings: dict
    training: dict = field(default_factory=dict)

    @property
    def resolution(self):
        """Pixels of a side of the images that it was trained on."""
        size = self.network.config.sample_size
        if size is None:
            raise InputError(f"{self.name} does not say the size of its images; set sample_size in its config.json")
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


def load_model(source, images=None, device="cpu", *, raw=False, **settings):
    """A trained network for evaluation, float32.

    source: a complete `Run` or its folder, whose EMA weights after `images` images are taken (None: at the end), or
        with `raw` the last step's own weights; or what `load_pretrained` takes, with its settings.
    Raises InputError if the run is not complete, a file is not what its record says, and as `load_pretrained` does.
    """
    check_device(device)
    if not raw and images is None:
        return load_pretrained(source, **settings).network.to(device)
    if settings:
        raise InputError(f"{', '.join(settings)} cannot be given with images or raw, which are of a run of ours")
    run = _own_run(source)
    if run is None:
        raise InputError(f"{source} is no run of ours, so it has no snapshots; leave out images and raw")
    return _network(run_config(run), run.raw_weights() if raw else run.snapshot(images)).to(device)


def load_pretrained(source, **settings):
    """A network with its schedule, prediction type, resolution and identity: a `Pretrained`.

    source: the folder of a complete run of ours, such as one that `published_weights` wrote; a diffusers pipeline by
        folder or hub id; or an ADM checkpoint's file, with `settings` of `ADM_SETTINGS`, also as "source; name=value".
    Half precision becomes float32. Raises InputError, in one line, for a source that is none of these, cannot be had,
    or whose content is damaged, unsafe, of images without 3 channels, or contradicts itself or the settings.
    """
    if isinstance(source, (str, Path)):
        source, given = split_settings("model", str(source))
        settings = {**given, **settings}
    run = _own_run(source)
    path = user_path(source) if run is None else run.folder
    is_file, is_folder = os.path.isfile(path), os.path.isdir(path)
    if run is None and not (is_file or is_folder or _HUB_ID.fullmatch(str(source))):
        what = "no existing folder or file and no hub id, owner/name (a run of ours: train it first)"
        raise InputError(f"model {shown(str(source))} is {what}")
    for name in settings:
        if not is_file:
            raise InputError(f"only a checkpoint of ADM takes a setting; got {name!r}")
        check_choice("setting of a model", name, ADM_SETTINGS)
    if run is not None:
        return _of_run(run)
    if is_file:
        network, schedule, settings = read_adm(path, settings)
        return _made(path.stem, network, schedule, settings["prediction_type"], True, path, settings)
    return _pipeline(path, path.absolute().name) if is_folder else _pipeline(_download(str(source)), str(source))


def _of_run(run):
    path, config = run.snapshot(), run_config(run)
    made, schedule = config.to_dict(), build_schedule(config)
    facts = {key: made[key] for key in _DECIDES}
    network, kind = _network(config, path), config.prediction_type
    return Pretrained(run.name, network, schedule, kind, True, sha256_file(path), facts, made)


def _network(config, path):
    network = build_network(config, initialise=False)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its config.json: {error}") from None
    return network.eval().requires_grad_(False)


def _own_run(source):
    """The `Run` that `source` is, complete or not, or None."""
    run = source if isinstance(source, Run) else Run(user_path(source))
    begun = any(os.path.isfile(run.folder / name) for name in ("record.json", "log.jsonl"))
    return run if begun or isinstance(source, Run) else None


def _download(hub_id):
    """The folder of a pipeline in the hub's cache, downloaded if it is not there."""
    files = ("config.json", "scheduler_config.json", *_WEIGHTS)
    wanted = [f"{part}{file}" for part in ("", "unet/", "scheduler/") for file in files]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:  # the HTTP library's, the client's, the disk's
        hint = f"({type(error).__name__}); give a folder with its files, or copy the hub's cache, HF_HOME"
        raise InputError(f"model {hub_id!r} is no existing path, and the hub does not give it {hint}") from None


def _pipeline(folder, name):
    def find(part, *names):
        places = (folder / part, folder)  # the first pipelines of the hub have all files at the top
        found = [place / file for place in places for file in names if (place / file).is_file()]
        if not found:
            raise InputError(f"{folder} holds no {' or '.join(names)}; a diffusers pipeline needs it")
        return found[0]

    config, weights = find("unet", "config.json"), find("unet", *_WEIGHTS)
    check_choice(f"_class_name of {config}", read_json(config).get("_class_name"), ["UNet2DModel"])
    scheduler = find("scheduler", "scheduler_config.json")
    said = read_json(scheduler)
    settings = {key: value for key, value in said.items() if not key.startswith("_")}
    return _made(name, _unet(weights), *_process(said, scheduler), weights, settings)


def _unet(path):
    """The network of a file of weights, by diffusers itself, which knows the names of earlier versions."""
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "local_files_only": True}
    options |= {"use_safetensors": path.suffix == ".safetensors", "output_loading_info": True}
    try:
        network, info = UNet2DModel.from_pretrained(path.parent, **options)
        check_channels(network.config)
    except Exception as error:  # a stranger's files make the library raise nearly anything
        raise InputError(f"{path} is refused: {error}") from None
    for what in ("missing_keys", "unexpected_keys"):  # the library would go on with random numbers
        if info[what]:
            raise InputError(f"{path} does not fit its config.json: {what} {', '.join(sorted(map(str, info[what])))}")
    return network


def _process(said, path):
    """(Schedule, prediction type, clip x0_hat?) of a scheduler's configuration."""
    kind = str(said.get("_class_name")).removesuffix("Scheduler")
    check_choice(f"_class_name of {path}", kind, _SCHEDULERS)
    other_clip = said.get("thresholding") or said.get("clip_sample_range", 1.0) != 1.0
    if said.get("use_flow_sigmas") or said.get("variance_type") == "learned" or other_clip:
        what = "flow matching, variance_type 'learned', thresholding or another clip_sample_range than 1"
        raise InputError(f"{path} says {what}; these are not known")
    try:
        scheduler = DDPMScheduler(**{key: said[key] for key in _BETAS if said.get(key) is not None})
        schedule = Schedule.from_diffusers(scheduler)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} makes no schedule: {error}") from None
    clip = bool(said.get("clip_sample", kind in ("DDPM", "DDIM")))
    # Before diffusers 0.10, predict_epsilon said whether the network predicts epsilon or x0.
    kind = said.get("prediction_type", "sample" if said.get("predict_epsilon") is False else "epsilon")
    return schedule, check_choice(f"prediction_type of {path}", kind, PREDICTION_TYPES), clip


def _made(name, network, schedule, prediction_type, clip, path, settings):
    """The parts as a `Pretrained`; its settings are all that decides the answers beside the weights in `path`."""
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    settings = json.loads(json.dumps({"network": config, **settings}, default=str))
    network = network.eval().requires_grad_(False)
    return Pretrained(name, network, schedule, prediction_type, clip, sha256_file(path), settings)
