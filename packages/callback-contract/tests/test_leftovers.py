"""Leftovers: what the rules count as left behind, and what they do not."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

import pytest

from callback_contract import CallbackContract, _left_behind, check
from callback_contract._process import files_below
from callback_core import TrainerCallback


def outcome(callback: type[TrainerCallback], rule: str, folder: Path) -> str:
    """Check one rule for a callback of a class, and return its outcome."""
    members = {"__test__": False, "contract": (2, 0), "make": lambda self, output_dir: callback()}
    [result] = check(type("Suite", (CallbackContract,), members), folder, [rule])
    return result.outcome


class _NullHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Do nothing."""


class LibraryWarning(UserWarning):
    """A warning of a library's own class."""


class ImportsALibrary(TrainerCallback):
    """Does to loggers and warnings what the import of a library does."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        warnings.simplefilter("ignore", LibraryWarning)
        logger = logging.getLogger("a_library_of_the_sdk")
        logger.addHandler(logging.NullHandler())
        logger.addHandler(_NullHandler())
        logger.setLevel(logging.WARNING)


class AddsAHandler(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logging.getLogger("its_own_new_logger").addHandler(logging.StreamHandler())


class HidesWarnings(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        warnings.simplefilter("ignore", UserWarning)


class SetsALevel(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logging.getLogger("of_the_program").setLevel(logging.ERROR)


@pytest.mark.parametrize("rule", ["LEF-008", "LEF-010"])
def test_a_library_that_is_imported_late_may_configure_what_is_its_own(
    rule: str, tmp_path: Path
) -> None:
    assert outcome(ImportsALibrary, rule, tmp_path) == "kept"


@pytest.mark.parametrize(
    ("callback", "rule"),
    [(AddsAHandler, "LEF-008"), (SetsALevel, "LEF-008"), (HidesWarnings, "LEF-010")],
)
def test_a_handler_the_level_of_a_known_logger_and_a_filter_may_not_change(
    callback: type[TrainerCallback], rule: str, tmp_path: Path
) -> None:
    logging.getLogger("of_the_program")
    assert outcome(callback, rule, tmp_path) == "broken"


class StartsAProgramAtAnEvaluation(TrainerCallback):
    """Starts a program at each evaluation, and waits for all of them when the training ends."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started.append(subprocess.Popen([sys.executable, "-c", ""]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for program in self.started:
            program.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_program_that_ends_after_an_evaluation_is_not_left(tmp_path: Path) -> None:
    assert outcome(StartsAProgramAtAnEvaluation, "LEF-002", tmp_path) == "kept"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no such sockets")
def test_a_socket_counts_as_a_file_without_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("its.sock")
        assert files_below(tmp_path) == {"its.sock": b""}


class WritesToAFile(TrainerCallback):
    def __init__(self, file: TextIO) -> None:
        self.file = file

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.file.write("a line\n")


class OpensAFile(WritesToAFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path.open("a"))


class HasATracker(TrainerCallback):
    def __init__(self, tracker: OpensAFile) -> None:
        self.tracker = tracker


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list files")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda self, folder: WritesToAFile((folder / "log.txt").open("a")), "kept"),
        (lambda self, folder: OpensAFile(folder / "log.txt"), "broken"),
        (lambda self, folder: HasATracker(OpensAFile(folder / "log.txt")), "broken"),
    ],
)
def test_a_file_that_the_user_opens_for_the_callback_is_not_left_by_it(
    make: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_left_behind, "END_TIMEOUT", 0.1)
    members = {"__test__": False, "contract": (2, 0), "make": make, "stored_within": 0.0}
    [result] = check(type("Suite", (CallbackContract,), members), tmp_path, ["LEF-007"])
    assert result.outcome == expected, result.message


class StartsAProgramAtAPrediction(TrainerCallback):
    """Starts a program at each prediction, and waits for it when another one begins."""

    program: subprocess.Popen[bytes] | None = None

    def on_predict(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        if self.program is not None:
            self.program.wait()
        self.program = subprocess.Popen([sys.executable, "-c", ""])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_program_that_ends_after_a_prediction_is_not_left_by_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_left_behind, "END_TIMEOUT", 2.0)
    assert outcome(StartsAProgramAtAPrediction, "LEF-002", tmp_path) == "kept"


def test_a_variable_that_make_sets_for_its_server_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORT_OF_THE_SERVER", raising=False)

    def make(self: Any, output_dir: Path) -> Any:
        os.environ.setdefault("PORT_OF_THE_SERVER", "4711")
        return TrainerCallback()

    members = {"__test__": False, "contract": (2, 0), "make": make}
    [result] = check(type("Suite", (CallbackContract,), members), tmp_path, ["LEF-003"])
    assert result.outcome == "kept", result.message
