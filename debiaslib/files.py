"""Files that are there whole or not at all: atomic writes, hashes, locks between processes. Imports no torch."""

import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError

SEAL = "seal"  # see `write_json`


@contextmanager
def atomic_path(path):
    """Yields a temporary path in the folder of `path`; on leaving it is synced and renamed, on an error removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path, text):
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write JSON, indented, keys in their order, atomically. NaN and infinity are refused (ValueError).

    A dict gets a last key, `SEAL`, with the sha256 of the others: a bit that flips may leave the JSON valid, as another
    number or name.
    """
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if key != SEAL}
        value[SEAL] = sha256_json(json.loads(json.dumps(value)))  # keys and tuples as they will be read
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path):
    """The JSON in `path`, without its seal, or None if there is no such file. Raises InputError if it is damaged.

    Files of other programs and of earlier versions have no seal, and are taken as they are.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        what = f"line {error.lineno} is no JSON" if isinstance(error, json.JSONDecodeError) else "it is no JSON"
        raise InputError(f"{path} is damaged: {what}; move it away to have it made again") from None
    if not isinstance(value, dict) or not value:
        return value
    name = SEAL if SEAL in value else next(reversed(value))  # the flipped bit may be one of the seal's own name
    rest = {key: entry for key, entry in value.items() if key != name}
    if (name == SEAL) != (value[name] == sha256_json(rest)):
        raise InputError(f"{path} is damaged: its seal does not fit; move it away to have it made again")
    return rest if name == SEAL else value


def sha256_file(path):
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value):
    """sha256 of a JSON-native value, in hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _owner(path):
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except FileNotFoundError:  # it has just left, or not yet said who it is
        return "another process"


@contextmanager
def exclusive(path, what, wait=None):
    """Hold the lock file `path`; the system frees it when the process ends, however it ends.

    Waits for `wait` seconds (None: for ever) and says once whom it waits for. Raises InputError, naming the owner,
    after that.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path), path.with_name(path.name + ".owner")
    started, told = time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            holder = _owner(owner)
            if wait is not None and time.monotonic() - started >= wait:
                raise InputError(f"{what} is in use by {holder}; try again when it has ended") from None
            if not told:
                print(f"waiting for {holder}, which has {what}", file=sys.stderr, flush=True)
                told = True
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
