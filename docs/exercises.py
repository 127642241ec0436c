"""The solutions of the chapters' exercises: run them, and put below each what it prints.

The last cells of a chapter ask three exercises. A solution is a block of Python in a folded part, and what it prints
follows as a block of text. It runs by itself; its numbers come from formulas and from the published tables of `quick`.

python docs/exercises.py            # runs all, and writes what they print into notebooks/*.ipynb
"""

import contextlib
import io
import re
import sys

import nbformat

from debiaslib.paths import notebook_files

SOLUTION = re.compile(r"```python\n(?P<code>.*?)\n```\n(?:\n```text\n(?P<said>.*?)\n```\n)?", re.DOTALL)


def cell_of(notebook):
    """The one cell of exercises of a chapter, as nbformat reads it."""
    [cell] = [cell for cell in notebook.cells if cell.source.startswith("## Exercises")]
    return cell


def solutions(text):
    """[(code, what it is said to print)] of a cell of exercises."""
    return [(found["code"], found["said"] or "") for found in SOLUTION.finditer(text)]


def run(code):
    """What a solution prints, run by itself."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "solution", "exec"), {"__name__": "solution"})
    return said.getvalue().rstrip()


def main():
    """Write what each solution prints below it."""
    for path in notebook_files().values():
        notebook = nbformat.read(path, as_version=4)
        cell = cell_of(notebook)
        cell.source = SOLUTION.sub(lambda found: _with_answer(found["code"]), cell.source)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return 0


def _with_answer(code):
    return f"```python\n{code}\n```\n\n```text\n{run(code)}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
