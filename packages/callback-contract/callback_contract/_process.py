"""What all code of a process shares: looked at by rules, and put back when a rule has ended."""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import gc
import io
import locale
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

_PATIENCE: Final = 30.0
"""Seconds in which what a training has started may end after it."""


class Switch(NamedTuple):
    """Something that a program switches for the whole process.

    Attributes:
        get: Returns its state.
        put: Puts a state back.
    """

    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> Switch:
    return Switch(partial(getattr, owner, name), partial(setattr, owner, name))


def _list(owner: Any, name: str) -> Switch:
    """Return the switch of a list that is changed in place."""

    def put(items: list[Any]) -> None:
        if getattr(owner, name) != items:
            getattr(owner, name)[:] = items

    return Switch(lambda: [*getattr(owner, name)], put)


def _pair(get: Callable[[], Any], put: Callable[[Any], Any]) -> Switch:
    return Switch(get, lambda state: None if get() == state else put(state))


SWITCHES: Final = {
    "the working directory": _pair(lambda: _working_directory(), lambda path: _change_to(path)),
    "sys.path": _list(sys, "path"),
    "sys.stdout": _attribute(sys, "stdout"),
    "sys.stderr": _attribute(sys, "stderr"),
    "sys.setrecursionlimit": _pair(sys.getrecursionlimit, sys.setrecursionlimit),
    "sys.setswitchinterval": _pair(sys.getswitchinterval, sys.setswitchinterval),
    "sys.settrace": _pair(sys.gettrace, sys.settrace),
    "sys.setprofile": _pair(sys.getprofile, sys.setprofile),
    "threading.settrace": _pair(threading.gettrace, threading.settrace),
    "threading.setprofile": _pair(threading.getprofile, threading.setprofile),
    "warnings.filters": _list(warnings, "filters"),
    "warnings.showwarning": _attribute(warnings, "showwarning"),
    "gc.enable": _pair(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "gc.set_threshold": _pair(gc.get_threshold, lambda found: gc.set_threshold(*found)),
    "gc.callbacks": _list(gc, "callbacks"),
    "tracemalloc.start": _pair(
        tracemalloc.is_tracing, lambda on: tracemalloc.start() if on else tracemalloc.stop()
    ),
    "faulthandler.enable": Switch(faulthandler.is_enabled, lambda on: None),
    "socket.setdefaulttimeout": _pair(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "locale.setlocale": _pair(
        lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)
    ),
    "builtins.print": _attribute(builtins, "print"),
    "builtins.open": _attribute(builtins, "open"),
    "time.time": _attribute(time, "time"),
    "time.sleep": _attribute(time, "sleep"),
}
"""The switches of the interpreter that a training must leave as they are."""

HOOKS: Final = {
    "sys.excepthook": _attribute(sys, "excepthook"),
    "sys.unraisablehook": _attribute(sys, "unraisablehook"),
    "threading.excepthook": _attribute(threading, "excepthook"),
}
"""The hooks that see errors which nobody catches."""


def library_switches() -> dict[str, Switch]:
    """Return the switches of torch and numpy, if they are loaded."""
    found: dict[str, Switch] = {}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:
        precision = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
        algorithms = torch.are_deterministic_algorithms_enabled
        anomaly = torch.autograd.set_detect_anomaly
        found = {
            "torch.set_grad_enabled": _pair(torch.is_grad_enabled, torch.set_grad_enabled),
            "torch.autograd.set_detect_anomaly": _pair(torch.is_anomaly_enabled, anomaly),
            "torch.set_default_dtype": _pair(torch.get_default_dtype, torch.set_default_dtype),
            "torch.set_num_threads": _pair(torch.get_num_threads, torch.set_num_threads),
            "torch.set_float32_matmul_precision": _pair(*precision),
            "torch.use_deterministic_algorithms": _pair(
                algorithms, torch.use_deterministic_algorithms
            ),
            "torch.backends.cudnn.benchmark": _attribute(torch.backends.cudnn, "benchmark"),
            "torch.backends.cudnn.deterministic": _attribute(torch.backends.cudnn, "deterministic"),
            "torch.autograd.profiler": Switch(
                torch._C._autograd._profiler_enabled,  # noqa: SLF001
                lambda on: None,
            ),
        }
    if numpy is not None:
        found["numpy.seterr"] = _pair(numpy.geterr, lambda state: numpy.seterr(**state))
    return found


def states(switches: Mapping[str, Switch]) -> dict[str, Any]:
    """Return the states of switches by their names."""
    return {name: switch.get() for name, switch in switches.items()}


def logging_state() -> dict[str, Any]:
    """Return the handlers and levels of all loggers, without those that are as they are made."""
    return {
        name or "logging.disable": state for name, state in _loggers().items() if state != ([], 0)
    }


def signal_handlers() -> dict[str, Any]:
    """Return the handlers of all signals that are set from Python."""
    return {f"signal {n:d}": signal.getsignal(n) for n in sorted(signal.valid_signals())}


def generators() -> dict[str, Any]:
    """Return where the global random generators are, in a form that can be compared."""
    found: dict[str, Any] = {"random": random.getstate()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        found["numpy.random"] = repr(numpy.random.get_state(legacy=False))
    if torch is not None:
        found["torch"] = bytes(torch.get_rng_state().tolist())
    return found


def seed_generators() -> None:
    """Set the global random generators to the same state each time."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    random.seed(7)
    if numpy is not None:
        numpy.random.seed(7)
    if torch is not None:
        torch.manual_seed(7)


def threads() -> set[threading.Thread]:
    """Return the threads of this process, without tqdm's own, which is one for the process."""
    return {t for t in threading.enumerate() if type(t).__name__ != "TMonitor"}


def children() -> set[int]:
    """Return the processes that this one has started, if the system tells."""
    from multiprocessing import active_children, resource_tracker

    known = {child.pid for child in active_children() if child.pid is not None}
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            known |= {int(pid) for pid in listed.read_text().split()}
    tracker: Any = resource_tracker._resource_tracker  # Python's own, one for a process  # noqa: SLF001
    return known - {tracker._pid}  # noqa: SLF001


def open_files() -> set[str]:
    """Return the open descriptors and what they are open on, if the system tells."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # that of this listing
            found.add(f"{descriptor.name}: {os.readlink(descriptor)}")
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Return all files below `folder` with their content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def what_stays(look: Callable[[], set[Any]], before: set[Any]) -> set[Any]:
    """Return what is there on top of `before`, once it has had time to end."""
    until = time.monotonic() + _PATIENCE
    while (more := look() - before) and time.monotonic() < until:
        gc.collect()  # what is in a cycle has ended, but is still there
        time.sleep(0.02)
    return more


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names whose values differ."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name] != after[name]
    )


@contextmanager
def silence() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Take standard output and standard error, as pipes would."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        yield output, error


@contextmanager
def log_messages() -> Iterator[list[str]]:
    """Collect what is logged in the block, with tracebacks."""
    messages: list[str] = []
    handler = logging.Handler()
    formatter = logging.Formatter()
    handler.emit = lambda record: messages.append(formatter.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def temporary_directory(folder: Path) -> Iterator[Path]:
    """Make `folder`, and have it hold the temporary files of this process and its children."""
    folder.mkdir()
    directory, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = directory
        if variable is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = variable


@contextmanager
def process_put_back() -> Iterator[None]:
    """Put back what the block changes of what all code of a process shares."""
    switches = {**SWITCHES, **HOOKS, **library_switches(), **_generator_switches()}
    before, variables, loggers = states(switches), dict(os.environ), _loggers()
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    if "torch" in sys.modules:  # which uses a thread for each core, and models here are tiny
        sys.modules["torch"].set_num_threads(1)
    try:
        yield
    finally:
        for name, switch in switches.items():
            switch.put(before[name])
        if os.environ != variables:
            os.environ.clear()
            os.environ.update(variables)
        logging.disable(loggers.pop("", (0, 0))[1])
        logging.root.handlers[:] = loggers["root"][0]  # an SDK's own are its affair
        for name, (_, level) in loggers.items():
            logging.getLogger(name).setLevel(level)
        if threading.current_thread() is threading.main_thread():
            for number, was in signals.items():
                if was is not None and signal.getsignal(number) is not was:
                    signal.signal(number, was)


def _loggers() -> dict[str, tuple[Any, int]]:
    """Return the handlers and the level of each logger; under the empty name, what is disabled."""
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    found: dict[str, tuple[Any, int]] = {
        logger.name: ([*logger.handlers], logger.level)
        for logger in known
        if isinstance(logger, logging.Logger)
    }
    return {"": (None, logging.Logger.manager.disable), **found}


def _generator_switches() -> dict[str, Switch]:
    found = {"random": Switch(random.getstate, random.setstate)}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:
        found["torch"] = Switch(torch.get_rng_state, torch.set_rng_state)
    if numpy is not None:
        found["numpy"] = Switch(
            lambda: numpy.random.get_state(legacy=False), numpy.random.set_state
        )
    return found


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return ""


def _change_to(path: str) -> None:
    with suppress(FileNotFoundError):  # the block has deleted it
        os.chdir(path)
