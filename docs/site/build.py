"""Build the site: `python docs/site/build.py`, as `make site` does. Offline, and nothing is executed.

The pages come from the executed notebooks in results/reference/<experiment>/notebooks, or from notebooks/ where none is
published; from the figures, captions and verdicts in results/reference/quick; from docs/*.md; and from the docstrings.
"""

import argparse
import base64
import html
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from debiaslib.report.notebook_html import caption_of  # noqa: E402
from docs import verdicts  # noqa: E402

GUIDES = "findings retest verdicts reviewers loss_weight flow_matching trainers experiments preregistration cost"
GUIDES = (*GUIDES.split(), "benchmarks", "reliability", "authors_flags", "fd_cifar10_at_16")
SUBPACKAGES = {  # the modules whose public names the API pages show
    "diffusion": "schedule flow strategies weighting prediction one_step optimum sampling variance",
    "data": "images minifaces gaussian",
    "training": "config loop load objective arms",
    "metrics": "distances features colour statistics",
    "study": "study experiment gate oracle_swap mse samples controls compare cost",
    "figures": "draw",
    "report": "verdicts retest here report publish",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")
ELSEWHERE = re.compile(r"\]\((?:\.\./)+[\w/-]+/notebooks/")  # a chapter that was executed for another experiment
CARDS = re.compile(r"^\| chapter \|.*\n(?:\|.*\n)+", re.MULTILINE)  # a table that a phone shows as cards
WIDE = re.compile(r"^!\[.*\]\(figures/(?:trainers|flow_matching)\.png\)$", re.MULTILINE)
SHOWN = ("constant", "debiased", "optimum")
PREFERRED = ("quick-seeds", "quick")  # whose executed chapters are shown: six training seeds say more than one


def main(arguments=None):
    """The command line. Returns Sphinx's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="the folder of all results")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where the site goes; replaced")
    parser.add_argument("--export", action="store_true", help="only publish the images of the widget over t")
    given = parser.parse_args(arguments)
    published = given.results / "reference" / "quick"
    if given.export:
        table = given.results / "quick" / "tables" / "one_step.npz"
        if not table.is_file():
            sys.exit(f"error: {table} is not there; make reproduce writes it")
        images = one_step_images(table)
        (published / "one_step.json").write_text(json.dumps(images) + "\n")
        return 0
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as temporary:
        source, pages = Path(temporary) / "source", Path(temporary) / "pages"
        source.mkdir()
        gather(source, given.results, published)
        status = build_main(["-q", "-b", "html", str(source), str(pages)])
        if status == 0:
            shutil.rmtree(pages / ".doctrees", ignore_errors=True)
            shutil.rmtree(given.out, ignore_errors=True)
            shutil.copytree(pages, given.out)
            print(given.out / "index.html")
    return status


def gather(source, results, published):
    """Write into the folder `source` all that Sphinx reads."""
    shutil.copytree(HERE / "static", source / "static")
    shutil.copy(HERE / "conf.py", source)
    for name in ("figures", "examples"):
        shutil.copytree(ROOT / "docs" / name, source / name)
    for path in [*ROOT.glob("docs/*.py"), *ROOT.glob("docs/*.csv"), *ROOT.glob("docs/*.md")]:
        shutil.copy(path, source)
    shutil.copytree(published / "figures", source / "gallery")
    chapters = [_chapter(path, source, results) for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    (source / "index.md").write_text(_start_page(chapters))
    (source / "figure_gallery.md").write_text(_gallery(source / "gallery"))
    (source / "widgets.md").write_text(_widgets(results, published, source / "static"))
    (source / "api.md").write_text(_api(source))
    for page in source.glob("*.md"):
        text = CARDS.sub(r'<div class="cards">\n\n\g<0>\n</div>\n', page.read_text(encoding="utf-8"))
        text = WIDE.sub(r'<div class="wide">\n\n\g<0>\n\n</div>', text)
        page.write_text(_own_links(text, source), encoding="utf-8")


def _own_links(text, source):
    """The text, in which links to files that the site does not have are plain text."""
    return LINK.sub(lambda link: link[0] if (source / link[2]).exists() else link[1], text)


def _chapter(notebook, source, results):
    """Copy a chapter, executed where it is published, with a line that says so; return its name."""
    copies = [path for path in results.glob(f"reference/*/notebooks/{notebook.name}") if path.is_file()]
    copies.sort(key=lambda path: (path.parts[-3] not in PREFERRED, path.parts[-3] != PREFERRED[0], path.parts[-3]))
    content, said = (copies or [notebook])[0].read_text(encoding="utf-8"), "The source: no executed copy is published."
    content, said = json.loads(content), f"Executed for `{copies[0].parts[-3]}`." if copies else said
    first = content["cells"][0]
    lines = "".join(first["source"]).split("\n")
    first["source"] = "\n".join([lines[0], "", f"*{said}*", *lines[1:]])
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = ELSEWHERE.sub("](", "".join(cell["source"]).replace("../docs/", ""))
        for output in cell.get("outputs", []):
            _mark_claims(output.get("data", {}))
    (source / notebook.name).write_text(json.dumps(content), encoding="utf-8")
    return notebook.stem


def _mark_claims(data):
    """Give the table of refutations in a cell's output its class, by which a phone shows it as cards."""
    table = "".join(data.get("text/html", ""))
    if ">what would refute it<" in table:
        data["text/html"] = table.replace('class="dataframe"', 'class="dataframe claims"')


def _toctree(caption, names, depth=1):
    return "\n".join([f"```{{toctree}}\n:caption: {caption}\n:maxdepth: {depth}\n", *names, "```", ""])


def _start_page(chapters):
    parts = [(HERE / "start.md").read_text(encoding="utf-8").replace("FINDING", _finding())]
    how = "[How a claim is judged, and the other experiments](verdicts.md)."
    parts.append(f"## What the paper says, and what was found\n\n{how}\n")
    parts.append(verdicts.tables(*verdicts.REPEATED).replace("## ", "### "))
    guides = [*GUIDES, *sorted({path.stem for path in ROOT.glob("docs/*.md")} - {*GUIDES, "glossary"})]
    parts.append("## Contents\n")
    parts += [_toctree("Chapters", chapters), _toctree("To try and to look at", ["widgets", "figure_gallery"])]
    parts += [_toctree("Pages", guides), _toctree("Reference", ["api", "glossary"])]
    return "\n".join(parts)


def _finding():
    """What was found, as README has it: its sentence, and all from the words that it uses on."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sentence = next(line for line in readme.splitlines() if line.startswith("**The weight "))
    found = sentence + "\n\n" + readme[readme.index("Words used here") : readme.index("\n## Read\n")].strip()
    found = re.sub(r"<!--.*?-->\n", "\n", found)  # a table ends at an empty line
    return re.sub(r"\[([^]]+)\]\(results/[^)]+\)", r"\1", found).replace("](docs/", "](")  # tables are not on the site


def _figure(record, name):
    image = f'<div class="shown">\n\n![{html.escape(record["title"])}](gallery/{name}.png)\n\n</div>'
    return f"{image}\n\n{caption_of(record)}\n"


def _gallery(folder):
    parts = ["# Gallery of figures\n"]
    parts.append("Each figure of `quick`, with its caption, its data and the command that draws it again.\n")
    for path in sorted(folder.glob("*.json"), key=lambda path: (json.loads(path.read_text())["notebook"], path.stem)):
        record, name = json.loads(path.read_text(encoding="utf-8")), path.stem
        parts.append(f"## {record['title']}\n")
        parts.append(_figure(record, name) if path.with_suffix(".png").is_file() else record.get("sentence", "") + "\n")
        data = ", ".join(f"`{one['file']}`" for one in record["data"])
        command = f"python -c \"from debiaslib.figures.draw import draw; draw('{name}', 'results/quick')\""
        notebook = record["notebook"]
        parts.append(f"Data: {data}. Chapter: [{notebook}]({notebook}.ipynb).\n\n```sh\n{command}\n```\n")
    return "\n".join(parts)


def _widgets(results, published, static):
    """The page of the widgets; the images go to static/one_step.js, as a page on disk may load no JSON."""
    made, copied = results / "quick" / "tables" / "one_step.npz", published / "one_step.json"
    images = json.loads(copied.read_text(encoding="utf-8")) if copied.is_file() else None
    images = one_step_images(made) if made.is_file() else images
    (static / "one_step.js").write_text(f"window.ONE_STEP = {json.dumps(images)};\n")
    return (HERE / "widgets.md").read_text(encoding="utf-8")


def one_step_images(path, images=4):
    """What the widget over t shows, of a one_step.npz: a dict of JSON types, pixels as base64 of uint8 RGB.

    rows: {name: {"pixels": by t and image, "rms": by t and image}}; rms is the error of x0_hat before clipping.
    """
    with np.load(path) as file:
        arrays = {key: file[key] for key in ("t", "names", "x0", "x_t", "x0_hat")}
    clean, names = arrays["x0"][:images], [str(name) for name in arrays["names"]]
    rows = {"x_t": {"pixels": _pixels(arrays["x_t"][:, :images])}}
    for name in [name for name in SHOWN if name in names]:
        estimates = arrays["x0_hat"][names.index(name), :, :images]
        rms = np.sqrt(((estimates - clean) ** 2).mean(axis=(2, 3, 4)))
        rows[name] = {"pixels": _pixels(estimates), "rms": [[float(f"{one:.3g}") for one in row] for row in rms]}
    return {"t": arrays["t"].tolist(), "resolution": clean.shape[-1], "x0": _pixels(clean[None])[0], "rows": rows}


def _pixels(images):
    levels = np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 1, 3, 4, 2)
    return [[base64.b64encode(one.tobytes()).decode() for one in row] for row in levels]


def _api(source):
    """The page of the public names, which leads to a page for each subpackage; these are written too."""
    import debiaslib  # this takes torch

    parts = ["# API reference\n", "These names are imported from `debiaslib` itself.\n"]
    for name in debiaslib.__all__:
        kind = "autoexception" if name.endswith("Error") else "autoclass" if name[0].isupper() else "autofunction"
        members = "\n   :members:" if kind == "autoclass" else ""
        parts.append(f"```{{eval-rst}}\n.. {kind}:: debiaslib.{name}{members}\n```\n")
    for package, modules in SUBPACKAGES.items():
        page = [f"# debiaslib.{package}\n", "The names of `debiaslib` itself are in the [API reference](api.md).\n"]
        page += [_autodoc(f"debiaslib.{package}.{module}", debiaslib.__all__) for module in modules.split()]
        (source / f"api_{package}.md").write_text("\n".join(page))
    return "\n".join([*parts, _toctree("Subpackages", [f"api_{package}" for package in SUBPACKAGES])])


def _autodoc(module, elsewhere):
    options = f"   :members:\n   :exclude-members: {', '.join(elsewhere)}"
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
