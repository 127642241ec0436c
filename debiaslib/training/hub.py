"""A diffusers pipeline of the hub: its folder in the hub's cache, downloaded if the hub answers in time."""

import threading
from pathlib import Path

from ..errors import InputError

__all__ = ["WEIGHTS", "download"]

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_CONFIGS = ["config.json", "scheduler_config.json", "unet/config.json", "scheduler/scheduler_config.json"]
_ANSWER_SECONDS = 10  # as for data sets


def download(hub_id, revision=None):
    """The folder of a pipeline, as it lies in the hub's cache if it is whole there, else downloaded.

    Raises InputError, in one line, if the hub has no such model, holds no weights of it, or does not answer in 10 s.
    """
    cached = [_snapshot(hub_id, revision, weights, local_files_only=True) for weights in WEIGHTS]
    found = next((folder for folder in cached if folder is not None), None)
    if found is not None:
        return found
    _ask(hub_id, revision)
    for weights in WEIGHTS:
        folder = _snapshot(hub_id, revision, weights)
        if folder is not None:
            return folder
    raise InputError(f"the hub's {hub_id!r} holds no {' or '.join(WEIGHTS)}: it is no diffusers pipeline of a U-Net")


def _snapshot(hub_id, revision, weights, local_files_only=False):
    """The folder with such a file of weights, or None."""
    from huggingface_hub import snapshot_download

    patterns = [*_CONFIGS, weights, f"unet/{weights}"]
    try:
        folder = snapshot_download(
            hub_id, revision=revision, allow_patterns=patterns, local_files_only=local_files_only
        )
    except Exception as error:  # the HTTP library's, the client's, the disk's
        if local_files_only:
            return None
        raise _unreachable(hub_id, type(error).__name__) from None
    return Path(folder) if any((Path(folder) / part / weights).is_file() for part in ("", "unet")) else None


def _ask(hub_id, revision):
    """Return when the hub has answered that it has the model; raises InputError otherwise."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    answer = {}

    def ask():
        try:
            answer["info"] = HfApi().model_info(hub_id, revision=revision, timeout=_ANSWER_SECONDS / 2)
        except Exception as error:  # of the HTTP library's many, and handed to the thread that waits
            answer["error"] = error

    # In a thread, as no time-out of the library covers the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    error = answer.get("error")
    if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
        raise InputError(
            f"model {hub_id!r} is no existing path and not on the hub (revision {revision or 'main'}), or it is"
            " private and needs `hf auth login`"
        )
    if "info" not in answer:
        raise _unreachable(hub_id, type(error).__name__ if error else f"no answer in {_ANSWER_SECONDS} s")


def _unreachable(hub_id, reason):
    return InputError(
        f"model {hub_id!r} is no existing path, and the hub cannot be reached ({reason}); give a folder"
        " with its files, or copy the hub's cache, HF_HOME"
    )
