"""Measure each tracker's package, and write docs/trackers.md: `measure_trackers.py [TRACKER ...]`.

The wheels come from dist/. The results of each tracker are kept in docs/measured, and the page is
made from all of them, so that one tracker can be measured again without the others. `--oldest` does
not measure. It runs the package's tests with the oldest version of the SDK that the package admits.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from environments import Environment
from trackers import ROOT, TRACKERS, TrackerPackage, with_what_it_needs

TOOLS: Final = ROOT / "tools"
MEASURED: Final = ROOT / "docs" / "measured"
PAGE: Final = ROOT / "docs" / "trackers.md"
IMPORTS: Final = 3
LIMIT: Final = 300
"""Seconds after which a probe counts as hanging."""

NEEDED: Final = ROOT / "3rdparty" / "python"
WITH_TESTS: Final = ("callback-contract", "trainer-torch", "callback-tensorboard")
"""Packages of this repository that the trackers' tests import."""

WAYS: Final = ("refuses", "hangs", "answers 500")


def measure(tracker: TrackerPackage) -> dict[str, Any]:
    """Measure a tracker's package."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = Environment(folder / "environment")
        before = size(environment)
        environment.install_ours(with_what_it_needs(tracker.package), tracker.lock)
        installed = environment.distributions()
        found: dict[str, Any] = {
            "sdk": tracker.sdk[0],
            "newest": installed[tracker.sdk[0]],
            "oldest": tracker.sdk[1],
            "megabytes": round((size(environment) - before) / 1e6),
            "distributions": len(installed.keys() - {"pip", "setuptools"}),
            "import": import_time(environment, tracker.module),
        }
        environment.install_ours(["callback-contract"], tracker.lock)
        work = folder / "work"
        work.mkdir()
        url = ""
        with ExitStack() as servers:
            if tracker.server is not None:
                script = str(TOOLS / tracker.server)
                url = servers.enter_context(environment.serving(script, str(work / tracker.name)))
            found |= probe(environment, "cost", tracker, tracker.local(work, url), work)
        if tracker.away is not None:
            for way in WAYS:
                found[way] = try_away(environment, tracker, way, work)
    return found


def size(environment: Environment) -> int:
    """Return the bytes of all installed files, except compiled ones."""
    files = environment.folder.rglob("*")
    return sum(file.lstat().st_size for file in files if file.suffix != ".pyc")


def import_time(environment: Environment, module: str) -> float:
    """Return the seconds that importing a module takes: the fastest of `IMPORTS` runs."""

    def run(code: str) -> float:
        begun = time.perf_counter()
        environment.run("-c", code, variables={}, check=True, capture_output=True)
        return time.perf_counter() - begun

    run(f"import {module}")  # compiles the module
    return min(run(f"import {module}") - run("pass") for _ in range(IMPORTS))


def try_away(
    environment: Environment, tracker: TrackerPackage, way: str, work: Path
) -> dict[str, Any]:
    """Measure a training whose tracker cannot reach its service, in one of `WAYS`."""
    assert tracker.away is not None
    mode = {"hangs": "silent"}.get(way, "broken")
    with environment.serving(str(TOOLS / "serve_badly.py"), mode) as url:
        if way != "refuses":
            return probe(environment, "away", tracker, tracker.away(url), work)
    return probe(environment, "away", tracker, tracker.away(url), work)


def probe(
    environment: Environment,
    what: str,
    tracker: TrackerPackage,
    variables: dict[str, str],
    work: Path,
) -> dict[str, Any]:
    """Return what `bench/one_tracker.py` prints, and the seconds until its process has ended."""
    command = [str(TOOLS / "bench" / "one_tracker.py"), what, tracker.name]
    if tracker.wrapper is not None:
        command = [str(TOOLS / tracker.wrapper), str(work / tracker.name), *command]
    process = environment.start(*command, variables={"HOME": str(work), **variables}, cwd=work)
    for line in process.stdout:  # an SDK may print lines of its own
        if line.startswith("{"):
            begun = time.perf_counter()
            process.wait(LIMIT)
            return {**json.loads(line), "exit": time.perf_counter() - begun}
    sys.exit(f"measure_trackers: {tracker.name}: {what} ended with {process.wait()}")


def test_with_oldest(tracker: TrackerPackage) -> str:
    """Run a package's tests with the oldest SDK that it admits, and return pytest's summary."""
    sdk, oldest = tracker.sdk
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        environment = Environment(Path(name) / "environment")
        files = [f"{resolve}-requirements.txt" for resolve in ("core", "torch", tracker.lock.stem)]
        lines = [line for file in files for line in (NEEDED / file).read_text().splitlines()]
        needed = [line for line in lines if line and not line.startswith(("-", "#"))]
        environment.install(f"{sdk}=={oldest}", *tracker.beside_oldest, *needed)
        environment.install_ours([*WITH_TESTS, *with_what_it_needs(tracker.package)])
        folder = ROOT / "packages" / tracker.package / "tests"
        done = environment.run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder),
            variables={"PYTHONDONTWRITEBYTECODE": "1"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        sys.stderr.write(done.stdout)
        return str(done.stdout.strip().splitlines()[-1].strip("= ").partition(" in ")[0])


def page(measured: dict[str, dict[str, Any]]) -> str:
    """Return the page for these measurements, by tracker."""
    missing = ", ".join(name for name in TRACKERS if name not in measured)
    open_ends = [f"\nNot measured yet: {missing}."] if missing else []
    tables = [*packages_table(measured), *open_ends, AWAY, *away_table(measured)]
    return "\n".join([INTRODUCTION, *tables, ""])


def packages_table(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of what each package installs and costs."""
    head = ("tracker", "SDK", "tested with", "installed", "import", "a log", "the SDK's own")
    yield f"| {' | '.join(head)} |"
    yield "|---|---|---|--:|--:|--:|--:|"
    for name, found in measured.items():
        own = found.get("log of the SDK")
        beside = " and ".join(("", *TRACKERS[name].beside_oldest))
        oldest = f"{found['oldest']}{beside}: {found.get('tests', 'not tested')}"
        tested = f"{found['newest']}; {oldest}"
        yield (
            f"| {name} | {found['sdk']} | {tested} "
            f"| {found['megabytes']} MB, {found['distributions']} packages "
            f"| {found['import']:.1f} s | {found['log'] * 1e6:.0f} µs "
            f"| {f'{own * 1e6:,.0f} µs' if own is not None else 'none'} |"
        )


