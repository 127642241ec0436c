"""The form of the tracked notebooks: thin, without outputs, with parameters that papermill can list.

    python -m debiaslib.report.notebook_form notebooks  one line for each finding; the exit status is 1 if there is one

No library that reads notebooks is needed: they are JSON. The rules and their reasons are the `_check_...` functions.
"""

import ast
import io
import json
import re
import sys
import tokenize
from pathlib import Path

from ..cli import Parser

MAX_LINES = 12
MAX_BYTES = 100_000
PARAMETER_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
_KINDS = ("code", "markdown", "raw")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAGIC = re.compile(r"\s*(?:[\w, ]+=\s*)?[!%]|\s*\?|.*\?\s*$")
_ALLOWED_MAGIC = "%matplotlib inline"


def check_notebook(path):
    """Return what is wrong with the form of one notebook, a line each: 'cell 3: what', or 'what' for the whole file."""
    content = Path(path).read_bytes()
    findings = []
    if len(content) > MAX_BYTES:
        findings.append(f"has {len(content)} bytes, more than {MAX_BYTES}: pictures belong into results")
    try:
        notebook = json.loads(content)
    except ValueError as error:
        return [*findings, f"is not JSON: {error}"]
    broken = _check_format(notebook)
    if broken:  # nothing else can be trusted then
        return findings + broken
    cells = notebook["cells"]
    findings += _check_metadata(notebook["metadata"]) + _check_title(cells) + _check_order(cells)
    for number, cell in enumerate(cells, 1):
        found = _check_traces(cell)
        if cell["cell_type"] == "code":
            found += _check_code(_source(cell), is_parameters=_tagged(cell))
        findings += [f"cell {number}: {what}" for what in found]
    return findings


def _check_format(notebook):
    """nbformat 4.5, the first whose cells have ids: a change of one cell is then a small difference in git."""
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        return ["is not a notebook: it has no list of cells"]
    if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
        return [f"is nbformat {notebook.get('nbformat')}.{notebook.get('nbformat_minor')}, not 4.5"]
    if not isinstance(notebook.get("metadata"), dict):
        return ["has no metadata"]
    findings, seen = [], set()
    for number, cell in enumerate(notebook["cells"], 1):
        what = _broken_cell(cell)
        if what is None and cell["id"] in seen:
            what = f"its id {cell['id']!r} is used twice"
        if what is None:
            seen.add(cell["id"])
        else:
            findings.append(f"cell {number}: {what}")
    return findings


def _broken_cell(cell):
    if not isinstance(cell, dict) or cell.get("cell_type") not in _KINDS:
        return f"is not a cell of type {', '.join(_KINDS)}"
    if not isinstance(cell.get("id"), str) or not _ID.fullmatch(cell["id"]):
        return "has no valid id"
    if not isinstance(cell.get("metadata"), dict):
        return "has no metadata"
    source = cell.get("source")
    if not isinstance(source, str) and not (isinstance(source, list) and all(isinstance(line, str) for line in source)):
        return "has no source"
    if cell["cell_type"] == "code" and not (isinstance(cell.get("outputs"), list) and "execution_count" in cell):
        return "has no outputs or no execution_count, which a code cell must have even when they are empty"
    return None


def _check_metadata(metadata):
    """The kernel every installation has; without the language papermill cannot list the parameters."""
    findings = []
    kernel = metadata.get("kernelspec", {})
    if kernel.get("name") != "python3":
        findings.append(f"its kernel is {kernel.get('name')!r}, not 'python3'")
    if "python" not in (kernel.get("language"), metadata.get("language_info", {}).get("name")):
        findings.append("its metadata do not say that the language is python")
    findings += [f"holds metadata of an execution: {key}" for key in ("papermill", "widgets") if key in metadata]
    return findings


def _check_title(cells):
    first = cells[0] if cells else None
    if first is None or first["cell_type"] != "markdown" or not _source(first).lstrip().startswith("# "):
        return ["cell 1: is not a markdown cell that begins with the title ('# ...')"]
    return []


def _check_order(cells):
    """A reader meets a question before each piece of code and a reading after it; so does papermill its parameters."""
    code = [index for index, cell in enumerate(cells) if cell["cell_type"] == "code"]
    tagged = [index for index, cell in enumerate(cells) if _tagged(cell)]
    if len(tagged) != 1:
        return [f"has {len(tagged)} cells tagged 'parameters', not one"]
    if tagged[0] != code[0]:
        return [f"cell {tagged[0] + 1}: the cell tagged 'parameters' is not the first code cell"]
    findings = []
    for index in code[1:]:
        before, after = cells[index - 1], cells[index + 1] if index + 1 < len(cells) else None
        is_setup = index == tagged[0] + 1
        if before["cell_type"] != "markdown" and not is_setup:
            findings.append(f"cell {index + 1}: no markdown cell with its question stands before it")
        if after is None or after["cell_type"] != "markdown":
            findings.append(f"cell {index + 1}: no markdown cell with its reading stands after it")
    return findings


