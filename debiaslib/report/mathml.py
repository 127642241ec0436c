"""Formulas in Markdown as MathML, which browsers draw with nothing to load. What cannot be converted is an error."""

import html
import re
import xml.etree.ElementTree as ElementTree

from latex2mathml.converter import convert

from ..errors import InputError

_TOKENS = re.compile(
    r"""(?P<code>^[ ]{0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ ]{0,3}(?P=fence)[`~]*[ ]*$|\Z)   # fenced code
               |(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))                                 # code span
       |\\\$
       |\$\$(?P<display>.+?)\$\$
       |\$(?!\s)(?P<inline>(?:\\.|[^$\\`])+?)(?<!\s)\$(?!\d)
       |\$""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_PLACEHOLDER = re.compile(r"xFORMULAx(\d{5})x")
_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2, "msubsup": 3, "munderover": 3}


def hide_formulas(text, found):
    """Markdown with each formula replaced by a placeholder that survives its conversion; their HTML goes to `found`.

    `$...$` and `$$...$$` count outside code; a dollar sign that opens none may stand as it is or as `\\$`. Raises
    InputError with the formula and what is wrong with it.
    """

    def replace(match):
        if match["code"]:
            return match[0]
        formula = match["inline"] or match["display"]
        found.append(to_mathml(formula.strip(), match["display"] is not None) if formula else "$")
        return f"xFORMULAx{len(found) - 1:05}x"

    return _TOKENS.sub(replace, text)


def show_formulas(page, found):
    """The HTML with the formulas in the places that `hide_formulas` left. Raises InputError if one has got lost."""
    seen = {int(number) for number in _PLACEHOLDER.findall(page)}
    lost = set(range(len(found))) - seen
    if lost:
        formula = re.sub("<[^>]*>", "", found[min(lost)])
        raise InputError(f"the formula {formula!r} has got lost in the conversion to HTML")
    return _PLACEHOLDER.sub(lambda match: found[int(match[1])], page)


def with_formulas(text):
    """Plain text as HTML, with `$...$` in it as MathML."""
    found = []
    hidden = hide_formulas(text, found)
    return show_formulas(html.escape(hidden), found)


def to_mathml(tex, display=False):
    """One formula as a `<math>` element that keeps the TeX as its alternative text.

    Raises InputError for an unknown command, a missing argument or brace, and what else latex2mathml would
    pass on as it is.
    """
    try:
        converted = convert(_plain_tex(tex), display="block" if display else "inline")
        _check(converted)
    except Exception as error:  # latex2mathml raises its own classes and, for some inputs, IndexError or StopIteration
        why = str(error) or type(error).__name__
        raise InputError(f"the formula {tex!r} cannot be converted to MathML: {why}") from None
    converted = converted.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim is a relation
    converted = converted.replace('mathvariant="bold-italic"', 'style="font-weight:bold"')  # which MathML Core left out
    return converted.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', f' alttext="{html.escape(tex)}"')


def _plain_tex(tex):
    """The same formula in the words that latex2mathml knows."""
    tex = re.sub(r"\\(mathcal|mathbb|mathbf|mathsf|mathfrak)\s+(\w)", r"\\\1{\2}", tex)
    tex = re.sub(r"\\arg\b\s*", r"\\operatorname{arg}\\,", tex)
    return re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", tex)


def _check(converted):
    for element in ElementTree.fromstring(converted).iter():
        name, text = element.tag.rpartition("}")[2], element.text or ""
        if "\\" in text:
            raise ValueError(f"{text.strip()!r} is not known")
        if name == "mi" and text in ("{", "}"):
            raise ValueError("the braces do not match")
        if len(element) != _CHILDREN.get(name, len(element)):
            raise ValueError("an argument is missing")
