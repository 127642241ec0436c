"""Files that are there whole or not at all: atomic writes, hashes, locks between processes. Imports no torch."""

import errno
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

SEAL = "seal"  # see `as_json`
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the file has its largest size
_PROBE = 1 << 16  # bytes: more than what a block that is not quite full still takes
_UNKNOWN = "another process"


@contextmanager
def atomic_path(path):
    """Yields a temporary path in the folder of `path`; on leaving it is synced and renamed, on an error removed.

    Where the disk takes no more, whatever error the writer made of that, it is an OSError with a number of `FULL` that
    names `path`. What was there before is then still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_temporary_prefix(path), suffix=path.suffix)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path, temporary=None):
    """Within it an error of a disk that takes no more is an OSError that names `path`, if it names no other file.

    temporary: the file that is written in its place and thrown away on an error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = _refused(error, temporary)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def _refused(error, temporary):
    """The number of `FULL` that an error came of, or None."""
    if isinstance(error, OSError) and error.errno is not None:
        number = error.errno if error.filename is None or error.filename == str(temporary) else None
    elif said := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors
        number = int(said[1])
    else:  # torch, numpy and PIL say that a write fell short and not why, so the disk is asked again
        number = _asked(temporary) if temporary is not None else None
    return number if number in FULL else None


def _asked(temporary):
    """The number of the error that a little more at the end of a file makes, or None."""
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


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
    """Write JSON, as `as_json` has it, atomically."""
    write_text(path, as_json(value))


def fill_json(temporary, path, value):
    """Write JSON to what `atomic_path(path)` yielded: a note that gets its name together with the file it is about."""
    with naming(path, temporary):
        temporary.write_text(as_json(value), encoding="utf-8")


def as_json(value):
    """The text of JSON, indented, keys in their order. NaN and infinity are refused (ValueError).

    A dict gets a last key, `SEAL`, with the sha256 of the others: a bit that flips may leave the JSON valid, as another
    number or name.
    """
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if key != SEAL}
        value[SEAL] = sha256_json(json.loads(json.dumps(value)))  # keys and tuples as they will be read
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_npy(path, array):
    """Write an array as a .npy file; `path` may be that of `atomic_path`. Pickles are refused.

    np.save leaves the bytes to C's buffers and does not see whether the last of them reached the disk.
    """
    from numpy.lib import format as npy

    header = npy.header_data_from_array_1_0(array)
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} would need a pickle")
    with open(path, "wb") as file:
        npy.write_array_header_1_0(file, header)
        file.write(array.tobytes("F" if header["fortran_order"] else "C"))


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
        with naming(owner):
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
