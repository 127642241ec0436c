"""Weights of Inception-v3, which do not come with the package: where they belong, safe reading, fetching.

    python -m debiaslib.metrics.features fetch-inception      # once, on a machine with a network

They are hashed and read by torch's safe loader: nothing in such a file is executed.
"""

import hashlib
import http.client
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..files import FULL
from ..paths import user_path

__all__ = ["INCEPTION", "Weights", "one_line"]

PATIENCE = 60  # seconds without a byte after which a download has failed


@dataclass(frozen=True)
class Weights:
    """A file of weights. `sha256`: how its hash begins; `variable`: the environment variable that says where it is."""

    network: str
    file: str
    url: str
    sha256: str
    size: str
    variable: str
    command: str

    def path(self):
        """Where the file belongs: $variable (the file or its folder), else torch hub's checkpoints."""
        given = os.environ.get(self.variable, "")
        if not given:
            return Path(torch.hub.get_dir()).absolute() / "checkpoints" / self.file
        path = user_path(given).absolute()
        return path / self.file if path.is_dir() else path

    def read(self):
        """(state dict on the CPU, sha256 in hex). Raises InputError, saying what to put where, if it is not there."""
        path = self.path()
        if not path.is_file():
            raise InputError(
                f"{path} is missing: `python -m debiaslib.metrics.features {self.command}` gets it ({self.size}), or"
                f" set {self.variable} (sha256 {self.sha256[:8]}...)"
            )
        with open(path, "rb") as file:
            found = self._verified(path, file)
            file.seek(0)
            try:
                return torch.load(file, map_location="cpu", weights_only=True), found
            except Exception as error:  # another file makes torch's reader raise nearly anything
                raise self.foreign(error) from error

    def foreign(self, error):
        """The InputError for a file that holds something else."""
        return InputError(f"{self.path()} does not hold {self.network}'s weights: {one_line(error)}")

    def fetch(self, progress=True):
        """Download to `path()` unless it is there; return the path.

        It appears there whole and verified or not at all. Raises InputError without a network, and OSError on a full
        disk.
        """
        path = self.path()
        if path.is_file():
            with open(path, "rb") as file:
                self._verified(path, file)
            return path
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # torch.hub would wait for ever
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256, progress=progress)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise InputError(
                f"no download ({one_line(error)}); run the same command on a machine with a network and copy {path}"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
        return path

    def _verified(self, path, file):
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(self.sha256):
            expected = f"sha256 {found[:8]}..., expected {self.sha256[:8]}..."
            raise InputError(f"{path} is damaged: {expected}; delete it and fetch it again")
        return found


def one_line(error):
    """`RuntimeError: what it says`, cut to a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


INCEPTION = Weights(
    network="Inception-v3",
    file="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",  # torch.hub's convention: the last part of the file's name
    size="about 95.5 MB",
    variable="DEBIASLIB_INCEPTION",
    command="fetch-inception",
)
