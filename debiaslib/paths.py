"""The folders of the checkout, of the results and of the cache. Imports no torch.

No path depends on the working folder unless the user gave it.
"""

import os
from pathlib import Path

from .errors import InputError, shown


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


def absolute(path, names=()):
    """A path that exists, made absolute, for workers elsewhere; names and other text as they are."""
    there = path and path not in names and os.path.exists(user_path(path))
    return str(user_path(path).absolute()) if there else str(path)


def without_folders(value):
    """A JSON value in which the text of an absolute path has become its last part: what may leave this machine."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)) else value


def user_path(text):
    """A path as the user wrote it, ~ being the home folder. (`Path.expanduser` fails where there is no such user.)"""
    return Path(os.path.expanduser(str(text)))


def results_root(results=""):
    """The folder of all results, absolute: `results`, else $DEBIASLIB_RESULTS, else results/ of the checkout.

    Raises InputError for a file.
    """
    given = results or os.environ.get("DEBIASLIB_RESULTS")
    if not given:
        return checkout() / "results"
    if os.path.isfile(user_path(given)):
        raise InputError(f"results is {shown(str(given))}, which is a file; it must be a folder")
    return user_path(given).absolute()


def check_results_folder(name, results=""):
    """The folder of an experiment's results, there or not. Raises InputError if it cannot be made or written."""
    folder = results_root(results) / name
    nearest = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        other = "name another with --results or DEBIASLIB_RESULTS"
        raise InputError(f"the results folder {shown(str(folder))} cannot be written; {other}")
    return folder


def cache_root():
    """The folder of decoded images and features, which can be deleted: $DEBIASLIB_CACHE, else ~/.cache/debiaslib."""
    return user_path(os.environ.get("DEBIASLIB_CACHE") or "~/.cache/debiaslib").absolute()
