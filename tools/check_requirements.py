"""Check that each package declares what it imports: `python3.11 tools/check_requirements.py`.

For each packages/<dist>/pyproject.toml, this checks that:

- every import is declared, and every declared requirement is imported;
- a range on another package of this repository has a floor and a cap, and admits the version in the
  tree;
- the extra `test` declares the imports of tests that the package itself does not require.

A package may name exceptions, each with a comment that gives the reason:

    [tool.check_requirements]
    used_without_import = ["tensorboard"]  # a requirement that is used without an import
    imported_if_present = ["IPython"]  # an optional import
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# For imports whose name differs from that on the package index, or whose first part is ambiguous.
DISTRIBUTIONS = {
    "azure.core": "azure-core",
    "azureml.core": "azureml-core",
    "azureml.mlflow": "azureml-mlflow",
    "git": "gitpython",
    "jwt": "pyjwt",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def canonical(name: str) -> str:
    """Return a distribution's name as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that code imports by an absolute name, at any place in the code."""
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
    """Return the distributions that the modules in a folder import, each with one importing file.

    Modules in the folder itself do not count. Tests import their helpers by name, and a package
    imports its own parts.
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
    """Return the name and version range of a requirement, without extras and markers."""
    match = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*([^;]*)", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return canonical(match[1]), match[2].strip()


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparisons: 0.10.0 -> (0, 10)."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def range_problem(requirement: str, version: str) -> str | None:
    """Return the problem of a range on a package of this repository that has this version."""
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
    """Yield the problems of one package's requirements.

    Args:
        pyproject: The package's pyproject.toml.
        source: The folder of its import package.
        tests: The folder of its tests.
        versions: The current versions of all packages of this repository, by name.
    """
    project = pyproject["project"]
    exceptions = pyproject.get("tool", {}).get("check_requirements", {})
    extras = dict(project.get("optional-dependencies", {}))
    for_tests = extras.pop("test", [])
    requirements = list(project.get("dependencies", []))
    requirements += [requirement for extra in extras.values() for requirement in extra]
    own = canonical(
        project["name"]
    )  # the extra `test` may name the package itself, with another extra
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
        yield f"{name} is declared, but nothing imports it"
    for name in sorted(declared_for_tests - imported_by_tests.keys() - without_import):
        yield f"the extra test declares {name}, but no test imports it"
    for requirement in [*requirements, *for_tests]:
        name = parse(requirement)[0]
        if name == own or name not in versions:
            continue
        if problem := range_problem(requirement, versions[name]):
            yield problem


def main() -> None:
    """Print the problems of all packages, and exit with 1 if there are any."""
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
    print("\n".join(found) or f"requirements of {len(paths)} packages: no problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
