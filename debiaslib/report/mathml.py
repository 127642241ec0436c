"""Markdown as HTML in which formulas are MathML, which browsers draw with nothing to load."""

import html
import re
import xml.etree.ElementTree as ElementTree

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from ..errors import InputError

__all__ = ["markdown_to_html", "to_mathml"]

_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2, "msubsup": 3, "munderover": 3}


class _PageRenderer(IPythonRenderer):
    """nbconvert's renderer of Markdown; formulas become MathML, and links to notebooks lead to their pages."""

    def inline_math(self, body):
        return to_mathml(body)

    def block_math(self, body):
        return to_mathml(body, display=True)

    def latex_environment(self, name, body):
        return to_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)

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

    Raises InputError for an unknown command and for a missing argument or brace.
    """
    tex = tex.strip()
    try:
        converted = convert(_known_tex(tex), display="block" if display else "inline")
        _check(converted)
    except Exception as error:  # latex2mathml raises its own classes and, for some inputs, IndexError or StopIteration
        why = error or type(error).__name__
        raise InputError(f"the formula {tex!r} cannot be converted to MathML: {why}") from None
    converted = converted.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim is a relation
    converted = converted.replace('mathvariant="bold-italic"', 'style="font-weight:bold"')  # MathML Core has none
    return converted.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', f' alttext="{html.escape(tex)}"')


def _known_tex(tex):
    """The same formula in the commands that latex2mathml knows."""
    tex = re.sub(r"\\(mathcal|mathbb|mathbf|mathsf|mathfrak)\s+(\w)", r"\\\1{\2}", tex)
    tex = re.sub(r"\\arg\b\s*", r"\\operatorname{arg}\\,", tex)
    return re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", tex)


def _check(converted):
    """Raise ValueError for what latex2mathml passes on as it is: unknown commands, braces, missing arguments."""
    for element in ElementTree.fromstring(converted).iter():
        name, text = element.tag.rpartition("}")[2], element.text or ""
        if "\\" in text or (name == "mi" and text in ("{", "}")):
            raise ValueError(f"{text.strip()!r} is not known or has no partner")
        if len(element) != _CHILDREN.get(name, len(element)):
            raise ValueError("an argument is missing")
