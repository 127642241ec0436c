"""An executed notebook as one HTML page that holds all it needs: no script, nothing to load, readable offline.

    python -m debiaslib.report.notebook_html results/quick/notebooks/03_mse_step_curves.ipynb page.html

A formula that cannot be shown and whatever would have to be loaded are errors, in one line.
"""

import base64
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from ..cli import Parser, run_command
from ..errors import InputError
from ..files import read_json, write_text
from .mathml import hide_formulas, show_formulas, with_formulas

PAGE_LIMIT = 1_500_000  # bytes
_SHOWN_PACKAGES = ("debiaslib", "torch", "diffusers", "torch-fidelity", "numpy")
_NEVER = ("application/javascript", "application/vnd.jupyter.widget-view+json")
_DRAWN = re.compile(r"""\bdraw\(\s*["'](\w+)["']""")
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
# The policy makes the browser refuse what the page must not have in the first place.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>{body}</main>
</body>
</html>
"""


def render_notebook(path):
    """The HTML page, a str, of an executed notebook.

    Formulas become MathML; links to other notebooks lead to their pages; scripts and widgets are left out. Beside the
    notebook, <name>.json (its record) and ../figures/<figure>.json (captions) are used where there. Raises InputError,
    naming the notebook and the cell, for a formula that cannot be converted, anything to load, and over 1.5 MB.
    """
    path = Path(path)
    notebook, formulas = _read(path), []
    for number, cell in enumerate(notebook.cells):
        try:
            if cell.cell_type == "markdown":
                cell.source = hide_formulas(cell.source, formulas)
        except InputError as error:
            raise InputError(f"{path.name}, cell {number}: {error}") from None
        if cell.cell_type == "code":
            _tidy_outputs(cell, path.parent.parent / "figures")
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    body = show_formulas(_tidy_headings(_link_pages(body)), formulas)
    title, body = _with_record(body, path)
    return make_page(title, body, path.name)


def make_page(title, body, name, limit=PAGE_LIMIT):
    """A whole page around `body` (HTML), checked: it loads nothing, and it has at most `limit` bytes.

    Where it has more, its larger images become JPEG; if that is not enough, InputError says how large `name` is.
    """
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    page = _PAGE.format(title=html.escape(title), css=css, body=body)
    if len(page.encode()) > limit:
        page = _PNG.sub(_as_jpeg, page)
    size = len(page.encode())
    if size > limit:
        allowed = f"it may have {limit / 1e6:g} MB: show fewer or smaller images"
        raise InputError(f"the page of {name} has {size / 1e6:.2f} MB; {allowed}")
    found = loaded_addresses(page)
    if found:
        raise InputError(f"the page of {name} is not self-contained: {found[0]}")
    return page


def loaded_addresses(page):
    """What an HTML page would load or run, a line each; empty for a self-contained one. Links to follow may be."""
    parser = _Addresses()
    parser.feed(page)
    parser.close()
    return parser.found


class _Addresses(HTMLParser):
    # The second line sets attributes while the page is shown; what is in the third is text to a browser and tags to us.
    _FORBIDDEN = ("script", "link", "iframe", "frame", "frameset", "object", "embed", "base", "form", "portal",
                  "animate", "animatemotion", "animatetransform", "set",
                  "noscript", "noframes", "noembed", "plaintext", "template", "textarea", "xmp")  # fmt: skip
    _LOADING = ("src", "srcset", "srcdoc", "poster", "background", "data", "action", "formaction", "ping", "manifest")
    _IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml)[;,]", re.IGNORECASE)

    def __init__(self):
        super().__init__()
        self.found, self._in_style = [], False

    def handle_starttag(self, tag, attributes):
        self._in_style = tag == "style"
        if tag in self._FORBIDDEN:
            self.found.append(f"a <{tag}> element")
        for name, value in attributes:
            value = value or ""
            leads = name in ("href", "xlink:href")
            if name in self._LOADING or (leads and tag != "a"):
                if tag not in ("img", "image") or not self._IMAGE.match(value):
                    self.found.append(f'<{tag} {name}="{value[:80]}">')
            elif leads and not self._may_lead(value):
                self.found.append(f'a link to "{value[:80]}"')
            if name.startswith("on") or (name == "http-equiv" and value.lower() == "refresh"):
                self.found.append(f'<{tag} {name}="{value[:80]}">')
            if name == "style":
                self._check_style(value)

    def _may_lead(self, address):
        """Whether a link stays in the page, leads to a page beside it or to the web, as a browser reads it."""
        address = re.sub(r"[\x00-\x20]+", "", address)
        scheme = re.match(r"([a-z][a-z0-9+.-]*):", address, re.IGNORECASE)
        return scheme[1].lower() in ("http", "https", "mailto") if scheme else address[:1] not in ("/", "\\")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self._in_style = False

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        if self._in_style:
            self._check_style(data)

    def _check_style(self, text):
        for word in ("@import", "url("):
            if word in text.lower():
                self.found.append(f"{word} in a style")


def _read(path):
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise InputError(f"the notebook {path} does not exist; execute it first") from None
    except Exception as error:  # nbformat raises its own classes, json's and ValueError
        raise InputError(f"the notebook {path} cannot be read: {' '.join(str(error).split())[:200]}") from None


def _tidy_outputs(cell, figures):
    """Leave out scripts and widgets, keep progress bars' last state, give figures alternative text and caption."""
    drawn = [read_json(figures / f"{name}.json") or {} for name in _DRAWN.findall(cell.source)]
    outputs = []
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
        data = output.get("data", {})
        for kind in _NEVER:
            data.pop(kind, None)
        if "text/html" in data:
            data["text/html"] = _SCRIPT.sub("", data["text/html"])
        outputs.append(output)
        if "image/png" in data:
            record = drawn.pop(0) if drawn else {}
            output.metadata.setdefault("image/png", {}).setdefault("alt", record.get("title", "figure"))
            if "caption" in record:
                caption = f'<p class="caption">{with_formulas(record["caption"])}</p>'
                outputs.append(nbformat.v4.new_output("display_data", data={"text/html": caption}))
    cell.outputs = outputs


