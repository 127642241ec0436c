"""From what YAML and JSON can carry to the declared types of a dataclass's fields. Imports no torch."""

import dataclasses
import json
import types
import typing
from pathlib import Path

from ..errors import InputError, shown


def coerce(config):
    """Turn the fields of a frozen dataclass into their declared types: lists to tuples, '1e-3' (a text in YAML 1.1) to
    a float. Raises InputError, naming the field, for a value that is not of its type.
    """
    hints = typing.get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value, kind = getattr(config, item.name), hints[item.name]
        object.__setattr__(config, item.name, _coerced(item.name, value, kind))


def _coerced(name, value, kind):
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # float | None
        return None if value is None else _coerced(name, value, typing.get_args(kind)[0])
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{name} is {shown(value)}; it must be a list")
        return tuple(_coerced(name, entry, typing.get_args(kind)[0]) for entry in value)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            raise InputError(f"{name} is {shown(value)}; it must be a number") from None
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = {int: "a whole number", str: "a text", bool: "true or false", dict: "a mapping", float: "a number"}
        raise InputError(f"{name} is {shown(value)}; it must be {expected[kind]}")
    if kind is int and value >= 2**63:
        raise InputError(f"{name} is {shown(value)}; it must be a whole number below 2^63")
    return value


def check_json(name, value):
    """Raise InputError for a value that JSON does not carry: it has no dates, no NaN and no keys but texts."""
    try:
        if json.loads(json.dumps(value, allow_nan=False)) == _listed(value):
            return
    except (TypeError, ValueError, RecursionError):
        pass
    raise InputError(f"{name} is {shown(value)}; it must hold texts, finite numbers, true, false, lists and mappings")


def _listed(value):
    """The value with lists for tuples, as JSON gives it back."""
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (list, tuple)) else value
