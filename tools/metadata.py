"""Check what the packages' pyproject.toml files share: `python3.11 tools/metadata.py`.

Each file is complete in itself, so each package builds alone. Below a marker line, it contains what
all packages share and what follows from the rest of the file. `--write` renews that part, and each
package's copy of LICENSE.

The addresses come from `[tool.callback-packages]` in the root pyproject.toml. While `home` is empty
there, a package names no address, and its page on a package index shows relative links as plain
text.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from check_requirements import parse

ROOT = Path(__file__).resolve().parent.parent
MARK = "# From here on, tools/metadata.py writes this file.\n"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The minor versions that a package supports, up to the cap of its `requires-python`."""

BUILD_SYSTEM = {
    "requires": ["hatchling>=1.27", "hatch-fancy-pypi-readme>=25.1"],
    "build-backend": "hatchling.build",
}
SHARED = {
    "dynamic": ["readme"],
    "license": "Apache-2.0",
    "license-files": ["LICENSE"],
    "authors": [{"name": "the callback-packages authors"}],
}


class Addresses(NamedTuple):
    """The addresses of the project; empty strings until it has a public home.

    Attributes:
        home: The repository.
        files: The prefix for paths in the repository.
        documentation: The guides.
        issues: The issue tracker.
    """

    home: str
    files: str
    documentation: str
    issues: str

    @classmethod
    def read(cls, table: dict[str, str]) -> "Addresses":
        """Read them from `[tool.callback-packages]`, and replace `{home}` by the home."""
        home = table["home"].rstrip("/")
        if not home:
            return cls("", "", "", "")
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", home):
            raise ValueError(f"home = {table['home']!r} is not an address; write https://HOST/PATH")
        return cls(*(table[field].format(home=home).rstrip("/") for field in cls._fields))


