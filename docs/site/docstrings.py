"""Our docstrings as HTML: they are plain text of paragraphs, arguments, and indented formulas and tables."""

import html
import re

_ARGUMENT = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*|Columns): ")
_CODE = re.compile(r"`([^`]+)`")


def to_html(lines):
    """The HTML, a str, of the lines of a docstring without their common indentation.

    A line such as "steps: how many" begins an argument, and the indented lines below continue it. All other indented
    lines keep their columns. The rest are paragraphs, whose lines flow.
    """
    parts = []  # (tag, lines)
    for line in ["", *lines]:
        tag = parts[-1][0] if parts else ""
        if not line.strip():
            parts.append(("", []))
        elif line.startswith(" ") and (tag != "argument" or re.search(r"\S {3,}\S", line)):
            if tag != "pre":
                parts.append(("pre", []))
            parts[-1][1].append(line)
        elif not line.startswith(" ") and _ARGUMENT.match(line):
            parts.append(("argument", [line]))
        else:
            if tag in ("", "pre") or line.startswith("Raises "):
                parts.append(("p", []))
            parts[-1][1].append(line.strip())
    return "\n".join(_element(tag, said) for tag, said in parts if said)


def _element(tag, lines):
    if tag == "pre":
        return f'<pre class="docstring">{html.escape(_dedented(lines))}</pre>'
    text = _CODE.sub(r"<code>\1</code>", html.escape(" ".join(lines), quote=False)).replace("**", "")
    if tag == "argument":
        named = _ARGUMENT.sub(r"<b>\1</b>: ", text, count=1)
        return f'<p class="argument">{named}</p>'
    return f"<p>{text}</p>"


def _dedented(lines):
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(line[indent:] for line in lines)
