"""The one error that a user's mistake raises: a single line that names the thing, its value and what is allowed."""

import difflib
import numbers
import operator
import re
import sys

LONGEST = 188  # characters of a message: with "error: " or "InputError: " before it the line keeps within 200
_LONG_WORD = re.compile(r"\S{51,}")


class InputError(ValueError):
    """Something that the user gave is wrong. The message is one line; a notebook shows it without a traceback."""

    status = 2  # exit status of a command that it ends

    def __init__(self, message):
        super().__init__(one_line(message))

    def _render_traceback_(self):
        # IPython's hook for exceptions that know how to show themselves.
        return [f"{type(self).__name__}: {self}"]


class WorkFailed(InputError):
    """Work that was asked for has failed.

    FAILED: a job or a notebook's cell failed; KILLED: a process was ended from outside; MEMORY: there was too little.
    """

    FAILED, KILLED, MEMORY = 1, 3, 4

    def __init__(self, message, status=FAILED):
        super().__init__(message)
        self.status = status


def one_line(text, width=LONGEST):
    """The text as one printable line of at most `width` characters; long paths keep their end, which names the file."""
    text = " ".join(str(text).split())
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    if len(text) > width:
        text = _LONG_WORD.sub(lambda word: _cut(word[0], 50, 15), text)
    return _cut(text, width, 2 * width // 3)  # what is wrong stands at the beginning


def shown(value, width=80):
    """repr(value) in at most `width` characters, cut in its middle."""
    return _cut(repr(value), width, width // 2)


def _cut(text, width, head):
    return text if len(text) <= width else f"{text[:head]}...{text[head + 3 - width :]}"


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
    bounds = {">=": (operator.ge, minimum), ">": (operator.gt, above), "<=": (operator.le, maximum),
              "<": (operator.lt, below)}  # fmt: skip
    bounds = {sign: (holds, bound) for sign, (holds, bound) in bounds.items() if bound is not None}
    number = isinstance(value, numbers.Integral if integer else numbers.Real) and not isinstance(value, bool)
    finite = number and abs(value) <= sys.float_info.max  # also of a whole number that no float holds
    if finite and all(holds(value, bound) for holds, bound in bounds.values()):
        return value
    kind = "a whole number" if integer else "a finite number"
    allowed = " and ".join(f"{sign} {bound:g}" for sign, (_, bound) in bounds.items())
    raise InputError(f"{name} is {shown(value)}; it must be {kind} {allowed}".rstrip())


def check_finite(name, tensor):
    """Return a torch tensor whose values are all finite; otherwise raise InputError. Waits for the tensor's device."""
    finite = tensor.isfinite()
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise InputError(f"{name} must be finite numbers; {bad:,} of {tensor.numel():,} are NaN or infinite")
    return tensor
