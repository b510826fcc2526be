"""The changes that are made to a module: one at a time, to what it does and not to what it says.

Comparisons, `and` and `or`, signs of arithmetic, `not`, numbers, truth values and keys are changed,
statements are left out, and functions return at once. Docstrings, messages and types stay.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

_PAIRS: tuple[tuple[type[ast.AST], type[ast.AST]], ...] = (
    (ast.Eq, ast.NotEq),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
)
SWAPS = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])} | {
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
DELETED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)


class Mutant(NamedTuple):
    """One change: of which module, in which lines, as text, and the module's source with it."""

    module: str
    lines: range
    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.lines[0]} {self.text}"


class Edit(NamedTuple):
    """What is set to what, and the node, or the text, that shows it."""

    holder: ast.AST
    field: str
    value: Any
    shown: ast.AST
    after: str = ""


def mutants_of(package: Path, module: str) -> Iterator[Mutant]:
    """Yield all mutants of a module, which is named by its path in `package`."""
    tree = ast.parse((package / f"{module}.py").read_text("utf-8"))
    alike: Counter[tuple[int, str]] = Counter()
    for edit, statement in list(_edits(tree, tree)):
        before, kept = _shown(edit.shown), getattr(edit.holder, edit.field)
        setattr(edit.holder, edit.field, edit.value)
        before, after = _shortened(before, edit.after or _shown(edit.shown))
        text, lines = f"{before} -> {after}", _lines(statement)
        alike[lines[0], text] += 1
        if (number := alike[lines[0], text]) > 1:  # of a line that says the same twice
            text += f", the {number}. time"
        yield Mutant(module, lines, text, ast.unparse(tree))
        setattr(edit.holder, edit.field, kept)


def _edits(node: ast.AST, statement: Any) -> Iterator[tuple[Edit, Any]]:
    """Yield the changes of `node` and of what is in it, each with the statement that runs it."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "exc", "cause"):
            continue
        for place, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _says_nothing(child):
                continue
            inside = child if isinstance(child, ast.stmt) else statement

            def put(new: Any, field: str = field, value: Any = value, place: int = place) -> Any:
                return [*value[:place], new, *value[place + 1 :]] if type(value) is list else new

            if type(child) in SWAPS:
                new = SWAPS[type(child)]()
                yield Edit(node, field, put(new), node), inside
            elif isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.Not):
                after = ast.unparse(child.operand)
                yield Edit(node, field, put(child.operand), child, after), inside
            elif isinstance(child, ast.Constant):
                if (changed := _changed(child.value, node, field)) is not None:
                    yield Edit(child, "value", changed, node), inside
            elif _is_deleted(child):
                yield Edit(node, field, put(ast.Pass()), child, "pass"), inside
            elif isinstance(child, ast.FunctionDef):
                said = ast.get_docstring(child) is not None
                if rest := child.body[said:]:
                    body = [*child.body[:said], ast.Return(), *rest]
                    yield Edit(child, "body", body, child, "return at once"), rest[0]
            if not _is_message(child):
                yield from _edits(child, inside)


def _says_nothing(node: ast.AST) -> bool:
    """Return whether nothing in `node` is to be changed: a docstring, types, what is exported."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name("TYPE_CHECKING")) | ast.Assign([ast.Name("__all__")]):
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name("NotImplementedError"))):
            return True
        case ast.Raise(exc=ast.Name("NotImplementedError")) | ast.Subscript(ast.Name("Literal")):
            return True
    return False


def _is_message(node: ast.AST) -> bool:
    """Return whether `node` is a call that logs, whose words are not changed."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("logger" | "warnings"))):
            return True
    return False


def _is_deleted(node: ast.AST) -> bool:
    """Return whether `node` is a statement to leave out. A missing name would be too easy."""
    if isinstance(node, ast.Assign):
        return not any(isinstance(target, (ast.Name, ast.Tuple)) for target in node.targets)
    return isinstance(node, DELETED)


def _changed(value: object, parent: ast.AST, field: str) -> Any:
    """Return another constant in place of `value`; `None` where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    match parent:
        case ast.Subscript() | ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault")):
            return f"{value}_" if isinstance(value, str) else None
        case ast.Dict() if field == "keys" and isinstance(value, str):
            return f"{value}_"
    return None


def _shown(node: ast.AST) -> str:
    """Return the first line of `node`, without its decorators."""
    lines = ast.unparse(node).splitlines() or [""]
    return next((line for line in lines if not line.startswith("@")), lines[0])


def _shortened(before: str, after: str) -> tuple[str, str]:
    """Return both without what they have in common, if that is long, but for what is next to it."""
    if after in ("pass", "return at once"):
        return (before if len(before) < 80 else f"{before[:80]}…"), after
    start = max(0, _alike(before, after) - 30)
    end = max(0, _alike(before[start:][::-1], after[start:][::-1]) - 30)
    if len(before) < 80:
        return before, after
    cut = [text[start : len(text) - end] for text in (before, after)]
    shown = [f"{'…' * bool(start)}{text}{'…' * bool(end)}" for text in cut]
    return shown[0], shown[1]


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _lines(statement: Any) -> range:
    """Return the lines that run when `statement` does, without those of its body."""
    body = getattr(statement, "body", None)
    end = statement.end_lineno + 1 if not body else max(body[0].lineno, statement.lineno + 1)
    return range(statement.lineno, end)
