"""Where the package writes to files: read from its source, so that no writer is forgotten."""

import ast
from pathlib import Path

import debiaslib

PACKAGE = Path(debiaslib.__file__).parent
# What these write to is a path or an open file among their arguments, or the path that they are a method of.
METHODS = {
    *("write_text", "write_bytes", "to_csv", "to_parquet", "to_json", "to_pickle", "to_html", "to_latex"),
    *("to_markdown", "savefig", "imsave", "savez", "savez_compressed", "save", "save_file", "save_pretrained", "dump"),
    *("tofile", "memmap", "open_memmap", "touch", "symlink_to", "copy", "copy2", "copyfile", "copytree", "move"),
    *("rename", "replace", "urlretrieve", "download_url_to_file", "mkstemp", "NamedTemporaryFile", "TemporaryFile"),
    *("fill_json", "execute_notebook", "Popen"),
}


def writing_calls(module):
    """{(function, call): inside `with atomic_path`?} of a source file, where a file is written or renamed."""
    tree, found = ast.parse(module.read_text(encoding="utf-8")), {}

    def visit(node, function, atomic):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function, atomic = node.name, False
        if isinstance(node, ast.With):
            atomic = atomic or any(_called(item.context_expr) == "atomic_path" for item in node.items) or _enters(node)
        if isinstance(node, ast.Call) and (name := _writes(node)):
            found[function, name] = found.get((function, name), True) and atomic
        for child in ast.iter_child_nodes(node):
            visit(child, function, atomic)

    visit(tree, "", False)
    return found


def _enters(block):
    """Whether the block puts an atomic_path on an ExitStack."""
    calls = [node for node in ast.walk(block) if isinstance(node, ast.Call) and _called(node) == "enter_context"]
    return any(_called(argument) == "atomic_path" for call in calls for argument in call.args)


def _called(node):
    if not isinstance(node, ast.Call):
        return None
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)


def _writes(call):
    """The name of the call if it may write to a file, else None."""
    name, function = _called(call), call.func
    if name == "open":
        mode = _mode(call)
        return f"open {mode}" if mode is None or set(mode) & set("wax+") else None
    if name in ("replace", "rename", "copy"):  # so do texts, tables and arrays
        of_files = _is_module(getattr(function, "value", None)) or len(call.args) == 1
        return name if isinstance(function, ast.Attribute) and of_files and not call.keywords else None
    if name == "write_text" and isinstance(function, ast.Name):
        return None  # ours, of files.py
    return name if name in METHODS else None


def _mode(call):
    """The mode of an `open`, "r" where it has none, None where it is not written out."""
    if any(getattr(node, "attr", "") == "O_RDONLY" for node in call.args):
        return "r"
    place = 0 if isinstance(call.func, ast.Attribute) and not _is_module(call.func.value) else 1
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[place : place + 1]
    if not given:
        return "r"
    return given[0].value if isinstance(given[0], ast.Constant) else None


def _is_module(node):
    return isinstance(node, ast.Name) and node.id in ("os", "io", "shutil", "Image", "gzip", "zipfile", "tarfile")
