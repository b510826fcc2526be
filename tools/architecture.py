"""Check `docs/architecture.md` against the tree; `--write` renews its map of the modules.

    python3.11 tools/architecture.py [--write]

The map has each module of each package with the first sentence of its docstring. The page may name
no module, function or file that does not exist.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
MAP = re.compile(r"(?<=<!-- modules -->\n).*?(?=<!-- end of modules -->)", re.DOTALL)


def main() -> int:
    """Check the page, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew the map of the modules")
    options = parser.parse_args()
    page = PAGE.read_text("utf-8")
    if options.write:
        page = MAP.sub(lambda _: module_map(), page)
        PAGE.write_text(page, "utf-8")
    faults = list(faults_of(page))
    for fault in faults:
        print(f"{PAGE.relative_to(ROOT)}: {fault}", file=sys.stderr)
    return 1 if faults else 0


def faults_of(page: str) -> Iterator[str]:
    """Yield each way in which the page differs from the tree."""
    found = MAP.search(page)
    if found is None or found[0] != module_map():
        yield "the map of the modules is out of date: python3.11 tools/architecture.py --write"
    for name in re.findall(r"`([\w/.-]+/[\w/.-]+\.py)`", page):
        if not (ROOT / name).is_file() and not (ROOT / "packages" / name).is_file():
            yield f"there is no file {name}"
    for module, function in re.findall(r"`((?:\w+\.)*\w+):([\w.]+)`", page):
        if function not in functions_of(module):
            yield f"there is no {function} in {module}"


def module_map() -> str:
    """Return the map as tables in Markdown, one for each package."""
    parts = []
    for package in packages():
        parts.append(f"\n### {package.name}\n\n| module | content |\n|---|---|\n")
        for path in sorted(package.rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            sentence = docstring.split("\n\n")[0].replace("\n", " ")
            name = ".".join(path.relative_to(package).with_suffix("").parts)
            if name == "__init__":
                continue
            parts.append(f"| `{name.removesuffix('.__init__')}` | {sentence} |\n")
    return "".join(parts) + "\n"


def packages() -> list[Path]:
    """Return the folders with the modules of each package, the core first."""
    found = [
        path
        for path in ROOT.glob("packages/*/*")
        if (path / "__init__.py").is_file() and path.name != "tests"
    ]
    first = ["callback_core", "trainer_torch", "callback_contract"]
    trackers = sorted(path.name for path in found if path.name not in first)
    return sorted(found, key=lambda path: [*first, *trackers].index(path.name))


def functions_of(module: str) -> set[str]:
    """Return the qualified names of the functions in a module; none if there is no such module."""
    package, *rest = module.split(".")
    for folder in packages():
        path = folder.joinpath(*rest).with_suffix(".py")
        if folder.name == package and path.is_file():
            return set(_qualified_names(ast.parse(path.read_text("utf-8"))))
    return set()


def _qualified_names(node: ast.AST, prefix: str = "") -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield prefix + child.name
            yield from _qualified_names(child, f"{prefix}{child.name}.")


if __name__ == "__main__":
    sys.exit(main())
