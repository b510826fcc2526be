"""Runs the core's tests in a copy of the package, and knows which lines each test runs.

`tools/mutants.py` uses this. It is also the plugin of pytest that measures.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

TOOLS: Final = Path(__file__).resolve().parent
CORE: Final = TOOLS.parent / "packages" / "callback-core"

KILLED: Final = "killed"
SURVIVED: Final = "survived"
TIMED_OUT: Final = "timed out"

HANGING: Final = 90
"""Seconds after which a test counts as hanging."""

MOST_SECONDS: Final = 45.0
"""How long the tests of a mutant may take. Further ones, which are the slow ones, are left out."""

FIRST: Final = 12
"""The number of tests that run first. Importing all others takes longer than running these."""

SETTINGS: Final = """
[run]
parallel = true
patch = _exit
source_pkgs = callback_core
context = ${PYTEST_CURRENT_TEST-}
"""

_PHASE: Final = re.compile(r" \((setup|call|teardown)\)$")
"""What follows a test's name in another process, which takes it from the environment."""


class CoreTests:
    """Runs the core's tests in a copy of the package.

    Args:
        folder: Where the copy is, and what was measured. A test file is measured again if it,
            the package or a helper of the tests has changed since.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._copy = self._folder / "callback-core"
        self._seconds: dict[str, float] = {}
        self._by_line: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self._time = 10**9
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(CORE, self._copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        files = sorted(self._copy.glob("tests/test_*.py"))
        others = sorted({*self._copy.rglob("*.py")} - {*files})
        sources = b"".join(other.read_bytes() for other in others)
        for file in files:
            digest = hashlib.sha256(sources + file.read_bytes()).hexdigest()[:12]
            kept = self._folder / f"{file.stem}-{digest}.json"
            if not kept.exists():
                kept.write_text(json.dumps(self._measure(file)))
            seconds, lines = json.loads(kept.read_text())
            self._seconds |= seconds
            for path, line, tests in lines:
                self._by_line[path, line].update(tests)

    def _measure(self, file: Path) -> tuple[dict[str, float], list[Any]]:
        """Return how long each test of a file takes, and which tests run which line."""
        from coverage import Coverage

        print("measuring", file.name, flush=True)
        settings, data = self._folder / "coveragerc", self._folder / f"{file.stem}.coverage"
        settings.write_text(SETTINGS)
        times = self._folder / "seconds.json"
        times.unlink(missing_ok=True)
        variables = {"COVERAGE_PROCESS_START": str(settings), "COVERAGE_FILE": str(data)}
        self._run([f"tests/{file.name}"], variables | {_SECONDS: str(times)})
        coverage = Coverage(data_file=str(data), config_file=False)
        coverage.combine([str(part) for part in self._folder.glob(f"{data.name}.*")])
        found = coverage.get_data()
        root = f"{self._copy}/"
        lines = [
            (path.removeprefix(root), line, sorted({_PHASE.sub("", context) for context in tests}))
            for path in found.measured_files()
            for line, tests in found.contexts_by_lineno(path).items()
        ]
        return json.loads(times.read_text()), lines

    def _of(self, path: str, scopes: Iterable[set[int]]) -> list[str]:
        """Return the tests that run lines of these scopes, one after another, quick ones first."""
        ordered: list[str] = []
        for lines in scopes:
            tests = set().union(*(self._by_line[path, at] for at in lines)) - {*ordered}
            tests &= self._seconds.keys()
            ordered += sorted(tests, key=self._seconds.__getitem__)
        ordered = ordered or sorted(self._seconds, key=self._seconds.__getitem__)
        spent = accumulate(self._seconds[test] for test in ordered)
        return ordered[: sum(seconds <= MOST_SECONDS for seconds in spent)]

    def outcome(self, path: str, scopes: Iterable[set[int]], source: str) -> str:
        """Run tests with another source of a module: `killed`, `timed out` or `survived`.

        Args:
            path: The path of the module in the package.
            scopes: The changed line, and ever larger parts of the module around it. Their tests
                come first.
            source: The source.
        """
        file, tests = self._copy / path, self._of(path, scopes)
        original = file.read_text()
        try:
            self._write(file, source)
            for some in filter(None, (tests[:FIRST], tests[FIRST:])):
                outcome = self._run(some, {})
                if outcome != SURVIVED:
                    return outcome
            return SURVIVED
        finally:
            self._write(file, original)

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source)
        self._time += 10  # by a file's time, in whole seconds, Python tells whether it has changed
        os.utime(path, (self._time, self._time))

    def _run(self, tests: list[str], variables: dict[str, str]) -> str:
        chosen, output = self._folder / "chosen", self._folder / "output"
        chosen.write_text("\n".join(tests))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"@{chosen}"]
        command += ["-p", Path(__file__).stem, "--basetemp", str(self._folder / "tmp")]
        command += ["-o", f"faulthandler_timeout={HANGING}", "-o", "faulthandler_exit_on_timeout=1"]
        own = {"CI": "true", _MARKER: str(self._copy), "PYTHONDONTWRITEBYTECODE": ""}
        own["PYTHONPATH"] = os.pathsep.join([str(self._copy), str(TOOLS)])
        limit = 2 * HANGING + 3 * sum(self._seconds.get(test, 600) for test in tests)
        options: dict[str, Any] = {"cwd": self._copy, "env": os.environ | own | variables}
        options |= {"stdin": subprocess.DEVNULL, "start_new_session": True, "timeout": limit}
        try:
            with output.open("w") as stream:
                done = subprocess.run(command, stdout=stream, stderr=stream, **options)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            _end_all(str(self._copy))
        if done.returncode == 0:
            return SURVIVED
        return TIMED_OUT if "Timeout (" in output.read_text(errors="replace") else KILLED


def _end_all(marker: str) -> None:
    """Kill what a run of the tests has left, also in sessions of their own."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{_MARKER}={marker}\0".encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), SIGKILL)


_MARKER: Final = "CORE_TESTS_OF"
_SECONDS: Final = "CORE_TESTS_SECONDS"
_seconds: defaultdict[str, float] = defaultdict(float)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Tell coverage which test begins, while lines are measured."""
    if _SECONDS in os.environ:
        from coverage import Coverage

        if (current := Coverage.current()) is not None:
            current.switch_context(nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    """Add up the seconds of a test's phases. One failure kills a mutant, so it ends the tests."""
    _seconds[report.nodeid] += report.duration
    if report.failed:
        if _SECONDS not in os.environ:
            os._exit(1)  # the end of a test that failed may take minutes
        _seconds[report.nodeid] = math.inf  # it fails without a mutant, and is not used


def pytest_sessionfinish() -> None:
    """Write the seconds of the tests."""
    if _SECONDS in os.environ:
        passed = {test: seconds for test, seconds in _seconds.items() if seconds < math.inf}
        Path(os.environ[_SECONDS]).write_text(json.dumps(passed))
