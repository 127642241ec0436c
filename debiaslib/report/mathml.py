"""Markdown as HTML in which formulas are MathML, which browsers draw with nothing to load."""

import html
import re

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from ..errors import InputError


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
    return converted.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', f' alttext="{html.escape(tex)}"')