def _check_traces(cell):
    """Outputs and counts change with every execution; executed copies are results."""
    findings = []
    if cell.get("outputs"):
        findings.append("has outputs")
    if cell.get("execution_count") is not None:
        findings.append(f"has an execution count, {cell['execution_count']}")
    findings += [
        f"holds metadata of an execution: {key}" for key in ("papermill", "execution") if key in cell["metadata"]
    ]
    if "injected-parameters" in cell["metadata"].get("tags", []):
        findings.append("was put in by papermill")
    return findings


def _check_code(source, *, is_parameters):
    """Thin: what needs a name of its own is in the package, where it is tested."""
    if not source.strip():
        return ["is empty"]
    findings = []
    lines = [line for line in source.splitlines() if line.strip()]
    if len(lines) > MAX_LINES and not is_parameters:
        findings.append(f"has {len(lines)} lines of code, more than {MAX_LINES}")
    plain = "\n".join("" if line.strip() == _ALLOWED_MAGIC else line for line in source.splitlines())
    try:
        tree = ast.parse(plain)
    except SyntaxError as error:
        magics = [line.strip() for line in plain.splitlines() if _MAGIC.match(line)]
        if magics:
            return [*findings, f"uses a magic or shell command: {magics[0]}"]
        return [*findings, f"is not Python: {error.msg}, line {error.lineno}"]
    findings += [what for node in ast.walk(tree) if (what := _unwanted(node))]
    if is_parameters:
        findings += _check_parameters(tree, plain)
    return findings


def _unwanted(node):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"defines the function {node.name}; it belongs into the package"
    if isinstance(node, ast.ClassDef):
        return f"defines the class {node.name}; it belongs into the package"
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and isinstance(node.value, ast.Lambda):
        return "gives a name to a lambda; it belongs into the package"
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        return f"imports * from {node.module}"
    if isinstance(node, ast.Name) and node.id == "get_ipython":
        return "uses a magic or shell command: get_ipython"
    return None


def _check_parameters(tree, source):
    """What papermill's inspector reads: it drops a line with a second '=', and ends a value at the first '#'."""
    comments = _comments(source)
    lines = source.splitlines()
    findings = []
    for node in tree.body:
        line = lines[node.lineno - 1]
        named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
        if not named:
            findings.append(f"line {node.lineno} is not 'name: type = value  # meaning': {line.strip()}")
            continue
        what = _wrong_type(node)
        comment = comments.get(node.lineno, "")
        if node.end_lineno != node.lineno or ";" in line.removesuffix(comment):
            what = "is not alone on one line"
        elif not comment.lstrip("# ") or re.match(r"#\s*type:", comment):
            what = "has no comment that says what it means"
        elif line.count("=") != 1:
            what = "has a second '=' in its line, which papermill --help-notebook leaves out"
        elif "#" in line.removesuffix(comment):
            what = "has a '#' in its value, where papermill --help-notebook ends it"
        if what:
            findings.append(f"parameter {node.target.id} {what}")
    return findings


def _wrong_type(node):
    kind = ast.unparse(node.annotation)
    if kind not in PARAMETER_TYPES:
        return f"is of type {kind}; known: {', '.join(PARAMETER_TYPES)}"
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        return "has no literal as its value"
    # A number may be written 1 where 1.0 is meant; True is an int to Python, but not to a reader.
    fits = type(value) is PARAMETER_TYPES[kind] or (kind == "float" and type(value) is int)
    return None if fits else f"is of type {kind}, but its value is {value!r}"


def _comments(source):
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def _source(cell):
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def _tagged(cell):
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def find_notebooks(paths):
    """Return the notebooks among files and folders (not those in folders of folders), in order."""
    found = []
    for path in map(Path, paths):
        found += sorted(path.glob("*.ipynb")) if path.is_dir() else [path]
    return found


def main(arguments=None):
    parser = Parser(description="Check the form of notebooks.")
    parser.add_argument("paths", nargs="*", default=["notebooks"], help="notebooks, or folders of them")
    paths = parser.parse_args(arguments).paths
    notebooks = find_notebooks(paths)
    absent = [path for path in notebooks if not path.is_file()]
    if absent or not notebooks:
        print(f"no such notebook: {absent[0]}" if absent else f"no notebook in {', '.join(paths)}", file=sys.stderr)
        return 2
    findings = [f"{path}: {what}" for path in notebooks for what in check_notebook(path)]
    for line in findings:
        print(line)
    if not findings:
        print(f"{len(notebooks)} notebooks are in form")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
