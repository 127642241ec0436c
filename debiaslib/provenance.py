"""Where and with what a record was made: commit, package versions, machine. Imports no torch."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("debiaslib", "torch", "torchvision", "diffusers", "datasets", "torch-fidelity", "numpy", "pandas",
             "papermill", "matplotlib", "snakemake")  # fmt: skip


def provenance(device="cpu", threads=1):
    """What every record says of where it was made: commit, clean tree or not, versions, machine, device, threads."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    versions = {"python": platform.python_version(), "packages": package_versions()}
    return {**git_state(), **versions, "machine": machine, "device": device, "threads": threads}


@functools.cache
def git_state():
    """{"commit": hash or None, "clean": True, False or None} of the checkout that the package lies in."""
    here = Path(__file__).resolve().parent

    def git(*arguments):
        # A checkout of another user, as in a container, is one that we run code of already: git may read it.
        command = ["git", "-c", f"safe.directory={here.parent}", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            raise FileNotFoundError
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "clean": None}  # no git, or installed outside a checkout


@functools.cache
def package_versions():
    """Installed versions of the packages that decide a number; None for one that is not installed."""
    versions = dict.fromkeys(_PACKAGES)
    for name in versions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
