"""The folders of the checkout, of the results and of the cache. Imports no torch.

No path depends on the working folder unless the user gave it.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from .errors import InputError, shown

# Where other programs keep what is theirs, by the variable that sends it elsewhere; and what they only read there.
_AT_HOME = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share",
            "IPYTHONDIR": ".ipython"}  # fmt: skip
_READ_AT_HOME = {"TORCH_HOME": ".cache/torch", "HF_HOME": ".cache/huggingface"}


def checkout():
    """The folder that holds config/, notebooks/ and results/: above the package, or above the working folder.

    Raises InputError where the package was installed without them and the working folder lies in no checkout.
    """
    for folder in (Path(__file__).resolve().parent.parent, Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "config").is_dir() and (folder / "debiaslib").is_dir():
            return folder
    raise InputError("no checkout of debiaslib found; work inside one, or give the path of an experiment's YAML file")


def notebook_files():
    """{name: path} of the notebooks of this checkout, in reading order: 01_bias_existence, ..."""
    return {path.stem: path for path in sorted((checkout() / "notebooks").glob("[0-9]*.ipynb"))}


def absolute(path):
    """A path that exists, made absolute, since workers and kernels have another working folder; other text as it is."""
    return str(Path(path).absolute()) if path and os.path.exists(path) else str(path)


def without_folders(value):
    """A JSON value in which the text of an absolute path has become its last part: what may leave this machine."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def user_path(text):
    """A path as the user wrote it, ~ being the home folder. (`Path.expanduser` fails where there is no such user.)"""
    return Path(os.path.expanduser(str(text)))


def _folder(name, given):
    """The absolute path of a folder, which need not exist. Raises InputError for what can be none."""
    path = user_path(given).absolute()
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(path)
    except (OSError, ValueError):  # too long a name, or letters that no path may have
        allowed = "the path of a folder, which need not exist yet"
        raise InputError(f"{name} is {shown(given)}; it must be {allowed}") from None
    nearest = next((folder for folder in (path, *path.parents) if os.path.exists(folder)), path)
    if not nearest.is_dir():
        raise InputError(f"{name} is {shown(given)}, and {str(nearest)!r} is a file; it must be a folder")
    return path


def results_root(results=""):
    """The folder of all results, absolute: `results`, else $DEBIASLIB_RESULTS, else results/ of the checkout.

    Raises InputError for a path that is or lies below a file.
    """
    for name, given in (("results", str(results)), ("DEBIASLIB_RESULTS", os.environ.get("DEBIASLIB_RESULTS", ""))):
        if given:
            return _folder(name, given)
    return checkout() / "results"


def check_results_folder(name, results=""):
    """The folder of an experiment's results, there or not. Raises InputError if it cannot be made or written."""
    folder = results_root(results) / name
    if not _can_be_made(str(folder)):
        other = "name another with --results or DEBIASLIB_RESULTS"
        raise InputError(f"the results folder {shown(str(folder))} cannot be written; {other}")
    return folder


def cache_root():
    """The folder of decoded images and features, which can be deleted: $DEBIASLIB_CACHE, else ~/.cache/debiaslib."""
    given = os.environ.get("DEBIASLIB_CACHE", "")
    if given:
        return user_path(given).absolute()
    try:
        return Path.home() / ".cache" / "debiaslib"
    except RuntimeError:  # no HOME and no entry in the password database
        return Path(tempfile.gettempdir()) / "debiaslib-cache"


def home_substitutes():
    """{variable: folder below our cache} for Snakemake, Jupyter and matplotlib, where home cannot be written.

    Empty where it can be; what is set already is left.
    """
    home, elsewhere = os.path.expanduser("~"), cache_root() / "home"
    barred = {name: folder for name, folder in _AT_HOME.items() if not _can_be_made(os.path.join(home, folder))}
    found = {name: str(elsewhere / folder) for name, folder in barred.items()}
    if "XDG_CACHE_HOME" in found:
        there = {name: os.path.join(home, folder) for name, folder in _READ_AT_HOME.items()}
        found |= {name: folder for name, folder in there.items() if os.path.isdir(folder)}
    return {name: folder for name, folder in found.items() if not os.environ.get(name)}


def _can_be_made(folder):
    """Whether an absolute folder can be written or made. `~` stays relative where the system knows no home."""
    if not os.path.isabs(folder):
        return False
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
