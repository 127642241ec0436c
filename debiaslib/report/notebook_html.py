"""An executed notebook as one HTML page that holds all it needs: nothing to load, readable offline. By nbconvert."""

import base64
import html
import re
from pathlib import Path

import jinja2
import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

from ..errors import InputError
from ..files import read_json

_SHOWN_DATA = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
_DRAWN = re.compile(r"""\bdraw\(\s*["'](\w+)["']""")
_SIGN = re.compile(r"((?:[(\[]|&#x000(?:28|7B|2C|3D);)</mo>)<mo>(&#x02212;|&#x0002B;)</mo>")  # [-1: no space after it
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


class _Exporter(HTMLExporter):
    """nbconvert's exporter, with formulas as MathML and without prompts, scripts and widgets."""

    def __init__(self):
        progress_bars = {"CoalesceStreamsPreprocessor": {"enabled": True}}  # only their last state is shown
        config = Config({"NbConvertBase": {"display_data_priority": _SHOWN_DATA}, **progress_bars})
        super().__init__(config, template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)

    @jinja2.pass_context
    def markdown2html(self, context, source):
        cell, path = context.get("cell", {}), context["resources"]["metadata"]["path"]
        attachments = cell.get("attachments", {})
        return markdown_to_html(source, escape=False, embed_images=True, path=path, attachments=attachments)


def render_notebook(path):
    """The HTML page, a str, of an executed notebook.

    Its record, <name>.json, and the captions, ../figures/<figure>.json, are shown where they are.
    Raises InputError, naming the notebook where it is none, and the formula that cannot be converted.
    """
    path = Path(path)
    notebook = read_notebook(path)
    add_captions(notebook, path.parent.parent / "figures")
    body, _ = _Exporter().from_notebook_node(notebook, {"metadata": {"path": str(path.parent)}})
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    title = html.unescape(re.sub(r"<[^>]*>", "", heading[1])).strip() if heading else path.stem
    said = read_json(path.with_suffix(".json")) or {}
    experiment = Path(said.get("parameters", {}).get("experiment", "")).stem
    executed = f"Experiment {experiment} · executed in {said['seconds']:g} s · " if "seconds" in said else ""
    record = f'<p class="record">{html.escape(executed + describe_commit(said))}</p>'
    at = heading.end() if heading else 0
    return make_page(title, body[:at] + record + body[at:])


def read_notebook(path):
    """The notebook in a file, in nbformat 4. Raises InputError if there is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, ValueError, OSError) as error:
        raise InputError(f"the notebook {path} cannot be read: {error}") from None


def add_captions(notebook, figures):
    """Give each picture that `draw(name)` made its title as alternative text, and below it its caption, as Markdown.

    figures: the folder with <name>.png and <name>.json of the figures; a picture that is not there gets neither: it was
    drawn again since, perhaps of another run.
    """
    for cell in notebook.cells:
        names = _DRAWN.findall(cell.source)
        outputs = []
        for output in cell.get("outputs", []):
            outputs.append(output)
            if "image/png" in output.get("data", {}):
                record = _record_of(output.data["image/png"], figures / (names.pop(0) if names else ""))
                output.metadata["image/png"] = {"alt": record.get("title", "figure")}
                if "caption" in record:
                    outputs.append(nbformat.v4.new_output("display_data", {"text/markdown": caption_of(record)}))
        if cell.cell_type == "code":
            cell.outputs = outputs


def _record_of(picture, path):
    """The record of a figure, <path>.json, if <path>.png is this picture (base64); else {}."""
    image = path.with_suffix(".png")
    same = image.is_file() and image.read_bytes() == base64.b64decode(picture)
    return (read_json(path.with_suffix(".json")) or {}) if same else {}


def caption_of(record):
    """The title and caption of a figure's record, as Markdown; a title that is a question has no stop after it."""
    return f"*{record['title']}.* {record['caption']}".replace("?.*", "?*", 1)


def make_page(title, body):
    """A whole page around `body`, which is HTML. Its policy forbids scripts and all that is not in the page."""
    return TEMPLATES.get_template("page.html.j2").render(title=title, body=body)


def describe_commit(record):
    """`commit 0123456789ab, with changes` of any record."""
    if not record.get("commit"):
        return "no commit known"
    return f"commit {record['commit'][:12]}" + ("" if record.get("clean") else ", with changes")


class _PageRenderer(IPythonRenderer):
    """nbconvert's renderer of Markdown; formulas become MathML, and links to notebooks lead to their pages."""

    def inline_math(self, body):
        return to_mathml(body)

    def block_math(self, body):
        return to_mathml(body, display=True)

    def block_html(self, html):
        """As it stands: to embed images nbconvert parses a block by itself, and closes its <details> at once."""
        return super().block_html(html) if self._escape or "<img" in html else html + "\n"

    def link(self, text, url, title=None):
        return super().link(text, re.sub(r"^(?:\./)?([\w.-]+)\.ipynb(?=#|$)", r"\1.html", url), title)


def markdown_to_html(text, **options):
    """Markdown, with `$...$` and `$$...$$`, as HTML. options: those of nbconvert's `IPythonRenderer`.

    Raises InputError, naming the formula, for one that cannot be converted.
    """
    return MarkdownWithMath(renderer=_PageRenderer(exclude_anchor_links=True, **options)).render(text)


def to_mathml(tex, display=False):
    """One formula as a `<math>` element that keeps the TeX as its alternative text.

    Raises InputError for what latex2mathml refuses; a command that it does not know stays as it is written.
    """
    tex = tex.strip()
    try:
        converted = convert(tex, display="block" if display else "inline")
    except Exception as error:  # latex2mathml raises its own classes and, for some inputs, IndexError or StopIteration
        why = error or type(error).__name__
        raise InputError(f"the formula {tex!r} cannot be converted to MathML: {why}") from None
    converted = converted.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim is a relation
    converted = _SIGN.sub(r'\1<mo form="prefix">\2</mo>', converted)
    return converted.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', f' alttext="{html.escape(tex)}"')
