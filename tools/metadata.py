"""Check what the packages' pyproject.toml files share: `python3.11 tools/metadata.py`.

Each file is complete in itself, so that a package builds alone. What is the same in all, or follows
from the rest of the file, stands below a mark; `--write` renews that part, and each package's copy
of LICENSE. The addresses in it come from `[tool.callback-packages]` in the repository's own
pyproject.toml. As long as `home` is empty there, a package names no address, and its page on a
package index shows the text of a relative link without the link.
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
"""Minor versions that a package supports unless its `requires-python` ends earlier."""

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
    """Where the project is, or empty strings as long as it has no public home.

    Attributes:
        home: The repository.
        files: What a path in the repository is appended to.
        documentation: The guides.
        issues: Where to report a problem.
    """

    home: str
    files: str
    documentation: str
    issues: str

    @classmethod
    def read(cls, table: dict[str, str]) -> "Addresses":
        """Take them from `[tool.callback-packages]`, where `{home}` stands for the home."""
        home = table["home"].rstrip("/")
        if not home:
            return cls("", "", "", "")
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", home):
            raise ValueError(f"home = {table['home']!r} is not an address; write https://HOST/PATH")
        return cls(*(table[field].format(home=home).rstrip("/") for field in cls._fields))


def pythons(requires: str) -> list[str]:
    """The minor versions that a `requires-python` of the form `>=X` or `>=X,<Y` admits.

    Raises:
        ValueError: It has another form, or another floor than all packages have.
    """
    match = re.fullmatch(r">=([\d.]+)(?:,<([\d.]+))?", requires)
    if match is None or match[1] != PYTHONS[0]:
        raise ValueError(f"requires-python = {requires!r}; write >={PYTHONS[0]} or a cap after it")
    cap = match[2]
    return [one for one in PYTHONS if cap is None or _numbers(one) < _numbers(cap)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def classifiers(requires: str) -> list[str]:
    """What a package says about systems, languages and types."""
    return [
        "Operating System :: POSIX :: Linux",  # the one that tests run on
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: {version}" for version in pythons(requires)),
        "Typing :: Typed",
    ]


def siblings(project: dict[str, Any], ours: Iterable[str]) -> list[str]:
    """The packages of ours that one names in its requirements, those of extras included."""
    extras = project.get("optional-dependencies", {}).values()
    named = [*project.get("dependencies", []), *(needed for extra in extras for needed in extra)]
    return sorted({parse(needed)[0] for needed in named} & set(ours) - {project["name"]})


def links(dist: str, files: str) -> list[tuple[str, str]]:
    """Regular expressions for the relative links of a README, and what takes their place."""
    if not files:
        return [(r"!?\[([^\]]*)\]\(\.\.?/[^)]*\)", r"\1")]
    bases = {r"\.\./\.\./": "", r"\.\./": "packages/", r"\./": f"packages/{dist}/"}
    return [(rf"\]\({start}", f"]({files}/{base}") for start, base in bases.items()]


def below_the_mark(
    project: dict[str, Any], ours: Iterable[str], addresses: Addresses, pytest: dict[str, Any]
) -> str:
    """The part of a pyproject.toml that can be written from the rest.

    Args:
        project: Its `[project]` table.
        ours: The names of all packages.
        addresses: Where the project is.
        pytest: The options that tests run with, which an unpacked sdist has nowhere else.
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
        case _:  # strings, numbers, booleans and lists of them are written as in JSON
            return json.dumps(value, ensure_ascii=False)


def problems(pyproject: dict[str, Any]) -> Iterator[str]:
    """What is wrong above the mark."""
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
        yield f"its classifiers about licence, systems, languages and types are not {wanted}"
    if len([one for one in own if one.startswith("Development Status ::")]) != 1:
        yield "it has not one classifier about its development status"
    if own != sorted(own):
        yield "its classifiers are not sorted"
    for field in ("description", "keywords", "version"):
        if not project.get(field):
            yield f"it has no {field}"


def check(root: Path, write: bool = False) -> list[str]:
    """What is wrong in all packages of a repository, after writing what can be written."""
    shared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    addresses = Addresses.read(shared["callback-packages"])
    licence = (root / "LICENSE").read_bytes()
    paths = sorted(root.glob("packages/*/pyproject.toml"))
    ours = [path.parent.name for path in paths]
    found = []
    stale = "out of date; tools/metadata.py --write renews it"
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
                found.append(f"{path.relative_to(root)}: what is below its mark is {stale}")
            if not copy.exists() or copy.read_bytes() != licence:
                found.append(f"{copy.relative_to(root)}: {stale}")
        found += [f"{path.relative_to(root)}: {problem}" for problem in problems(pyproject)]
    return found


def main() -> None:
    """Print what is wrong, and exit with 1 where anything is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="renew what is below the mark")
    found = check(ROOT, parser.parse_args().write)
    print("\n".join(found) or "metadata of all packages: all in order")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
