"""The registry of figures: `@figure` puts a function into it, with the title and caption of what it draws.

Such a function takes what its loader gives and returns a Figure. Loader, drawing, title and caption stand together in
one module, a module for each notebook.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["REGISTERED", "FigureSpec", "NothingToDraw", "Sentence", "figure"]

REGISTERED = {}  # name: FigureSpec


@dataclass(frozen=True)
class FigureSpec:
    """One figure: plot(*arguments), where load(tables) is (facts for the caption, *arguments).

    table: the pattern, below the experiment's folder, of the files without which the figure is not drawn. caption: a
    template for the facts. extra: drawn where its table was measured, and not missed where it was not.
    """

    title: str
    caption: str
    notebook: str
    table: str
    load: Callable
    plot: Callable
    extra: bool


class NothingToDraw(Exception):
    """The tables hold nothing that a picture would show; the message says why, in one sentence."""


class Sentence(str):
    """What a notebook shows in the place of a figure that there is nothing to draw for."""

    def _repr_markdown_(self):
        return str(self)

    __repr__ = str.__str__


def figure(name, notebook, table, load, *, title, caption, extra=False):
    """Register the function below as the figure `name`. The caption's line breaks are not kept."""

    def register(plot):
        REGISTERED[name] = FigureSpec(title, " ".join(caption.split()), notebook, table, load, plot, extra)
        return plot

    return register
