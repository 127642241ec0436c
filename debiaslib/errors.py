"""The one error that a user's mistake raises: a single line that names the thing, its value and what is allowed."""

import difflib
import math
import numbers
import operator
import re

LONGEST = 188  # characters of a message: with "error: " or "InputError: " before it the line keeps within 200
_SHORTEST = 40  # what is left of a path that is cut: enough to know the file by
_LONG_WORD = re.compile(r"(?<!\w)'.+?'(?!\w)|(?<!\w)\".+?\"(?!\w)|\S+")  # a path may have spaces if it is quoted


class InputError(ValueError):
    """Something that the user gave is wrong. The message is one line; a notebook shows it without a traceback."""

    def __init__(self, message):
        super().__init__(one_line(message))

    def _render_traceback_(self):
        # IPython's hook for exceptions that know how to show themselves.
        return [f"{type(self).__name__}: {self}"]


class WorkFailed(InputError):
    """Work that was asked for has failed; `status` is the exit status of the command.

    FAILED: a job or a notebook's cell failed; KILLED: a process was ended from outside; MEMORY: there was too little.
    """

    FAILED, KILLED, MEMORY = 1, 3, 4

    def __init__(self, message, status=FAILED):
        super().__init__(message)
        self.status = status


def one_line(text, width=LONGEST):
    """The text as one line of at most `width` characters that can be printed anywhere.

    Line ends become spaces, and what cannot be printed is escaped. Where the line is too long, the longest paths and
    other words are cut in their middle, so that the end of a path, which names the file, is kept; only then the line.
    """
    text = " ".join(str(text).split())
    text = text if len(text) <= 20 * width else _cut(text, 20 * width, 10 * width)  # not in quadratic time
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    while len(text) > width:
        longest = max(_LONG_WORD.finditer(text), key=lambda word: len(word[0]))
        room = max(_SHORTEST, len(longest[0]) - (len(text) - width))
        if len(longest[0]) <= room:
            return _cut(text, width, 2 * width // 3)
        text = text[: longest.start()] + _cut(longest[0], room, room // 3) + text[longest.end() :]
    return text


def _cut(text, width, head):
    """The first `head` characters and, after three dots, as many of the last as make `width`."""
    return f"{text[:head]}...{text[head + 3 - width :]}"


def shown(value, width=80):
    """repr(value), cut in the middle, so that a line stays a line whatever was given."""
    text = _repr(value)
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 4 :]}"


def _repr(value):
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def check_choice(name, value, known, meant=None):
    """Return `value` if it is one of `known`; otherwise raise InputError with `meant` or the nearest known one."""
    known = list(known)
    if any(isinstance(value, type(one)) and value == one for one in known):  # an array is equal to nothing
        return value
    text = value[:80] if isinstance(value, str) else shown(value)
    near = [meant] if meant in known else difflib.get_close_matches(text, map(str, known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"{name} {shown(value)} is unknown; {hint}known: {', '.join(map(str, known))}")


def check_number(name, value, *, minimum=None, maximum=None, above=None, below=None, integer=False):
    """Return `value` if it is a finite number within the bounds; otherwise raise InputError.

    `minimum` and `maximum` are allowed themselves, `above` and `below` are not.
    """
    bounds = [(">=", minimum, operator.ge), (">", above, operator.gt), ("<=", maximum, operator.le),
              ("<", below, operator.lt)]  # fmt: skip
    bounds = [(sign, bound, holds) for sign, bound, holds in bounds if bound is not None]
    number = isinstance(value, numbers.Integral if integer else numbers.Real) and not isinstance(value, bool)
    if number and _is_finite(value) and all(holds(value, bound) for _, bound, holds in bounds):
        return value
    kind = "a whole number" if integer else "a finite number"
    allowed = " and ".join(f"{sign} {bound:g}" for sign, bound, _ in bounds)
    raise InputError(f"{name} is {shown(value)}; it must be {kind} {allowed}".rstrip())


def check_finite(name, tensor):
    """Return a torch tensor whose values are all finite; otherwise raise InputError. Waits for the tensor's device."""
    finite = tensor.isfinite()
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise InputError(f"{name} must be finite numbers; {bad:,} of {tensor.numel():,} are NaN or infinite")
    return tensor


def _is_finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds, as YAML and JSON can carry
        return False
