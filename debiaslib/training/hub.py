"""A diffusers pipeline of the hub: its folder in the hub's cache, downloaded if it is not there."""

import itertools
from pathlib import Path

from huggingface_hub import snapshot_download

from ..errors import InputError

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_CONFIGS = ["config.json", "scheduler_config.json", "unet/config.json", "scheduler/scheduler_config.json"]


def download(hub_id, revision=None):
    """The folder of a pipeline, as it lies in the hub's cache if it is whole there, else downloaded.

    Raises InputError, in one line, if the hub has no such model, holds no weights of it, or cannot be reached.
    """
    reason = None
    for cached, weights in itertools.product((True, False), WEIGHTS):
        wanted = [*_CONFIGS, weights, f"unet/{weights}"]
        try:
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted, local_files_only=cached))
        except Exception as error:  # the HTTP library's, the client's, the disk's
            reason = type(error).__name__
        else:
            if any((folder / part / weights).is_file() for part in ("", "unet")):
                return folder
            reason = f"it holds no {weights}"
    raise InputError(
        f"model {hub_id!r} is no existing path, and the hub does not give it ({reason}); give a folder with its files,"
        " or copy the hub's cache, HF_HOME"
    )
