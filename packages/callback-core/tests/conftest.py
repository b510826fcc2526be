"""What holds for every test: nothing that it starts reaches the next, and nothing hurries it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from hypothesis import settings
from run_for_tests import Run
from tqdm import TMonitor
from tracking_for_tests import LET_GO, eventually, processes_about

settings.load_profile("ci")  # the same examples in each run, and no deadline
# tqdm's lock starts this process from Python 3.14 on. It lasts until the tests end.
resource_tracker.ensure_running()


def started() -> set[threading.Thread | str]:
    """Return the threads of this process, but for tqdm's own, and its child processes."""
    found: set[threading.Thread | str] = {
        thread for thread in threading.enumerate() if not isinstance(thread, TMonitor)
    }
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found |= {f"process {pid}" for pid in listed.read_text().split()}
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The file of a tracker."""
    return tmp_path / "tracker.jsonl"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The file of a second tracker."""
    return tmp_path / "other.jsonl"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose journal is written by hand."""
    return Run(tmp_path)


@pytest.fixture(autouse=True)
def nothing_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for what a test has started; a thread, or a process, that does not end is an error."""
    before = started()
    uses_a_folder = "tmp_path" in request.fixturenames
    folder: Path | None = request.getfixturevalue("tmp_path") if uses_a_folder else None

    def left() -> set[threading.Thread | str]:
        # A process that a killed one has left is a child of nobody here, but names the folder.
        elsewhere = processes_about(folder) if folder else []
        return started() - before | {f"process {pid}" for pid in elsewhere}

    yield
    LET_GO.set()
    ended = eventually(lambda: not left())
    LET_GO.clear()
    assert ended, f"{request.node.name} has left {left()}"
