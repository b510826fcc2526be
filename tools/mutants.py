"""Count the mutants of the core that its tests kill.

    python tools/mutants.py FOLDER [--sample N] [--seed N]

Cosmic Ray changes one operator, number, condition, exception or decorator at a time. This tests a
sample of such mutants of `callback_core.tracking`, of the core's callbacks, and of its control,
handler and state. Each is tested by the tests that run the changed line, quick ones first. A seed
gives the same sample even if other lines of the core change. FOLDER keeps the results: the next
call repeats only the mutants that survived, and measures only the test files that changed.

`tools/mutants.toml` has the reasons why mutants may survive. The environment needs the core's extra
`test`, `cosmic-ray` and `coverage`. The first call takes hours.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests_by_line import CORE, KILLED, SURVIVED, TIMED_OUT, TOOLS, CoreTests

PACKAGE: Final = CORE / "callback_core"

MODULES: Final = (
    *("control", "handler", "state"),
    *("callbacks/default_flow", "callbacks/early_stopping"),
    *("callbacks/printer", "callbacks/progress_bar"),
    *("tracking/*", "tracking/delivery/*"),
)

EQUIVALENT: Final = ("_Eq_Is", "_Is_Eq", "_NotEq_IsNot", "_IsNot_NotEq")
"""Operators that change nothing in almost all of the core, which compares members of enums."""


class Mutant(NamedTuple):
    """A change that Cosmic Ray can make.

    Attributes:
        module: The module, as a path.
        operator: The name of the operator that changes it.
        occurrence: Which of the places is meant, of those that the operator can change.
        line: The line.
        key: What tells this from any other mutant, even after other lines have changed.
    """

    module: str
    operator: str
    occurrence: int
    line: int
    key: str

    def source(self) -> str | None:
        """Return the module's source with the change; `None` if it changes only annotations.

        Some changes make no valid Python. For those, this returns `None` too.
        """
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        before = _source(self.module)
        after: str | None = mutate_code(before, get_operator(self.operator)(), self.occurrence)
        if after is None or _without_annotations(after) in (_without_annotations(before), None):
            return None
        return after

    def change(self, source: str) -> str:
        """Return the function and the change, without the line's number."""
        before, after = _source(self.module).splitlines(), source.splitlines()
        new = _plain(after[self.line - 1]) if len(before) == len(after) else "nothing"
        around = _statements_at(ast.parse(_source(self.module)), self.line)
        names = [node.name for node in around if hasattr(node, "name")]
        return f"{'.'.join(names) or 'module'}: {_plain(before[self.line - 1])} -> {new}"


def mutants(module: str) -> Iterator[Mutant]:
    """Yield all mutants of a module."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(_source(module))))
    lines = _source(module).splitlines()
    count: Counter[str] = Counter()
    for name in operator_names():
        if get_operator(name).arguments() or name.endswith(EQUIVALENT):
            continue  # an operator with arguments is for certain variables only
        operator = get_operator(name)()
        places = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, ((line, column), _) in enumerate(places):
            key = f"{module} {name} {column} {_plain(lines[line - 1])}"
            count[key] += 1
            yield Mutant(module, name, occurrence, line, f"{key} {count[key]}")


def _source(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text()


def _plain(line: str) -> str:
    return " ".join(line.split())


def _without_annotations(source: str) -> str | None:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def _statements_at(tree: ast.AST, line: int) -> list[Any]:
    """Return the statements that contain a line, outermost first."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return [node for node in found if _first_line(node) <= line <= (node.end_lineno or 0)]


def scopes(tree: ast.AST, line: int) -> Iterator[set[int]]:
    """Yield ever larger sets of lines around `line`: its statement first, all functions last.

    The tests that run these lines test `line`. A line outside of function bodies, such as a
    decorator or a default, runs on import, in every test. Its sets are the bodies of its function,
    of its class and of the module.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    run = {at for node in functions for at in range(node.body[0].lineno, _last_line(node) + 1)}
    for node in reversed(_statements_at(tree, line)):
        if line in run and hasattr(node, "body") and line < node.body[0].lineno:
            yield set(range(_first_line(node), node.body[0].lineno))  # its head
        yield run & set(range(_first_line(node), _last_line(node) + 1))
    yield run


def _first_line(node: Any) -> int:
    return int(min(part.lineno for part in [node, *getattr(node, "decorator_list", [])]))


def _last_line(node: Any) -> int:
    return int(node.end_lineno)


def main() -> None:
    """Test a sample and print the counts."""
    parser = argparse.ArgumentParser(description="Count the mutants that the core's tests kill.")
    parser.add_argument("folder", type=Path, help="keeps the results")
    parser.add_argument("--sample", type=int, default=400, help="how many mutants; 400 by default")
    parser.add_argument("--seed", type=int, default=1, help="chooses them; 1 by default")
    arguments = parser.parse_args()
    folder, seed = arguments.folder, arguments.seed
    folder.mkdir(parents=True, exist_ok=True)
    reasons = tomllib.loads((TOOLS / "mutants.toml").read_text())
    kept = folder / f"results-{seed}.json"
    results: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    files = sorted(file for name in MODULES for file in PACKAGE.glob(f"{name}.py"))
    modules = [file.relative_to(PACKAGE).with_suffix("").as_posix() for file in files]
    found = [mutant for module in modules for mutant in mutants(module)]
    found.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
    tests, counts = CoreTests(folder), Counter[str]()
    for mutant in found:
        if counts.total() == arguments.sample:
            break
        if (source := mutant.source()) is None:
            continue
        change = mutant.change(source)
        name = f"{mutant.module}: {change}"
        if change in reasons.get(mutant.module, {}):
            results[name] = "survive for a reason"
        elif results.get(name, SURVIVED) == SURVIVED:
            around = scopes(ast.parse(_source(mutant.module)), mutant.line)
            results[name] = tests.outcome(f"callback_core/{mutant.module}.py", around, source)
            kept.write_text(json.dumps(results, indent=1))
        counts[results[name]] += 1
        if results[name] != KILLED:
            print(f"{results[name]}: {name}", flush=True)
    detected = counts[KILLED] + counts[TIMED_OUT]
    print(f"{counts.total()} of {len(found)} mutants:", dict(counts))
    print(f"Without a reason: {detected / max(1, detected + counts[SURVIVED]):.1%} are killed.")


if __name__ == "__main__":
    main()
