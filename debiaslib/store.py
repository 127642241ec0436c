"""One store for what is made once and used again: tables, samples, features, labels, checkpoints. Imports no torch.

A file counts if the JSON note beside it has equal inputs and the file's sha256. Otherwise the file is made again, whole
or not at all, by one process at a time. A killed maker leaves nothing that counts.
"""

import json
import sys
import time
from pathlib import Path

from .errors import InputError
from .files import as_json, atomic_path, exclusive, read_json, remove_leftovers, sha256_file, sha256_json


def stored(path, inputs, make, *, note=None, facts=dict):
    """Return `path` as it stands if it was made from equal `inputs`; else make it by `make(temporary path)`.

    inputs: JSON-native; everything that decides the content.
    note: path of the JSON note; by default `note_of(path)`.
    facts: called after `make`; gives further entries of the note, such as provenance.

    A damaged file, or one with a damaged note, is made again, with a line on stderr. One process makes, the others wait
    for it and take its file. Raises what `make` raises, and OSError that names `path` where the disk is full.
    """
    path, note = Path(path), note or note_of(path)
    if problem_of(path, inputs, note) is None:
        return path
    with exclusive(path.with_name(f".{path.name}.lock"), str(path)):
        problem = problem_of(path, inputs, note)  # another process may have made it meanwhile
        if problem is None:
            return path
        if problem:
            print(f"{path.name} is damaged: {problem}; making it again", file=sys.stderr, flush=True)
        remove_leftovers(path)
        remove_leftovers(note)
        said, started = {"key": sha256_json(inputs), "inputs": inputs}, time.monotonic()
        save_with_note(path, make, lambda: {**said, "seconds": round(time.monotonic() - started, 2), **facts()}, note)
    return path


def save_with_note(path, make, facts=dict, note=None):
    """Write `path` by `make(temporary path)` and, after it, its note: what `facts()` gives, and the sha256 of the file.

    Both are on the disk before either has its name. Where the disk is full, the file and note of before stay a pair.
    """
    with atomic_path(note or note_of(path)) as said, atomic_path(path) as temporary:
        make(temporary)
        said.write_text(as_json({**facts(), "sha256": sha256_file(temporary)}), encoding="utf-8")


def check_file(path):
    """The sha256 of a file. Raises InputError if its note, where there is one, has another or is damaged itself."""
    found, said = sha256_file(path), read_json(note_of(path))
    if isinstance(said, dict) and said.get("sha256", found) != found:
        raise InputError(f"{path} is damaged: its sha256 is not the recorded one; remove it to have it made again")
    return found


def note_of(path):
    """The path of a file's note: mse.csv.json for mse.csv."""
    return Path(path).with_name(Path(path).name + ".json")


def problem_of(path, inputs, note):
    """None if the file counts; "" if it is missing or made from other inputs; else what is damaged."""
    try:
        said = read_json(note)
    except InputError:
        return "its note is not what was written"
    if not path.exists() or not isinstance(said, dict) or said.get("inputs") != json.loads(json.dumps(inputs)):
        return ""
    return None if said.get("sha256") == sha256_file(path) else "its sha256 is not the recorded one"
