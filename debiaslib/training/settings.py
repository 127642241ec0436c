"""Settings as dataclasses that pydantic checks; a mistake is one line that says what is allowed. Imports no torch."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from ..errors import InputError, check_choice, shown

# What others call our settings, where the letters do not lead there.
_ALSO_CALLED = {"learning_rate": "lr", "model": "network", "unet": "network", "steps": "images", "epochs": "images",
                "iterations": "images", "fp16": "precision", "mixed_precision": "precision"}  # fmt: skip
# What pydantic's messages say, in the words of a YAML file.
_PLAIN = {"Input should": "it must", "input was not": "it must be", "valid integer": "whole number",
          "valid number": "number", "valid string": "text", "a valid boolean": "true or false", "valid tuple": "list",
          "valid dictionary": "mapping", "greater than or equal to": ">=", "greater than": ">",
          "less than or equal to": "<=", "less than": "<"}  # fmt: skip


def Whole(minimum=0, maximum=2**63 - 1):
    """The type of a whole number within bounds; a float, a text or a bool is none."""
    return Annotated[int, Field(strict=True, ge=minimum, le=maximum)]


def Number(**bounds):
    """The type of a finite number within pydantic's ge, gt and lt; the text 1e-3 (YAML 1.1) is one, a bool is none."""
    no_bool = BeforeValidator(lambda value: str(value) if isinstance(value, bool) else value)
    return Annotated[float, Field(allow_inf_nan=False, **bounds), no_bool]


def check_distinct(name, values):
    """Return `values`; raise InputError if one of them is there twice."""
    if twice := [value for value in values if values.count(value) > 1]:
        raise InputError(f"{name} lists {shown(twice[0])} twice; each must be there once")
    return values


def Several(kind):
    """The type of a list of at least one of a kind, each there once."""

    def check(values, info):
        if not values:
            raise InputError(f"{info.field_name} is empty; it must list at least one")
        return check_distinct(info.field_name, values)

    return Annotated[tuple[kind, ...], AfterValidator(check)]


Text = Annotated[str, Field(strict=True), BeforeValidator(lambda text: str(text) if isinstance(text, Path) else text)]
Flag = Annotated[bool, Field(strict=True)]
Mapping = dict[str, JsonValue]


def settings(cls):
    """Class decorator: a frozen dataclass whose fields pydantic checks, lists becoming tuples where they are declared.

    Raises InputError for the first mistake: an unknown or missing field, or a value of another kind or out of range.
    """
    checked = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))(cls)
    initialise = checked.__init__

    @functools.wraps(initialise)
    def __init__(self, *values, **named):
        try:
            initialise(self, *values, **named)
        except pydantic.ValidationError as error:
            _refuse(checked, error.errors(include_url=False)[0])

    checked.__init__ = __init__
    return checked


def check_name(what, name, known):
    """Return `name` if it is one of the known settings; otherwise raise InputError with the one that may be meant."""
    return check_choice(what, name, known, meant=_ALSO_CALLED.get(name) if isinstance(name, str) else None)


def _refuse(cls, error):
    """Raise the InputError of one of pydantic's errors: {type, loc, msg, input, ctx}."""
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        raise raised from None
    name, value, line = str(error["loc"][0]), error["input"], error["msg"]
    if error["type"] == "missing":
        raise InputError(f"{name} is missing; it must be given") from None
    if error["type"] == "unexpected_keyword_argument":
        check_name("setting", name, [field.name for field in dataclasses.fields(cls)])
    if error["type"] == "literal_error":
        check_choice(name, value, re.findall("'(.*?)'", line))
    for theirs, plain in _PLAIN.items():
        line = line.replace(theirs, plain)
    raise InputError(f"{name} is {shown(value)}; {line}") from None
