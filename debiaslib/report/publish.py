"""Copy what an experiment made to where it is committed: tables, figures, records, report and executed notebooks.

    python -m debiaslib.report.publish --results results/quick --to results/reference/quick

The notebooks stay .ipynb, which the web page of a repository shows with its outputs. They lose what is of one machine
or one execution: paths, times, progress bars, warnings. Any other text that names a folder of this machine is refused.
"""

import re
import socket
import sys
import tempfile
from pathlib import Path

import nbformat

from ..cli import Parser, run_command
from ..errors import InputError
from ..figures.draw import FIGURES
from ..files import as_json, atomic_path, read_json
from ..paths import cache_root, checkout, without_folders
from ..study.experiment import known_experiments, load_experiment
from ..training.published_weights import publish_weights
from .notebook_html import add_captions, read_notebook

_COPIED = {  # published folder: patterns below the experiment's folder
    "notebooks": ("notebooks/*.ipynb",),
    "tables": ("tables/*.csv", "tables/*.csv.json", "tables/results*.md"),
    "figures": ("figures/*.png", "figures/*.json"),
    "records": ("runs/*/record.json", "notebooks/*.json"),  # as records/<run>.json and records/<notebook>.json
    "": ("report.html",),
}
_OURS = ("notebooks/*", "tables/*", "figures/*", "records/*", "weights/*", "weights/*/*")
_KINDS = (".ipynb", ".html", ".csv", ".json", ".png", ".md", ".safetensors", ".tex")  # .tex: of an earlier version
# Files of a lock or a killed writer, failed notebooks, and what `compare` found, of no use to others.
_LEFT_OUT = re.compile(r"^\.|\.failed\.|^compare\.csv$")
_CHAPTER = re.compile(r"\]\((\d\d_\w+\.ipynb)\)")  # a link to a chapter
# Where the published chapters that are not of this experiment were executed: chapters 1 to 6, and 7.
_ELSEWHERE = ("](../../quick-seeds/notebooks/{})", "](../../controls/notebooks/{})")
_PATH_IN_QUOTES = re.compile(r'"(?:/(?:[^"\\\n/]|\\.)*)*/((?:[^"\\\n/]|\\.)*?)(?:\.ya?ml)?"')


def publish(folder, target, experiment=""):
    """Copy what is to be committed of results/<experiment> `folder` into `target`; return the paths written, sorted.

    With it go the EMA weights that the experiment's `published_weights` names. experiment: its YAML file, where it is
    not the one of config/ with the folder's name. Old copies that are not made again are removed, and figures that an
    earlier version drew are left out. Raises InputError if `target` holds something else than an earlier publication,
    and for a text that names this machine.
    """
    folder, target = Path(folder), Path(target)
    if not experiment and folder.name not in known_experiments():
        raise InputError(f"{folder.name!r} is no experiment of config/; name its YAML file with --experiment")
    settings = load_experiment(experiment or folder.name)
    _check_folders(folder, target)
    contents = {}  # all are checked before one is written
    for name, patterns in _COPIED.items():
        for path in [path for pattern in patterns for path in sorted(folder.glob(pattern))]:
            if not _LEFT_OUT.search(path.name) and (name != "figures" or path.stem in FIGURES):
                copy = f"{path.parent.name}.json" if path.name == "record.json" else path.name
                contents[target / name / copy] = _published(path, folder)
    copied = [target / name for name in publish_weights(settings, folder, target)]
    for copy, content in contents.items():
        with atomic_path(copy) as temporary:
            temporary.write_bytes(content)
    for old in [path for pattern in _OURS for path in target.glob(pattern)]:
        if old not in {*contents, *copied} and old.suffix in _KINDS:
            old.unlink()
    return sorted([*copied, *contents])


def _check_folders(folder, target):
    if not folder.is_dir():
        raise InputError(f"results is {str(folder)!r}; it must be the folder of an experiment, such as results/quick")
    if not (folder / "report.html").is_file():
        raise InputError(f"{folder} has no report.html; complete the experiment with make reproduce first")
    earlier = (target / "report.html").is_file() and (target / "records").is_dir() and not (target / "runs").exists()
    if target.is_dir() and any(target.iterdir()) and not earlier:
        raise InputError(f"{target} holds something else than published results; name an empty or a new folder")
    if folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise InputError(f"{target} lies within {folder}, the results to publish; name another folder")


def _published(path, folder):
    """The content of one file, bytes, as it is published."""
    if path.suffix == ".png":
        return path.read_bytes()
    if path.suffix == ".json":
        text = as_json(without_folders(read_json(path)))
    elif path.suffix == ".ipynb":
        notebook = clean_notebook(read_notebook(path))
        add_captions(notebook, folder / "figures")
        here = {other.name for other in path.parent.glob("*.ipynb")}
        text = nbformat.writes(notebook) + "\n"
        text = _CHAPTER.sub(lambda m: m[0] if m[1] in here else _ELSEWHERE[m[1][:2] == "07"].format(m[1]), text)
    else:
        text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        text = re.sub(r'href="(notebooks/[\w.-]+)\.html"', r'href="\1.ipynb"', text)
    _check_private(text, path, folder)
    return text.encode()


def clean_notebook(notebook):
    """The executed notebook, changed in place, without what is of one machine or execution.

    Times, papermill's metadata and stderr (progress bars, warnings) go. A parameter that is an absolute path becomes
    its last part, and an experiment's file the experiment's name.
    """
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = _PATH_IN_QUOTES.sub(r'"\1"', cell.source)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _check_private(text, path, folder):
    """Raise InputError if a text names a folder of this machine, or the machine."""
    folders = (folder.resolve(), checkout(), Path.home(), Path(sys.prefix), cache_root(), Path(tempfile.gettempdir()))
    for name in [*map(str, folders), socket.gethostname()]:
        found = re.search(rf"(?<![\w.~-]){re.escape(name)}(?![\w-])", text) if len(name) > 3 else None
        if found and name != "localhost":
            near = " ".join(text[max(0, found.start() - 40) : found.end() + 20].split())
            raise InputError(f"{path} names {name}, which is of this machine: ...{near}...; remove that")


def main(arguments=None):
    """The command line: publish the results of one experiment."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", required=True, help="the experiment's results, such as results/quick")
    parser.add_argument("--to", required=True, help="where they are committed, such as results/reference/quick")
    parser.add_argument("--experiment", default="", help="its YAML file; default: config/<name of the folder>.yaml")
    options = parser.parse_args(arguments)
    copied = publish(options.results, options.to, options.experiment)
    print(f"{len(copied)} files, {sum(path.stat().st_size for path in copied) / 1e6:.1f} MB, in {options.to}")


if __name__ == "__main__":
    run_command(main)
