"""Write the `<name>.dist-info` of a package from its pyproject.toml: `dist_info.py pyproject.toml`.

It contains only what this repository reads through `importlib.metadata`: name, version,
requirements and entry points. The folder's name has no version, so BUILD files need not repeat it.
`importlib.metadata` allows that.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def metadata(project: dict[str, Any]) -> str:
    """Return the METADATA file for a `[project]` table."""
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", [])]
    for extra, requirements in project.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {needed}; extra == "{extra}"' for needed in requirements]
    return "\n".join(lines) + "\n"


def entry_points(project: dict[str, Any]) -> str:
    """Return the entry_points.txt file for a `[project]` table."""
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    return "\n".join(lines) + "\n"


def main(pyproject: str) -> None:
    """Write the folder next to the pyproject.toml."""
    project = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]
    folder = Path(pyproject).parent / f"{project['name'].replace('-', '_')}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(metadata(project), encoding="utf-8")
    (folder / "entry_points.txt").write_text(entry_points(project), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
