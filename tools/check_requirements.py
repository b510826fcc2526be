"""Check that each package declares what it imports: `python3.11 tools/check_requirements.py`.

Per packages/<dist>/pyproject.toml: every import is declared, every declared requirement is
imported, and a range between our own packages has a floor and a cap and admits the version in
the tree. The same holds of the imports of tests, for which the extra `test` declares what the
package itself does not require. A package may name exceptions, each with a comment that says why:

    [tool.check_requirements]
    used_without_import = ["tensorboard"]  # a requirement that no module imports by name
    imported_if_present = ["IPython"]  # an import that the code can do without
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Where the name of an import is not the name on the package index, or several share its first part.
DISTRIBUTIONS = {
    "azure.core": "azure-core",
    "azureml.core": "azureml-core",
    "azureml.mlflow": "azureml-mlflow",
    "git": "gitpython",
    "jwt": "pyjwt",
    "sklearn": "scikit-learn",
}


def canonical(name: str) -> str:
    """A distribution's name as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """The modules that code imports by an absolute name, wherever in the code."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(
                func=ast.Name(id="import_module" | "import_sdk" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ) if not module.startswith("."):
                yield module


def imported_distributions(source: Path) -> dict[str, str]:
    """Distributions that the modules under a folder import, each with a file that does.

    What lies in the folder is imported by its own name, as tests import their helpers, or is a
    part of the package that is the folder.
    """
    paths = sorted(source.rglob("*.py"))
    own = [path.relative_to(source) for path in paths]
    local = {source.name, *(path.stem for path in own), *(path.parts[0] for path in own)}
    found = {}
    for path in paths:
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in local:
                parts = module.split(".")
                starts = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
                known = [DISTRIBUTIONS[start] for start in starts if start in DISTRIBUTIONS]
                found[canonical(known[0] if known else top)] = path.name
    return found


def parse(requirement: str) -> tuple[str, str]:
    """Name and version range of a requirement, without extras and markers."""
    match = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*([^;]*)", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return canonical(match[1]), match[2].strip()


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: 0.10.0 -> (0, 10)."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def range_problem(requirement: str, version: str) -> str | None:
    """What is wrong with a range on a package of ours that is at a version now."""
    name, bounds = parse(requirement)
    match = re.fullmatch(r">=\s*([\d.]+)\s*,\s*<\s*([\d.]+)", bounds)
    if match is None:
        return f"{requirement!r} has no floor and cap; write {name}>=X,<Y"
    if not release(match[1]) <= release(version) < release(match[2]):
        return f"{requirement!r} does not admit {name} {version}, the version in the tree"
    return None


def problems(
    pyproject: dict[str, Any], source: Path, tests: Path, versions: dict[str, str]
) -> Iterator[str]:
    """What is wrong with the requirements of one package.

    Args:
        pyproject: the package's pyproject.toml.
        source: the folder of its import package.
        tests: the folder of its tests.
        versions: our own packages and the versions they are at.
    """
    project = pyproject["project"]
    exceptions = pyproject.get("tool", {}).get("check_requirements", {})
    extras = dict(project.get("optional-dependencies", {}))
    for_tests = extras.pop("test", [])
    requirements = list(project.get("dependencies", []))
    requirements += [requirement for extra in extras.values() for requirement in extra]
    own = canonical(project["name"])  # which the extra for tests may name for another extra
    declared = {parse(requirement)[0] for requirement in requirements}
    declared_for_tests = {parse(requirement)[0] for requirement in for_tests} - {own}
    imported = imported_distributions(source)
    imported_by_tests = imported_distributions(tests)

    present = {canonical(name) for name in exceptions.get("imported_if_present", [])}
    for name in sorted(imported.keys() - declared - present):
        yield f"{imported[name]} imports {name}, which is not declared"
    for name in sorted(imported_by_tests.keys() - declared - declared_for_tests - present - {own}):
        yield f"{imported_by_tests[name]} imports {name}, which the extra test does not declare"
    without_import = {canonical(name) for name in exceptions.get("used_without_import", [])}
    for name in sorted(declared - imported.keys() - without_import):
        yield f"{name} is declared, and nothing imports it"
    for name in sorted(declared_for_tests - imported_by_tests.keys() - without_import):
        yield f"{name} is declared by the extra test, and no test imports it"
    for requirement in [*requirements, *for_tests]:
        name = parse(requirement)[0]
        if name == own or name not in versions:
            continue
        if problem := range_problem(requirement, versions[name]):
            yield problem


def main() -> None:
    """Print what is wrong in all packages, and exit 1 if anything is."""
    paths = sorted(ROOT.glob("packages/*/pyproject.toml"))
    pyprojects = {path: tomllib.loads(path.read_text(encoding="utf-8")) for path in paths}
    projects = [pyproject["project"] for pyproject in pyprojects.values()]
    versions = {project["name"]: project["version"] for project in projects}
    found = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path, pyproject in pyprojects.items()
        for problem in problems(
            pyproject,
            path.parent / pyproject["project"]["name"].replace("-", "_"),
            path.parent / "tests",
            versions,
        )
    ]
    print("\n".join(found) or f"requirements of {len(paths)} packages: all in order")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