def away_table(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of trainings that cannot reach their service."""
    yield f"| tracker | {' | '.join(WAYS)} |"
    yield "|---|--:|--:|--:|"
    for name, found in measured.items():
        if WAYS[0] in found:
            cells = (
                f"{found[way]['steps']:.2f}, {found[way]['end']:.1f} s, {found[way]['exit']:.1f} s"
                for way in WAYS
            )
            yield f"| {name} | {' | '.join(cells)} |"


INTRODUCTION: Final = """\
# The trackers, measured

`python3.11 tools/measure_trackers.py` makes this page, with the wheels of `tools/pants package ::`.
The machine has two cores and shared them with other jobs, so only the order of magnitude of each
number counts.

- *Tested with*: first the pinned version of the SDK, with which all tests of the package pass. Then
  the oldest version that the package admits, and the result of the tests with it (`--oldest`).
- *Installed*: the size and number of the packages that `pip install` adds.
- *A log*: the median of 2,000 calls of `on_log` with five values, in the training's thread, minus
  the median without the tracker.
- *The SDK's own*: the time that the SDK takes to log the same five values. Without
  `callback_core.tracking`, a training would wait for it.
"""

AWAY: Final = """
## When the service is down

Each training runs 2,000 steps of 1 ms and logs every step. At the address of its service, the
tracker finds one of three things: a closed port (*refuses*), a server that accepts requests and
never answers (*hangs*), or a server that answers 500. Each cell has three numbers:

1. the time of the steps, as a multiple of the time without a tracker;
2. the seconds that the end of training waits, with `flush_limit=2`;
3. the seconds that the interpreter then takes to exit.

Undelivered points stay in the journal. `python -m callback_core.tracking.replay` delivers them.
"""


def main() -> None:
    """Measure the trackers that the command line names, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trackers", nargs="*", metavar="TRACKER", help=", ".join(TRACKERS))
    parser.add_argument("--oldest", action="store_true", help="test with the oldest SDK instead")
    options = parser.parse_args()
    if unknown := sorted(set(options.trackers) - TRACKERS.keys()):
        parser.error(f"no tracker {', '.join(unknown)}; there are {', '.join(TRACKERS)}")
    MEASURED.mkdir(exist_ok=True)
    for name in options.trackers or TRACKERS:
        if options.oldest:
            tracker = TRACKERS[name]
            found = {"oldest": tracker.sdk[1], "tests": test_with_oldest(tracker)}
        else:
            found = measure(TRACKERS[name])
        print(f"{name}: {found}", flush=True)
        file = MEASURED / f"{name}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | found, indent=2) + "\n")
        write_page()


def write_page() -> None:
    """Write the page from all results so far."""
    files = {name: MEASURED / f"{name}.json" for name in TRACKERS}
    known = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    PAGE.write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()