def pythons(requires: str) -> list[str]:
    """Return the minor versions that `>=X` or `>=X,<Y` admits.

    Raises:
        ValueError: `requires` has another form, or a floor other than the first of `PYTHONS`.
    """
    match = re.fullmatch(r">=([\d.]+)(?:,<([\d.]+))?", requires)
    if match is None or match[1] != PYTHONS[0]:
        raise ValueError(
            f"requires-python = {requires!r}; write >={PYTHONS[0]}, or add a cap to it"
        )
    cap = match[2]
    return [one for one in PYTHONS if cap is None or _numbers(one) < _numbers(cap)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def classifiers(requires: str) -> list[str]:
    """Return the classifiers for systems, languages and types."""
    return [
        "Operating System :: POSIX :: Linux",  # tests run only on Linux
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: {version}" for version in pythons(requires)),
        "Typing :: Typed",
    ]


def siblings(project: dict[str, Any], ours: Iterable[str]) -> list[str]:
    """Return the packages of this repository that a project requires, including its extras."""
    extras = project.get("optional-dependencies", {}).values()
    named = [*project.get("dependencies", []), *(needed for extra in extras for needed in extra)]
    return sorted({parse(needed)[0] for needed in named} & set(ours) - {project["name"]})


def links(dist: str, files: str) -> list[tuple[str, str]]:
    """Return regular expressions for the relative links of a README, with their replacements."""
    if not files:
        return [(r"!?\[([^\]]*)\]\(\.\.?/[^)]*\)", r"\1")]
    bases = {r"\.\./\.\./": "", r"\.\./": "packages/", r"\./": f"packages/{dist}/"}
    return [(rf"\]\({start}", f"]({files}/{base}") for start, base in bases.items()]


def below_the_mark(
    project: dict[str, Any], ours: Iterable[str], addresses: Addresses, pytest: dict[str, Any]
) -> str:
    """Return the generated part of a pyproject.toml.

    Args:
        project: Its `[project]` table.
        ours: The names of all packages.
        addresses: The addresses of the project.
        pytest: The options of pytest. An unpacked sdist has them only here.
    """
    dist = project["name"]
    module = dist.replace("-", "_")
    tables: list[tuple[str, dict[str, Any]]] = []
    if addresses.home:
        own = f"{addresses.files}/packages/{dist}"
        urls = {
            "Homepage": addresses.home,
            "Documentation": addresses.documentation,
            "Source": own,
            "Changelog": f"{own}/CHANGELOG.md",
            "Issues": addresses.issues,
        }
        tables.append(("[project.urls]", urls))
    kept = [f"/{module}", "/tests", "/README.md", "/CHANGELOG.md", "/LICENSE"]
    readme = "tool.hatch.metadata.hooks.fancy-pypi-readme"
    tables += [
        ("[tool.hatch.build.targets.wheel]", {"packages": [module]}),
        ("[tool.hatch.build.targets.sdist]", {"include": kept}),
        (f"[{readme}]", {"content-type": "text/markdown"}),
        (f"[[{readme}.fragments]]", {"path": "README.md"}),
    ]
    for pattern, replacement in links(dist, addresses.files):
        substitution = {"pattern": pattern, "replacement": replacement}
        tables.append((f"[[{readme}.substitutions]]", substitution))
    tables.append(("[tool.pytest.ini_options]", pytest))
    if needed := siblings(project, ours):
        paths = {name: {"path": f"../{name}", "editable": True} for name in needed}
        tables.append(("[tool.uv.sources]", paths))
    return MARK + "".join(f"\n{header}\n{_lines(table)}" for header, table in tables)


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
        case str() if "\\" in value:
            return f"'{value}'"
        case _:  # TOML writes strings, numbers, booleans and lists of them as JSON does
            return json.dumps(value, ensure_ascii=False)


def problems(pyproject: dict[str, Any]) -> Iterator[str]:
    """Yield the problems above the marker line."""
    if pyproject.get("build-system") != BUILD_SYSTEM:
        yield f"[build-system] is not {BUILD_SYSTEM}"
    project = pyproject["project"]
    for field, value in SHARED.items():
        if project.get(field) != value:
            yield f"{field} is {project.get(field)!r}, not {value!r}"
    try:
        wanted = classifiers(project.get("requires-python", ""))
    except ValueError as error:
        yield str(error)
        return
    own = project.get("classifiers", [])
    kinds = ("License ::", "Operating System ::", "Programming Language ::", "Typing ::")
    if [one for one in own if one.startswith(kinds)] != wanted:
        yield f"its classifiers for licence, systems, languages and types are not {wanted}"
    if len([one for one in own if one.startswith("Development Status ::")]) != 1:
        yield "it must have exactly one classifier for its development status"
    if own != sorted(own):
        yield "its classifiers are not sorted"
    for field in ("description", "keywords", "version"):
        if not project.get(field):
            yield f"it has no {field}"


def check(root: Path, write: bool = False) -> list[str]:
    """Return the problems of all packages in a repository; with `write`, renew the files first."""
    shared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    addresses = Addresses.read(shared["callback-packages"])
    licence = (root / "LICENSE").read_bytes()
    paths = sorted(root.glob("packages/*/pyproject.toml"))
    ours = [path.parent.name for path in paths]
    found = []
    stale = "out of date; run tools/metadata.py --write"
    for path in paths:
        text = path.read_text(encoding="utf-8")
        above, _, _ = text.partition(MARK)
        pyproject = tomllib.loads(above)
        own = pyproject["project"]
        whole = f"{above.rstrip()}\n\n" + below_the_mark(
            own, ours, addresses, shared["pytest"]["ini_options"]
        )
        copy = path.with_name("LICENSE")
        if write:
            path.write_text(whole, encoding="utf-8")
            copy.write_bytes(licence)
        else:
            if text != whole:
                found.append(f"{path.relative_to(root)}: the part below the marker line is {stale}")
            if not copy.exists() or copy.read_bytes() != licence:
                found.append(f"{copy.relative_to(root)}: {stale}")
        found += [f"{path.relative_to(root)}: {problem}" for problem in problems(pyproject)]
    return found


def main() -> None:
    """Print all problems, and exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="renew the generated parts")
    found = check(ROOT, parser.parse_args().write)
    print("\n".join(found) or "metadata of all packages: no problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
