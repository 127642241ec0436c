"""The mutants of a source file: one small change each, by cosmic-ray's operators and by four that it lacks."""

import ast
import difflib
import warnings
from dataclasses import dataclass

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names


@dataclass(frozen=True)
class Mutant:
    """A change of one file: the lines taken out and put in, stripped, and the whole source after it."""

    path: str
    operator: str
    number: int  # of the first line that is changed
    line: str
    becomes: str
    source: str

    @property
    def ours(self):
        """Whether it is none of cosmic-ray's."""
        return not self.operator.startswith("core/")

    def __str__(self):
        return f"{self.path}:{self.number}: {self.line}  ->  {self.becomes or '(nothing)'}"


class RemoveArgument(Operator):
    """Leave out one argument of a call or of a decorator: ``f(a, b=1)`` becomes ``f(b=1)`` and ``f(a)``."""

    def mutation_positions(self, node):
        return [(argument.start_pos, argument.end_pos) for argument in self._arguments(node)]

    def mutate(self, node, index):
        parts = node.children[-2].children if self._is_list(node) else [node.children[-2]]
        del parts[2 * index : 2 * index + 2]
        if not self._is_list(node):
            del node.children[-2]
        return node

    @classmethod
    def _arguments(cls, node):
        call = node.type in ("trailer", "decorator") and any(child == "(" for child in node.children)
        if not call or node.children[-2] == "(":
            return []
        return node.children[-2].children[::2] if cls._is_list(node) else [node.children[-2]]

    @staticmethod
    def _is_list(node):
        return node.children[-2].type == "arglist"

    @classmethod
    def examples(cls):
        return Example("f(a, b=1)", "f( b=1)"), Example("f(a, b=1)", "f(a,)", 1), Example("f(a)", "f()")


class RemoveMethodCall(Operator):
    """Leave out one call in a chain: ``x.sqrt().cpu()`` becomes ``x.cpu()`` and ``x.sqrt()``."""

    def mutation_positions(self, node):
        return [(node.children[at].start_pos, node.children[at + 1].end_pos) for at in self._places(node)]

    def mutate(self, node, index):
        place = self._places(node)[index]
        del node.children[place : place + 2]
        return node

    @staticmethod
    def _places(node):
        if node.type not in ("atom_expr", "power"):
            return []
        first = [child.children[0] if child.type == "trailer" else None for child in node.children]
        return [place for place in range(1, len(first) - 1) if first[place] == "." and first[place + 1] == "("]

    @classmethod
    def examples(cls):
        return Example("x.sqrt().cpu()", "x.cpu()"), Example("x.sqrt().cpu()", "x.sqrt()", 1)


class RemoveStatement(Operator):
    """``pass`` in the place of a call whose answer is not used, and of a ``raise``."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and node.children[0].type in ("atom_expr", "power", "raise_stmt"):
            return [(node.children[0].start_pos, node.children[0].end_pos)]
        return []

    def mutate(self, node, index):
        statement = node.children[0]
        node.children[0] = get_ast(statement.get_first_leaf().prefix + "pass")
        return node

    @classmethod
    def examples(cls):
        return Example("f(x)\n", "pass\n"), Example("raise E(x)\n", "pass\n")


class ReplaceString(Operator):
    """Another text in the place of one that is no docstring and no part of a message: ``"a"`` becomes ``"XXa"``."""

    def mutation_positions(self, node):
        message = node.type == "string" and node.search_ancestor("raise_stmt", "fstring_expr")
        if node.type == "string" and not message and node.parent.type != "simple_stmt":
            return [(node.start_pos, node.end_pos)]
        return []

    def mutate(self, node, index):
        opening = node.value.index(node.value[-1]) + 1
        node.value = node.value[:opening] + "XX" + node.value[opening:]
        return node

    @classmethod
    def examples(cls):
        return (Example("x = 'a'", "x = 'XXa'"),)


OURS = (RemoveArgument, RemoveMethodCall, RemoveStatement, ReplaceString)


def operators():
    """``{name: operator}`` of all that need no argument: cosmic-ray's ("core/...") and ours."""
    core = {name: get_operator(name) for name in operator_names()}
    made = {name: kind() for name, kind in core.items() if not kind.arguments()}
    return made | {kind.__name__: kind() for kind in OURS}


def mutants(path, source):
    """Every mutant of a file that is a program, does not say the same as the original, and was not made before."""
    tree, found, seen = get_ast(source), [], {_meaning(source), None}
    for name, operator in operators().items():
        count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for occurrence in range(count):
            mutated = mutate_code(source, operator, occurrence)
            if (meaning := _meaning(mutated)) not in seen:
                seen.add(meaning)
                found.append(Mutant(str(path), name, *_difference(source, mutated), mutated))
    return sorted(found, key=lambda mutant: mutant.number)


def _meaning(source):
    """The syntax tree as text, without places; None of what is no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `x is 0`
            compile(source, "mutant", "exec")
            return ast.dump(ast.parse(source))
    except SyntaxError:
        return None


def _difference(source, mutated):
    """``(number of the first line, lines taken out, lines put in)``."""
    before, after = source.splitlines(), mutated.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    (_, first, _, start, _), (_, _, last, _, end) = changed[0], changed[-1]
    taken, put = (" ".join(" ".join(lines).split()) for lines in (before[first:last], after[start:end]))
    return first + 1, taken, put
