"""An experiment's YAML file as a mapping, read strictly: nothing in it is dropped or repeated in silence.

Imports no torch.
"""

import yaml

from .errors import InputError, shown

__all__ = ["read_settings"]

_LARGEST = 100_000  # bytes: an experiment is a page


class _Strict(yaml.SafeLoader):
    """YAML's plain values, without a key given twice (the last would win) and without aliases.

    A few lines of aliases of aliases stand for more than any memory holds.
    """

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, f"*{event.anchor}: aliases are not taken", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        given = []
        for where, _ in node.value:
            key = self.construct_object(where, deep=True)
            if key in given:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} is given twice", where.start_mark)
            given.append(key)
        return super().construct_mapping(node, deep)


def read_settings(path):
    """The mapping that a YAML file holds. Raises InputError, naming the file, if it holds anything else."""
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST:
            raise ValueError(f"it has {len(content):,} bytes; {_LARGEST:,} are allowed")
        settings = yaml.load(content.decode("utf-8"), _Strict)
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise InputError(f"experiment file {path} cannot be read: {error.problem}{where}") from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # ValueError: not UTF-8, or what looks like a date and is none; TypeError: a key that is a list
        raise InputError(f"experiment file {path} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"experiment file {path} holds {shown(settings, 40)}; it must hold 'name: value' lines")
    return settings
