"""The registry of figures: `@figure` puts a drawing function into it, whose docstring is the figure's caption."""

from collections.abc import Callable
from dataclasses import dataclass

REGISTERED = {}  # name: FigureSpec
_WORDS = {  # what several captions say
    "NO_DATA": "Computed from the schedule: no data, no error bars.",
    "CLIPPED": "x0_hat is clipped to [-1, 1] for display alone.",
    "SAME_NOISE": "An image of every weighting starts from the same noise, at any number of steps. The first images, "
    "not chosen; no error bars.",
    "INITIAL": "Initial: x_t itself in the place of the estimate. Training images.",
    "BANDS": "Lines and bands: mean over {n} images; {over}.",
}


@dataclass(frozen=True)
class FigureSpec:
    """One figure: plot(*arguments), where load(tables) is (facts for the caption, *arguments).

    table: the pattern, below the experiment's folder, of the files without which the figure is not drawn. caption: a
    template for the facts.
    """

    title: str
    notebook: str
    table: str
    load: Callable
    caption: str
    plot: Callable


class NothingToDraw(Exception):
    """The tables hold nothing that a picture would show; the message says why, in one sentence."""


class Sentence(str):
    """What a notebook shows in the place of a figure that there is nothing to draw for."""

    _repr_markdown_ = __repr__ = str.__str__


def figure(title, notebook, table, load):
    """Register the function below, which takes what its loader gives and returns a Figure, under its name."""

    def register(plot):
        caption = " ".join(plot.__doc__.split())
        for word, text in _WORDS.items():
            caption = caption.replace(f"{{{word}}}", text)
        REGISTERED[plot.__name__] = FigureSpec(title, notebook, table, load, caption, plot)
        return plot

    return register
