"""What may leave the machine: texts without its paths, and a copy of an experiment's results small enough to commit."""

import contextlib
import html
import json
import re
import sys
from pathlib import Path

from ..errors import InputError
from ..files import atomic_path, read_json, write_json, write_text
from ..paths import cache_root, checkout

# published folder: (pattern below the experiment's folder, ...). Records of runs are renamed: records/<run>.json.
_COPIED = {
    "notebooks": ("notebooks/*.html",),
    "tables": ("tables/*.csv", "tables/*.csv.json", "tables/results*.md", "tables/results*.tex"),
    "figures": ("figures/*.png", "figures/*.json"),
    "records": ("runs/*/record.json",),
}
_KERNEL_FILE = re.compile(r"/[^\s\"'<>&;]{0,120}?ipykernel_\d+/")  # bounded, since pages hold megabytes of base64


class Redaction:
    """Replaces this machine's paths in a text: the results folder by `results`, a data set by its name, and so on."""

    def __init__(self, folder, *given):
        """`folder`: results/<experiment>; `given`: what the user named, the data set and the experiment's file."""
        folder = Path(folder)
        names = {str(folder.parent): "results", str(cache_root()): "cache", str(Path.home()): "~", sys.prefix: "python"}
        with contextlib.suppress(InputError):  # installed without the checkout
            names[str(checkout())] = "debiaslib"
        for text in [*given, *_recorded(folder)]:
            if text and Path(text).is_absolute():
                names.setdefault(str(Path(text)), Path(text).name)
        names |= {str(Path(path).resolve()): name for path, name in list(names.items())}
        names = {path: name for path, name in names.items() if len(path) > 1}
        self._names = {form: name for path, name in names.items() for form in _forms(path)}
        forms = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(r"(?<![\w.~-])(?:" + "|".join(map(re.escape, forms)) + r")(?![\w-])")

    def __call__(self, text):
        """The text without paths of this machine."""
        text = self._pattern.sub(lambda match: self._names[match[0]], text)
        return _KERNEL_FILE.sub("", text)


def copy_published(folder, target, redact):
    """Copy what is to be committed of `folder` into `target`; return the copies' paths relative to it, sorted.

    Copies of an earlier time that are not made again are removed. Raises InputError if `target` holds something else
    than an earlier publication.
    """
    folder, target = Path(folder), Path(target)
    check_target(folder, target)
    copied = []
    for name, patterns in _COPIED.items():
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            if path.name.startswith(".") or path.name == "compare.csv":  # what compare found, of no use to others
                continue
            copy = target / name / (f"{path.parent.name}.json" if name == "records" else path.name)
            _copy(path, copy, redact)
            copied.append(copy)
        for old in sorted(set((target / name).glob("*")) - set(copied)):
            if old.suffix in (".html", ".csv", ".json", ".png", ".md", ".tex"):
                old.unlink()
    return sorted(path.relative_to(target).as_posix() for path in copied)


def check_target(folder, target):
    """Raise InputError if `target` holds something else than an earlier publication, or lies within `folder`."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is not a folder; name one to publish to, such as results/reference/{folder.name}")
    if target.is_dir() and any(target.iterdir()) and not (target / "report.html").exists():
        raise InputError(f"{target} holds something else than a published report; name an empty or a new folder")
    if target.resolve() == folder.resolve() or folder.resolve() in target.resolve().parents:
        raise InputError(f"{target} lies within {folder}, the results to publish; name another folder")


def _copy(path, copy, redact):
    if path.suffix == ".png":
        with atomic_path(copy) as temporary:
            temporary.write_bytes(path.read_bytes())
        return
    if path.suffix == ".json":  # a replacement within a string leaves it a string; the seal is the copy's own
        write_json(copy, json.loads(redact(json.dumps(read_json(path), indent=2))))
    else:
        write_text(copy, redact(path.read_text(encoding="utf-8")))


def _recorded(folder):
    """Every text in the parameters of the notebooks and the configurations of the runs: some of them are paths."""
    notes = [read_json(path) or {} for path in folder.glob("notebooks/*.json")]
    values = [value for note in notes for value in note.get("parameters", {}).values()]
    values += [(read_json(path) or {}).get("dataset") for path in folder.glob("runs/*/config.json")]
    return [value for value in values if isinstance(value, str)]


def _forms(path):
    """A path as it stands in plain text, in HTML, and in JSON with and without escapes."""
    in_json = json.dumps(path)[1:-1], json.dumps(path, ensure_ascii=False)[1:-1]
    return {path, html.escape(path), html.escape(path, quote=False), *in_json}
