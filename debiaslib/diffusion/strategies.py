"""Names of the loss weightings: parsing, canonical form, label. Imports no torch.

A weighting is a string, so that papermill, a YAML file and a command line can carry it: `"debiased"`, `"min_snr"`,
`"p2(k=1, gamma=0.5)"`. The formulas are in `weighting.py`.
"""

import re
from collections import namedtuple
from dataclasses import dataclass

from ..errors import InputError, check_choice, check_number, shown

# A weighting's argument: its default, and the closed or the open lower bound of its range.
Argument = namedtuple("Argument", "default minimum above", defaults=(None, None))
KNOWN = {
    "constant": {},
    "debiased": {},
    "inverse_snr": {},
    "p2": {"k": Argument(1, minimum=0), "gamma": Argument(1, minimum=0)},
    "min_snr": {"gamma": Argument(5, above=0)},
    "soft_min_snr": {"gamma": Argument(5, above=0)},
    "max_snr": {"gamma": Argument(1, above=0)},
    "edm": {"sigma_data": Argument(0.5, above=0)},
}

LABELS = {"inverse_snr": "1/SNR", "p2": "P2", "min_snr": "Min-SNR", "soft_min_snr": "soft Min-SNR",
          "max_snr": "Max-SNR", "edm": "EDM"}  # where it is not the name itself  # fmt: skip


@dataclass(frozen=True)
class Strategy:
    """A parsed weighting. `str(strategy)` writes every argument out, so equal strings are equal weights."""

    name: str
    arguments: tuple[tuple[str, float], ...] = ()

    def __str__(self):
        inside = ",".join(f"{key}={digits(value)}" for key, value in self.arguments)
        return f"{self.name}({inside})" if inside else self.name

    @property
    def slug(self):
        """The name as part of a file name: `p2-k1-gamma0.5`."""
        return "-".join([self.name, *(f"{key}{digits(value)}" for key, value in self.arguments)])

    @property
    def label(self):
        """The name in a figure: `P2 (1, 1)`, `Min-SNR-5`."""
        label, values = LABELS.get(self.name, self.name), [digits(value) for _, value in self.arguments]
        return f"{label} ({', '.join(values)})" if len(values) > 1 else "-".join([label, *values])


def digits(value):
    """A number as text, short where that says the same number: configurations are stored and compared in this form."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def parse_strategy(text):
    """Parse `"name"` or `"name(argument=value, ...)"` into a `Strategy`, defaults filled in.

    Raises InputError for an unknown name or argument (naming the nearest known one) and for a value that is not a
    finite number in its range.
    """
    if isinstance(text, Strategy):
        return text
    if not isinstance(text, str):
        raise InputError(f"weighting is {shown(text)}; it must be a string such as 'debiased' or 'min_snr(gamma=5)'")
    try:
        name, _, inside = re.fullmatch(r"(\w+)\s*(\(([^()]*)\))?", text.strip()).groups()
        pairs = [part.split("=") for part in (inside or "").split(",") if part.strip()]
        given = {key.strip(): float(value) for key, value in pairs}
        if len(given) < len(pairs):
            raise ValueError("an argument is given twice")
    except (AttributeError, ValueError):
        form = "'name' or 'name(argument=value)'"
        raise InputError(f"weighting {shown(text)} cannot be read; write it as {form}") from None
    arguments = KNOWN[check_choice("weighting", name, KNOWN)]
    for key in given:
        if not arguments:
            raise InputError(f"weighting {name!r} takes no argument; got {key!r}")
        check_choice(f"argument of weighting {name!r}:", key, arguments)
    for key, argument in arguments.items():
        value = given.setdefault(key, argument.default)
        check_number(f"{key} of weighting {name!r}", value, minimum=argument.minimum, above=argument.above)
    return Strategy(name, tuple((key, float(given[key]) + 0.0) for key in arguments))  # + 0.0: -0 is 0
