"""Check the wheels and sdists in dist/ before a release: `python3.11 tools/check_dists.py`.

`tools/pants package ::` builds them. This script checks that:

- each package has one wheel and one sdist;
- a wheel contains the package and its licence, but no tests;
- an sdist also contains the tests, the README and the changelog;
- linters find no problem in them;
- the README has no relative link, which would be dead on a package index;
- a build from the tree and a build from the unpacked sdist are identical, byte for byte, and
  contain the same files as those in dist/.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

from environments import Environment
from metadata import ROOT, Addresses

REQUIREMENTS = ROOT / "3rdparty" / "python" / "dists-requirements.txt"
LOCK = ROOT / "locks" / "dists.txt"

# What pyroma demands and the project lacks. The authors have no address, and the URL is missing
# until the project has a public home.
ALWAYS_MISSING, MISSING_WITHOUT_HOME = "AuthorEmail", "Url"


def files_of(archive: Path) -> dict[str, bytes]:
    """Return the files of a wheel or sdist by path. An sdist's paths omit its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        members = [member for member in sdist.getmembers() if member.isfile()]
        return {
            member.name.partition("/")[2]: sdist.extractfile(member).read()  # type: ignore[union-attr]
            for member in members
        }


def problems_of_wheel(files: dict[str, bytes], module: str) -> Iterator[str]:
    """Yield what a wheel lacks, and what it should not contain."""
    tops = {PurePosixPath(name).parts[0] for name in files}
    info = [top for top in tops if top.endswith(".dist-info")]
    if len(info) != 1:
        yield f"it has {len(info)} .dist-info folders"
        return
    if tops - {module, *info}:
        yield f"it contains {', '.join(sorted(tops - {module, *info}))} besides {module}"
    for name in (f"{info[0]}/licenses/LICENSE", f"{module}/__init__.py", f"{module}/py.typed"):
        if name not in files:
            yield f"it lacks {name}"


def problems_of_sdist(files: dict[str, bytes], tests: set[str]) -> Iterator[str]:
    """Yield what an sdist lacks, given the paths of its package's tests."""
    always = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    if missing := sorted((always | tests) - files.keys()):
        yield f"it lacks {', '.join(missing)}"
    if not tests:
        yield "its package has no tests"


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Return the names of the files that differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def apart_from_the_builder(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a wheel, except those that contain the builder's version."""
    return {
        name: content
        for name, content in files.items()
        if not name.endswith((".dist-info/WHEEL", ".dist-info/RECORD"))
    }


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def dead_links(html: str) -> list[str]:
    """Return the links of a page that only work on the repository's site."""
    links = _Links()
    links.feed(html)
    links.close()
    whole = ("https:", "http:", "mailto:", "#")
    return [link for link in links.found if not link.startswith(whole)]


class Checks:
    """Checks the distributions in dist/, with tools that it installs into an environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = Environment(folder / "environment")
        self.environment.install("--requirement", str(REQUIREMENTS), constraints=LOCK)

    def tool(self, name: str, *arguments: str | Path, cwd: Path = ROOT) -> Iterator[str]:
        """Run a tool, and yield its output if it finds a problem."""
        command = [str(self.environment.python.with_name(name)), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            yield f"{name} {' '.join(map(str, arguments))}:\n{done.stdout.strip()}"

    def build(self, project: Path, to: Path) -> tuple[Path, Path]:
        """Build the wheel and the sdist of a folder."""
        for problem in self.tool("hatchling", "build", "--directory", to, cwd=project):
            raise RuntimeError(problem)
        return next(to.glob("*.whl")), next(to.glob("*.tar.gz"))

    def page(self, wheel: dict[str, bytes]) -> str:
        """Return the page that a package index shows for a wheel, as HTML."""
        metadata = next(name for name in wheel if name.endswith(".dist-info/METADATA"))
        source = self.folder / "page.md"
        source.write_bytes(message_from_bytes(wheel[metadata]).get_payload(decode=True))  # type: ignore[arg-type]
        command = [str(self.environment.python), "-m", "readme_renderer", str(source)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def package(self, project: Path, wheel: Path, sdist: Path) -> Iterator[str]:
        """Yield the problems of the distributions of one package."""
        module = project.name.replace("-", "_")
        in_wheel, in_sdist = files_of(wheel), files_of(sdist)
        own = {path.relative_to(project).as_posix() for path in project.glob("tests/**/*.py")}
        for problem in problems_of_wheel(in_wheel, module):
            yield f"{wheel.name}: {problem}"
        for problem in problems_of_sdist(in_sdist, own):
            yield f"{sdist.name}: {problem}"
        for link in dead_links(self.page(in_wheel)):
            yield f"{wheel.name}: its page has the relative link {link}"

        work = self.folder / module
        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        [unpacked] = work.iterdir()
        # Inside the repository, hatchling would add the repository's .gitignore to the sdist.
        alone = shutil.copytree(project, work / "alone")
        from_tree = self.build(alone, work / "from_tree")
        from_sdist = self.build(unpacked, work / "from_sdist")
        for one, other in zip(from_tree, from_sdist, strict=True):
            if one.read_bytes() != other.read_bytes():
                different = differences(files_of(one), files_of(other)) or "no file"
                yield (
                    f"{one.name}: builds from the tree and from the sdist in dist/ differ in "
                    f"{different}. The sdist may be older than the tree"
                )
        again = apart_from_the_builder(files_of(from_sdist[0]))
        if different := differences(apart_from_the_builder(in_wheel), again):
            yield f"{wheel.name}: a build from {sdist.name} differs in {', '.join(different)}"

    def all(self) -> Iterator[str]:
        """Yield the problems of all distributions."""
        projects = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
        built: list[tuple[Path, Path, Path]] = []
        for project in projects:
            start = f"dist/{project.name.replace('-', '_')}-"
            wheels, sdists = list(ROOT.glob(f"{start}*.whl")), list(ROOT.glob(f"{start}*.tar.gz"))
            if (len(wheels), len(sdists)) == (1, 1):
                built.append((project, wheels[0], sdists[0]))
            else:
                yield (
                    f"dist/ has {len(wheels)} wheels and {len(sdists)} sdists of {project.name}. "
                    "Build one of each: rm -rf dist; tools/pants package ::"
                )
        if len(built) < len(projects):
            return
        for one in built:
            yield from self.package(*one)
        wheels, sdists = [wheel for _, wheel, _ in built], [sdist for _, _, sdist in built]
        yield from self.tool("twine", "check", "--strict", *wheels, *sdists)
        yield from self.tool("check-wheel-contents", *wheels)
        yield from self.tool("validate-pyproject", *(path / "pyproject.toml" for path in projects))
        skipped = ALWAYS_MISSING if has_home() else f"{ALWAYS_MISSING},{MISSING_WITHOUT_HOME}"
        for sdist in sdists:
            yield from self.tool("pyroma", "--min", "10", "--skip-tests", skipped, sdist)


def has_home() -> bool:
    """Return whether the project has a public home."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return bool(Addresses.read(settings["callback-packages"]).home)


def main() -> None:
    """Print all problems, and exit with 1 if there are any."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(Checks(Path(folder)).all())
    print("\n".join(found) or "distributions of all packages: no problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