def _tidy_headings(body):
    body = re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", body)
    return re.sub(r'(<h\d[^>]* id="[^"]*?)-?xFORMULAx[^"]*"', r'\1"', body)


def _link_pages(body):
    """Links to notebooks lead to their pages; other relative links lead out of the results and become plain text."""

    def replace(match):
        address = html.unescape(match["address"])
        if re.match(r"(?i)(https?:|mailto:|#)", address):
            return match[0]
        name, _, fragment = address.partition("#")
        if re.fullmatch(r"(\./)?[\w.-]+\.ipynb", name):
            page = name.removeprefix("./").removesuffix(".ipynb") + ".html" + (f"#{fragment}" if fragment else "")
            return f'<a href="{html.escape(page)}">{match["text"]}</a>'
        return match["text"]

    return re.sub(r'<a href="(?P<address>[^"]*)"[^>]*>(?P<text>.*?)</a>', replace, body, flags=re.DOTALL)


def _with_record(body, path):
    """(title, body with a line about the execution below the title)."""
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    title = html.unescape(re.sub(r"<[^>]*>", "", heading[1])).strip() if heading else path.stem
    record = read_json(path.with_suffix(".json")) or {}
    line = describe_record(record)
    line = f'<p class="record">{html.escape(line)} · <a href="../report.html">report</a></p>' if line else ""
    if not heading:
        return title, f"<h1>{html.escape(title)}</h1>\n{line}\n{body}"
    return title, body[: heading.end()] + "\n" + line + body[heading.end() :]


def describe_record(record):
    """One line of text about an execution: experiment, seconds, commit, versions. Empty for an empty record."""
    if not record:
        return ""
    said = [f"executed in {record['seconds']:g} s"] if "seconds" in record else []
    experiment = record.get("parameters", {}).get("experiment")
    if experiment:
        said.insert(0, f"Experiment {Path(experiment).stem}")
    said.append(describe_commit(record))
    packages = record.get("packages", {})
    said.append(", ".join(f"{name} {packages[name]}" for name in _SHOWN_PACKAGES if packages.get(name)))
    return " · ".join(part for part in said if part)


def describe_commit(record):
    """`commit 0123456789ab, with changes` of any record."""
    if not record.get("commit"):
        return "no commit known"
    return f"commit {record['commit'][:12]}" + ("" if record.get("clean") else ", with changes")


def _as_jpeg(match):
    from PIL import Image

    encoded = match[0]
    if len(match[1]) < 100_000:
        return encoded
    image = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    file = io.BytesIO()
    Image.alpha_composite(white, image).convert("RGB").save(file, "JPEG", quality=85, optimize=True)
    lighter = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return min(encoded, lighter, key=len)


def main():
    """The command line: one notebook in, one page out."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path, help="an executed notebook")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    arguments = parser.parse_args()
    write_text(arguments.page, render_notebook(arguments.notebook))


if __name__ == "__main__":
    run_command(main)
