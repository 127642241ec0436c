"""What papermill does not check: unknown parameters and wrong types. It passes both on, with a warning or without."""

import ast

from ..errors import InputError, check_choice, shown

_TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": (list, tuple)}


def check_parameters(namespace):
    """Check the parameters of the running notebook: `namespace` is its `globals()`.

    The cell that papermill injects begins with "# Parameters"; each name in it must be declared, with its type, in the
    cell before it, which is the one tagged `parameters`. Raises InputError otherwise.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()]
    injected = next((i for i, cell in enumerate(cells) if cell.lstrip().startswith("# Parameters")), len(cells))
    found = _statements(cells[:injected], ast.AnnAssign)
    declared = {ast.unparse(node.target): ast.unparse(node.annotation) for node in found}
    for node in _statements(cells[injected : injected + 1], ast.Assign):
        check_choice("parameter", ast.unparse(node.targets[0]), declared)
    for name, kind in declared.items():
        value = namespace.get(name)
        wrong_bool = isinstance(value, bool) and kind != "bool"  # a bool is an int to Python
        if wrong_bool or not isinstance(value, _TYPES.get(kind, object)):
            raise InputError(f"parameter {name} is {shown(value)}; it must be of type {kind}")


def _statements(cells, kind):
    for cell in cells:
        try:
            yield from (node for node in ast.parse(cell).body if isinstance(node, kind))
        except SyntaxError:  # a cell with magics declares no parameters
            continue
