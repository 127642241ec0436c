"""What papermill does not check: unknown parameters and wrong types. It passes both on, with a warning or without."""

import ast

from ..errors import InputError, check_choice, shown

_TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": (list, tuple)}


def check_parameters(namespace):
    """Check the parameters of the running notebook: `namespace` is its `globals()`.

    The cell that papermill injects begins with "# Parameters"; each name in it must be declared, with its type, in the
    cell before it, which is the one tagged `parameters`. Raises InputError otherwise; in a notebook without such a
    cell it returns.
    """
    history = namespace.get("In", [])
    if not isinstance(history, list):  # a parameter of this name has taken the place of IPython's
        raise InputError(f"parameter 'In' is {shown(history)}; IPython keeps the cells under this name, use another")
    cells = [cell for cell in history if cell.strip()]
    injected = [i for i, cell in enumerate(cells) if cell.lstrip().startswith("# Parameters")]
    declared = _declared(cells[: injected[0]] if injected else cells)
    if injected:
        for name in _assigned(cells[injected[0]]):
            check_choice("parameter", name, declared)
    for name, kind in declared.items():
        _check_type(name, namespace.get(name), kind)


def _declared(cells):
    """{name: type} of the annotated assignments in the cells, as `name: type = value`."""
    found = {}
    for cell in cells:
        for node in _statements(cell):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(node.annotation, ast.Name)
            ):
                found[node.target.id] = node.annotation.id
    return found


def _assigned(cell):
    return [target.id for node in _statements(cell) if isinstance(node, ast.Assign) for target in node.targets]


def _statements(cell):
    try:
        return ast.parse(cell).body
    except SyntaxError:  # a cell with magics declares no parameters
        return []


def _check_type(name, value, kind):
    expected = _TYPES.get(kind)
    wrong_bool = isinstance(value, bool) and kind != "bool"
    if expected is not None and (wrong_bool or not isinstance(value, expected)):
        raise InputError(f"parameter {name} is {shown(value)}; it must be of type {kind}")
