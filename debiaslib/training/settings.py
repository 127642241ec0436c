"""Settings as dataclasses that pydantic checks; a mistake is one line that says what is allowed. Imports no torch."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from ..errors import InputError, check_choice, shown

__all__ = ["Flag", "Mapping", "Number", "Text", "Whole", "check_name", "settings"]

_LARGEST = 2**63 - 1
# What others call our settings, where the letters do not lead there.
_ALSO_CALLED = {
    "learning_rate": "lr",
    "model": "network",
    "unet": "network",
    "steps": "images",
    "epochs": "images",
    "iterations": "images",
    "fp16": "precision",
    "mixed_precision": "precision",
}


def Whole(minimum=0, maximum=_LARGEST):
    """The type of a whole number within bounds; a float, a text or a bool is none."""
    return Annotated[int, Field(strict=True, ge=minimum, le=maximum)]


def Number(**bounds):
    """The type of a finite number within pydantic's ge, gt and lt; the text 1e-3 (YAML 1.1) is one, a bool is none."""
    return Annotated[float, Field(allow_inf_nan=False, **bounds), BeforeValidator(_no_bool)]


def _no_bool(value):
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _check_json(value):
    """Raise InputError for a mapping that JSON does not carry: it has no dates, no NaN and no keys but texts."""
    try:
        if json.loads(json.dumps(value, allow_nan=False)) == _with_lists(value):
            return value
    except (TypeError, ValueError, RecursionError):
        pass
    raise InputError(f"network is {shown(value)}; it must hold texts, finite numbers, true, false, lists and mappings")


def _with_lists(value):
    if isinstance(value, dict):
        return {key: _with_lists(entry) for key, entry in value.items()}
    return [_with_lists(entry) for entry in value] if isinstance(value, (list, tuple)) else value


Text = Annotated[
    str, Field(strict=True), BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)
]
Flag = Annotated[bool, Field(strict=True)]
Mapping = Annotated[dict, AfterValidator(_check_json)]


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
            raise _input_error(checked, error.errors(include_url=False)[0]) from None

    checked.__init__ = __init__
    return checked


def check_name(what, name, known):
    """Return `name` if it is one of the known settings; otherwise raise InputError with the one that may be meant."""
    return check_choice(what, name, known, meant=_ALSO_CALLED.get(name) if isinstance(name, str) else None)


def _input_error(cls, error):
    """The InputError of one of pydantic's errors: {type, loc, input, ctx}."""
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return raised
    name, value = str(error["loc"][0]), error["input"]
    if error["type"].startswith("missing"):
        return InputError(f"{name} is missing; it must be given")
    allowed = pydantic.TypeAdapter(cls).json_schema()["properties"].get(name)
    try:
        if allowed is None:
            check_name("setting", name, [field.name for field in dataclasses.fields(cls)])
        for _ in error["loc"][1:]:  # of an entry of a list
            allowed = allowed.get("items", allowed)
        allowed = allowed.get("anyOf", [allowed])[0]
        if "enum" in allowed:
            check_choice(name, value, allowed["enum"])
    except InputError as found:
        return found
    return InputError(f"{name} is {shown(value)}; it must be {_described(allowed, value)}")


_KINDS = {"integer": "a whole number", "number": "a finite number", "string": "a text", "boolean": "true or false",
          "array": "a list", "object": "a mapping"}  # fmt: skip
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _described(schema, value):
    """What a JSON schema allows: "a whole number >= 4 and <= 1024"."""
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if schema.get(key, _LARGEST) != _LARGEST]
    too_large = isinstance(value, int) and value > _LARGEST and schema.get("maximum") == _LARGEST
    return " ".join([_KINDS[schema["type"]], " and ".join([*bounds, *["< 2^63"] * too_large])]).strip()
