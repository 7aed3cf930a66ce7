"""Mutants: copies of a module's syntax tree with one small fault each. Runs nothing.

The faults are those that programmers make and that tests of a storage program have to notice: a
comparison off by one, a condition negated or half forgotten, a call left out, a lock not taken, a
constant changed, an error not raised.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

Change = Callable[[ast.AST], ast.AST]

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_QUIET: Final = ("log", "warnings")
"""Calls on these only tell; leaving one out is no fault."""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        line: Where it is.
        code: The line, without its indentation.
        what: The change, for people.
        number: How many mutants with the same code and change come before it in the module.
        make: Returns the syntax tree of the module with the fault.
    """

    line: int
    code: str
    what: str
    number: int
    make: Callable[[], ast.Module]

    @property
    def tree(self) -> ast.Module:
        """The module with the fault."""
        return self.make()


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    skipped = _skipped(tree)
    sites = [
        (number, what, change)
        for number, node in enumerate(ast.walk(tree))
        for what, change in _changes(node)
        if number not in skipped
    ]
    nodes = list(ast.walk(tree))
    lines = source.splitlines()
    seen: Counter[tuple[str, str]] = Counter()
    for number, what, change in sorted(sites, key=lambda site: getattr(nodes[site[0]], "lineno", 0)):
        line = getattr(nodes[number], "lineno", 0)
        code = lines[line - 1].strip()
        yield Mutant(line, code, what, seen[code, what], partial(_mutated, tree, number, change))
        seen[code, what] += 1


def _mutated(tree: ast.Module, number: int, change: Change) -> ast.Module:
    """Return a copy of a tree in which one node is changed, by its number in the order of `ast.walk`."""
    mutated = copy.deepcopy(tree)
    node = next(islice(ast.walk(mutated), number, None))
    _replace(mutated, node, change(node))
    return ast.fix_missing_locations(mutated)


def _skipped(tree: ast.Module) -> frozenset[int]:
    """Return the numbers of nodes inside annotations, decorators and type checks: no code at run time."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            roots: list[ast.AST | None] = list(node.decorator_list)
            if not isinstance(node, ast.ClassDef):
                arguments = node.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                roots += [node.returns, *(argument.annotation for argument in every)]
        elif isinstance(node, ast.AnnAssign):
            roots = [node.annotation]
        else:
            continue
        inside |= {id(each) for root in roots if root is not None for each in ast.walk(root)}
    return frozenset(number for number, node in enumerate(ast.walk(tree)) if id(node) in inside)


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield the faults that a node can have."""
    yield from _of_expressions(node)
    yield from _of_statements(node)


def _of_expressions(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            other = _COMPARISONS[type(operator)]
            yield f"{type(operator).__name__} -> {other.__name__}", _set("ops", [other()])
        case ast.BoolOp(op=operator, values=values):
            for at in range(len(values)):
                rest = [value for place, value in enumerate(values) if place != at]
                yield f"drop '{_short(values[at])}'", _drop_operand(at) if len(rest) > 1 else _become(rest[0])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "drop not", _become(operand)
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            changed = _OPERATORS[type(operator)]
            yield f"{type(operator).__name__} -> {changed.__name__}", _set("op", changed())
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", _set("value", not value)
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", _set("value", value + 1)
        case ast.IfExp():
            yield "negate the condition", _negate


def _of_statements(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Expr(value=ast.Call() as call) if not _short(call).startswith(_QUIET):
            yield f"leave out '{_short(call)}'", _become(ast.Pass())
        case ast.AugAssign():
            yield f"leave out '{_short(node)}'", _become(ast.Pass())
        case ast.Raise():
            yield f"leave out '{_short(node)}'", _become(ast.Pass())
        case ast.With(items=[ast.withitem(optional_vars=None) as item], body=body):
            yield f"without '{_short(item.context_expr)}'", _become(ast.If(ast.Constant(1), body, []))
        case ast.If() | ast.While() if not isinstance(node.test, ast.Constant):
            yield "negate the condition", _negate
        case ast.Continue() | ast.Break():
            yield "leave out", _become(ast.Pass())


def _set(name: str, value: object) -> Change:
    def change(node: ast.AST) -> ast.AST:
        setattr(node, name, value)
        return node

    return change


def _become(other: ast.AST) -> Change:
    return lambda node: ast.copy_location(copy.deepcopy(other), node)


def _drop_operand(at: int) -> Change:
    def change(node: ast.AST) -> ast.AST:
        assert isinstance(node, ast.BoolOp)
        del node.values[at]
        return node

    return change


def _negate(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    if old is new:
        return
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(each is old for each in value):
                setattr(parent, name, [new if each is old else each for each in value])


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "..."
