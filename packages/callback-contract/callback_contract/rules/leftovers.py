"""Leftovers: when a training has ended, the process is as it was."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callback_contract._case import Case
from callback_contract._rule import require, rule
from callback_contract._watching import (
    children,
    files_below,
    open_files,
    silence,
    threads,
    what_stays,
)


@rule(
    "LEF-001",
    why="A tracker's thread that goes on keeps the interpreter from ending: MLflow's freezes at"
    " exit (mlflow/mlflow#12402), ClearML's close() never returns where its server hangs.",
    mend="Stop in on_train_end the threads that on_train_begin has started, and join them.",
)
def leaves_no_thread(case: Case) -> None:
    """No thread that was started in a training is there after it."""
    before = threads()
    _train(case)
    left = what_stays(threads, before)
    require(not left, f"threads are left: {', '.join(thread.name for thread in left)}")


@rule(
    "LEF-002",
    why="A tracker's process stayed after the training script had ended, and Ctrl-C did not end"
    " it (wandb/wandb#5187).",
    mend="End in on_train_end the processes that on_train_begin has started, and wait for them.",
)
def leaves_no_process(case: Case) -> None:
    """No process that was started in a training is there after it."""
    before = children()
    _train(case)
    left = what_stays(children, before)
    require(not left, f"processes are left: {', '.join(map(str, sorted(left)))}")


@rule(
    "LEF-003",
    why="A run id that something had left in the environment sent the next training to a run "
    "that did not exist (mlflow/mlflow#8877).",
    mend="Hand settings to the SDK as arguments, or put the variables back in on_train_end.",
)
def leaves_the_environment(case: Case) -> None:
    """Environment variables are after a training what they were before."""
    before = dict(os.environ)
    try:
        _train(case)
        after = dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    require(not changed, f"environment variables changed: {', '.join(changed)}")


@rule(
    "LEF-004",
    why="A loop that saves at SIGTERM never hears of it where a tracker's handler has taken its"
    " place (clearml/clearml-agent#20).",
    mend="Leave signals to the loop, which fires on_exception; or put the handler back.",
)
def leaves_signal_handlers(case: Case) -> None:
    """The handlers of signals are after a training what they were before."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    _train(case)
    changed = {number: was for number, was in before.items() if signal.getsignal(number) != was}
    if threading.current_thread() is threading.main_thread():
        for number, was in changed.items():
            if was is not None:  # which is one that was not set from Python
                signal.signal(number, was)
    names = ", ".join(signal.Signals(number).name for number in sorted(changed))
    require(not changed, f"it left a handler of {names}")


@rule(
    "LEF-005",
    why="Composer's MLflow logger takes sys.excepthook to learn of a crash; of two that do, the"
    " first is lost, and a debugger's with it.",
    mend="Learn of errors from on_exception; or put the hook back in on_train_end.",
)
def leaves_the_hooks_of_errors(case: Case) -> None:
    """`sys.excepthook` and `threading.excepthook` are after a training what they were before."""
    before = sys.excepthook, threading.excepthook
    try:
        _train(case)
        after = sys.excepthook, threading.excepthook
    finally:
        sys.excepthook, threading.excepthook = before
    require(before == after, "it left a hook for errors")


@rule(
    "LEF-006",
    why="TensorBoardCallback writes to ./runs, wherever the program was started, when a model "
    "is evaluated before any training (transformers 5.23.0).",
    mend="Write below args.output_dir, at every event.",
)
def writes_no_files_elsewhere(case: Case) -> None:
    """Nothing is written to the working directory, by an evaluation or a training."""
    elsewhere = case.output_dir.parent / "elsewhere"
    elsewhere.mkdir()
    was, path = os.getcwd(), [*sys.path]
    sys.path[:] = map(os.path.abspath, path)  # what is imported only now is found from there too
    os.chdir(elsewhere)
    try:
        with silence():
            training = case.training()
            training.fire("on_init_end")
            training.evaluate()
            training.run()
    finally:
        os.chdir(was)
        sys.path[:] = path
    found = sorted(path.name for path in elsewhere.iterdir())
    require(not found, f"it wrote {', '.join(found)} to the working directory")


@rule(
    "LEF-007",
    why="A search of hundreds of trials in one process runs out of descriptors: the writer that"
    " TensorBoardCallback opens after a training is never closed (transformers 5.23.0).",
    mend="Close in on_train_end the files and connections that are open.",
)
def leaves_no_file_open(case: Case) -> None:
    """No file or connection that was opened in a training is open after it."""
    before = open_files()
    _train(case)
    left = what_stays(open_files, before)
    require(not left, f"left open: {', '.join(sorted(left))}")


@rule(
    "LEF-008",
    why="A tracker's handler on the loggers printed every line of the program a second time "
    "(tornede/py_experimenter#58).",
    mend="Log to `logging.getLogger(__name__)`, and leave handlers and levels to the program.",
)
def leaves_logging(case: Case) -> None:
    """The root logger has after a training the handlers and the level that it had before."""
    root = logging.getLogger()
    before: tuple[list[Any], int] = ([*root.handlers], root.level)
    try:
        _train(case)
        after = ([*root.handlers], root.level)
    finally:
        root.handlers[:], root.level = before
    require(before == after, "the root logger's handlers or level changed")


@rule(
    "LEF-009",
    since=(1, 1),
    why="Disks fill up: a copy of each checkpoint stays in the directory for temporary files where"
    " ClearML's `update_weights_package` does not upload in the background (clearml 2.1.12).",
    mend="Put temporary files into a `tempfile.TemporaryDirectory` that ends with the call.",
)
def leaves_no_temporary_file(case: Case) -> None:
    """No file that a training has put into the directory for temporary files is there after it."""
    with _temporary_directory(case.output_dir.parent / "tmp") as folder:
        _train(case)
        left = what_stays(lambda: {*files_below(folder)}, set())
    require(not left, f"temporary files are left: {', '.join(sorted(left))}")


@contextmanager
def _temporary_directory(folder: Path) -> Iterator[Path]:
    """Have `folder`, which is made, hold the temporary files of this process and its children."""
    folder.mkdir()
    directory, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = directory
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def _train(case: Case) -> None:
    """Train as a program does whose output goes to a file: without bars and their threads."""
    with silence():
        case.training().live()
