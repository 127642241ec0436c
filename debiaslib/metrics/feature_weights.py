"""Weights of Inception-v3, which do not come with the package; nothing in their file is executed."""

import http.client
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..files import sha256_file
from ..paths import user_path


@dataclass(frozen=True)
class Weights:
    """A file of weights. `sha256`: how its hash begins; `variable`: the environment variable that says where it is."""

    url: str
    sha256: str
    size: str
    variable: str

    def path(self):
        """Where the file belongs: $variable (the file or its folder), else torch hub's checkpoints."""
        given, name = os.environ.get(self.variable, ""), self.url.rsplit("/", 1)[1]
        if not given:
            return Path(torch.hub.get_dir()).absolute() / "checkpoints" / name
        path = user_path(given).absolute()
        return path / name if path.is_dir() else path

    def read(self):
        """(state dict on the CPU, sha256 in hex). Raises InputError if the file is missing, damaged or another one."""
        if not self.path().is_file():
            raise InputError(
                f"{self.path()} is missing (sha256 {self.sha256}..., {self.size}): "
                f"`python -m debiaslib.metrics.features fetch-inception`, or set {self.variable}"
            )
        found = sha256_file(self.path())
        if not found.startswith(self.sha256):
            expected = f"sha256 {found[:8]}..., expected {self.sha256[:8]}..."
            raise InputError(f"{self.path()} is damaged: {expected}; delete it and fetch it again")
        try:
            return torch.load(self.path(), map_location="cpu", weights_only=True), found
        except Exception as error:  # another file makes torch's reader raise nearly anything
            raise self.foreign(error) from error

    def foreign(self, error):
        """The InputError for a file that holds something else."""
        return InputError(f"{self.path()} does not hold Inception-v3's weights: {error}")

    def fetch(self):
        """Download to `path()` unless it is there, whole and verified or not at all; return the path."""
        path = self.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not path.is_file():
                torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise InputError(
                f"no download ({error}); run the same command on a machine with a network and copy {path}"
            ) from error
        return path


INCEPTION = Weights(
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",  # torch.hub's convention: the last part of the file's name
    size="about 95.5 MB",
    variable="DEBIASLIB_INCEPTION",
)
