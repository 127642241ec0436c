"""Weights of Inception-v3, which do not come with the package; nothing in their file is executed."""

import http.client
import os
from pathlib import Path

import torch

from ..errors import InputError
from ..files import sha256_file
from ..paths import user_path

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d"  # how it begins; torch.hub's convention: the last part of the file's name
SIZE = "about 95.5 MB"
VARIABLE = "DEBIASLIB_INCEPTION"  # environment variable: the file or its folder


def inception_path():
    """Where the file belongs: $DEBIASLIB_INCEPTION (the file or its folder), else torch hub's checkpoints."""
    given, name = os.environ.get(VARIABLE, ""), URL.rsplit("/", 1)[1]
    if not given:
        return Path(torch.hub.get_dir()).absolute() / "checkpoints" / name
    path = user_path(given).absolute()
    return path / name if path.is_dir() else path


def read_inception():
    """(state dict on the CPU, sha256 in hex). Raises InputError if the file is missing, damaged or another one."""
    path = inception_path()
    if not path.is_file():
        how = f"`python -m debiaslib.metrics.features fetch-inception`, or set {VARIABLE}"
        raise InputError(f"{path} is missing (sha256 {SHA256}..., {SIZE}): {how}")
    found = sha256_file(path)
    if not found.startswith(SHA256):
        what = f"sha256 {found[:8]}..., expected {SHA256[:8]}..."
        raise InputError(f"{path} is damaged: {what}; delete it and fetch it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True), found
    except Exception as error:  # another file makes torch's reader raise nearly anything
        raise not_inception(error) from error


def not_inception(error):
    """The InputError for a file that holds something else."""
    return InputError(f"{inception_path()} does not hold Inception-v3's weights: {error}")


def fetch_inception():
    """Download to `inception_path()` unless it is there, and verify it; return the path. InputError if that fails."""
    path = inception_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not path.is_file():
            torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        instead = f"run the same command on a machine with a network and copy {path}"
        raise InputError(f"no download ({error}); {instead}") from error
    return read_inception() and path
