"""The one error that a user's mistake raises: a single line that names the thing, its value and what is allowed."""

import difflib
import math
import numbers


class InputError(ValueError):
    """Something that the user gave is wrong. The message is one line; in a notebook it stands without a traceback."""

    def _render_traceback_(self):
        # IPython's hook for exceptions that know how to show themselves.
        return [f"{type(self).__name__}: {self}"]


def shown(value, width=80):
    """repr(value), cut in the middle, so that a line stays a line whatever was given."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 4 :]}"


def check_choice(name, value, known):
    """Return `value` if it is one of `known`; otherwise raise InputError with the nearest known one."""
    known = list(known)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"{name} {shown(value)} is unknown; {hint}known: {_listed(known)}")


def _listed(known, width=100):
    """Names separated by commas; of a list that makes a line too long, as many as fit and the number of the others."""
    names = [str(one) for one in known]
    shown_names = len(names)
    while shown_names > 1 and len(", ".join(names[:shown_names])) > width:
        shown_names -= 1
    rest = len(names) - shown_names
    return ", ".join(names[:shown_names]) + (f" and {rest} more" if rest else "")


def check_number(name, value, *, minimum=None, maximum=None, above=None, below=None, integer=False):
    """Return `value` if it is a finite number within the bounds; otherwise raise InputError.

    `minimum` and `maximum` are allowed themselves, `above` and `below` are not.
    """
    wanted = _describe(minimum, maximum, above, below, integer)
    number = isinstance(value, numbers.Integral if integer else numbers.Real) and not isinstance(value, bool)
    if not number or not _is_finite(value):
        raise InputError(f"{name} is {shown(value)}; it must be {wanted}")
    outside = (
        (minimum is not None and value < minimum)
        or (maximum is not None and value > maximum)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    )
    if outside:
        raise InputError(f"{name} is {shown(value)}; it must be {wanted}")
    return value


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


def _describe(minimum, maximum, above, below, integer):
    kind = "a whole number" if integer else "a finite number"
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", minimum), (">", above), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    return " ".join([kind, " and ".join(bounds)]).strip()
