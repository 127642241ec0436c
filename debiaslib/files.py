"""Files that are there whole or not at all: atomic writes, hashes, locks between processes. Imports no torch."""

import glob
import hashlib
import json
import os
import re
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError

_UNKNOWN = "another process"


@contextmanager
def atomic_path(path):
    """Yields a temporary path in the folder of `path`; on leaving it is synced and renamed, on an error removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_temporary_prefix(path), suffix=path.suffix)
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


def _temporary_prefix(path):
    """How the names of its temporary files begin, and no other file's; a very long name is cut, and its hash added."""
    stem = os.fsencode(path.stem)
    return f".{path.stem}-" if len(stem) <= 100 else f".{path.stem[:20]}-{hashlib.sha256(stem).hexdigest()[:16]}-"


def remove_leftovers(path):
    """Remove temporary files that killed writers of `path` left; for who holds the lock that each of them held."""
    pattern = f"{glob.escape(_temporary_prefix(path))}{'?' * 8}{glob.escape(path.suffix)}"  # 8 letters of tempfile's
    for leftover in path.parent.glob(pattern):
        leftover.unlink(missing_ok=True)


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
    """Write JSON, indented, keys in their order, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path):
    """The JSON in `path`, or None if there is no such file. Raises InputError if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); move it away to have it made again") from None


def sha256_file(path):
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value):
    """sha256 of a JSON-native value, in hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _owner(path):
    """Who holds a lock, by its file; who was killed may have left a name there that the next is about to replace."""
    patience = time.monotonic() + 0.2
    while True:
        try:
            said = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):  # it has just left, or not yet said who it is
            said = ""
        if said and not _has_ended(said):
            return said
        if time.monotonic() >= patience:
            return _UNKNOWN
        time.sleep(0.02)


def _has_ended(said):
    """Whether a name is that of a process of this machine that is no more."""
    named = re.fullmatch(r"process (\d+) on (.+)", said)
    if named is None or named[2] != socket.gethostname():
        return False
    try:
        os.kill(int(named[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return False


@contextmanager
def exclusive(path, what, wait=None):
    """Hold the lock file `path`; the system frees it when the process ends, however it ends.

    Waits for `wait` seconds (None: for ever) and says whom it waits for, again when that is another. Raises InputError,
    naming the owner, after that.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path), path.with_name(path.name + ".owner")
    started, told = time.monotonic(), None
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            holder = _owner(owner)
            if wait is not None and time.monotonic() - started >= wait:
                raise InputError(f"{what} is in use by {holder}; try again when it has ended") from None
            if holder != told and not (told and holder == _UNKNOWN):
                print(f"waiting for {holder}, which has {what}", file=sys.stderr, flush=True)
                told = holder
    try:
        owner.unlink(missing_ok=True)  # of one that was killed; it may be another user's
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
