"""Process-wide state: rules compare it, and it is restored after each rule."""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import gc
import io
import locale
import logging
import math
import os
import pickle
import random
import signal
import socket
import stat
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
from unittest import mock

END_TIMEOUT: Final = 30.0
"""Seconds that threads, processes and files of a training get to end after it."""

_BETWEEN_COLLECTIONS: Final = 2.0
"""Seconds between two garbage collections while something is waited for."""


class Switch(NamedTuple):
    """A setting of the whole process.

    Attributes:
        get: Returns its value.
        put: Restores a value.
    """

    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> Switch:
    return Switch(partial(getattr, owner, name), partial(setattr, owner, name))


def _list(owner: Any, name: str) -> Switch:
    """Return the switch of a list that programs change in place."""

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
"""The settings of the interpreter that a training must restore."""

HOOKS: Final = {
    "sys.excepthook": _attribute(sys, "excepthook"),
    "sys.unraisablehook": _attribute(sys, "unraisablehook"),
    "threading.excepthook": _attribute(threading, "excepthook"),
}
"""The hooks for uncaught errors."""


OF_THE_LOOP: Final = ("torch.set_grad_enabled", "torch.set_default_dtype", "numpy.seterr")
"""Settings that change what the loop computes. A callback may change others for a training."""


def library_switches() -> dict[str, Switch]:
    """Return the settings of torch and numpy, if they are loaded."""
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


def generator_switches() -> dict[str, Switch]:
    """Return switches of the global random generators. Their values can be compared."""
    found = {"random": Switch(random.getstate, random.setstate)}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:
        found["torch"] = Switch(
            lambda: torch.get_rng_state().tolist(),
            lambda state: torch.set_rng_state(torch.tensor(state, dtype=torch.uint8)),
        )
    if numpy is not None:
        found["numpy.random"] = Switch(
            lambda: pickle.dumps(numpy.random.get_state(legacy=False)),
            lambda state: numpy.random.set_state(pickle.loads(state)),
        )
    return found


def seed_generators() -> None:
    """Seed the global random generators with a constant."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    random.seed(7)
    if numpy is not None:
        numpy.random.seed(7)
    if torch is not None:
        torch.manual_seed(7)


def values_of(switches: Mapping[str, Switch]) -> dict[str, Any]:
    """Return the values of switches by name."""
    return {name: switch.get() for name, switch in switches.items()}


def logging_state() -> dict[str, Any]:
    """Return the handlers and the level of each logger, except those with the defaults.

    A handler that does nothing is left out. Libraries add it to their loggers, and some define its
    class themselves.
    """
    found: dict[str, Any] = {}
    for name, (handlers, level) in _loggers().items():
        effective = [
            one for one in handlers or () if type(one).__name__.lstrip("_") != "NullHandler"
        ]
        if effective or level:
            found[name or "logging.disable"] = (effective, level)
    return found


def logger_names() -> set[str]:
    """Return the names of all loggers."""
    return {name or "logging.disable" for name in _loggers()}


def signal_handlers() -> dict[str, Any]:
    """Return the handlers of all signals."""
    return {f"signal {n:d}": signal.getsignal(n) for n in sorted(signal.valid_signals())}


def threads() -> set[threading.Thread]:
    """Return the threads of this process, except the monitor that tqdm starts once."""
    return {t for t in threading.enumerate() if type(t).__name__ != "TMonitor"}


def children() -> set[int]:
    """Return the ids of the processes that this one started, if the system lists them."""
    from multiprocessing import active_children, resource_tracker

    known = {child.pid for child in active_children() if child.pid is not None}
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            known |= {int(pid) for pid in listed.read_text().split()}
    tracker: Any = resource_tracker._resource_tracker  # Python starts it once  # noqa: SLF001
    return known - {tracker._pid}  # noqa: SLF001


def running_children() -> set[int]:
    """Return `children` without those that have ended and that nobody has waited for."""
    running = set()
    for child in children():
        with suppress(OSError):  # it has ended
            status = Path(f"/proc/{child}/stat").read_text()
            if not status.rpartition(") ")[2].startswith("Z"):
                running.add(child)
    return running


def open_files() -> set[str]:
    """Return the open file descriptors and their targets, if the system lists them."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # the descriptor of this listing is closed by now
            found.add(f"{descriptor.name}: {os.readlink(descriptor)}")
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below `folder`; nothing for a socket or a pipe.

    Another thread may delete some meanwhile.
    """
    found: dict[str, bytes] = {}
    for directory, _, names in os.walk(folder):  # which skips a directory that has just gone
        for name in names:
            path = os.path.join(directory, name)  # rules read many files; a Path is slow
            with suppress(FileNotFoundError):
                is_file = stat.S_ISREG(os.stat(path).st_mode)
                content = Path(path).read_bytes() if is_file else b""
                found[os.path.relpath(path, folder).replace(os.sep, "/")] = content
    return dict(sorted(found.items()))


def leftovers(read: Callable[[], set[Any]], before: set[Any], seconds: float) -> set[Any]:
    """Wait for everything that is not in `before` to end, and return what remains."""
    begun, collected = time.monotonic(), -math.inf
    while (remaining := read() - before) and (now := time.monotonic()) < begun + seconds:
        # Objects in reference cycles are closed only when they are collected. With a large SDK,
        # that takes half a second, in which no other thread runs.
        if now >= collected + _BETWEEN_COLLECTIONS:
            gc.collect()
            collected = time.monotonic()
        time.sleep(0.02)
    return remaining


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names that have different values, or that only one of the two has."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name] != after[name]
    )


@contextmanager
def captured_output() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Capture standard output and standard error in the block, like pipes."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        yield output, error


@contextmanager
def log_messages() -> Iterator[list[str]]:
    """Collect the log messages of the block, with tracebacks."""
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
    """Create `folder`, and use it for temporary files of this process and its children."""
    folder.mkdir()
    with (
        mock.patch.dict(os.environ, TMPDIR=str(folder)),
        mock.patch.object(tempfile, "tempdir", str(folder)),
    ):
        yield folder


@contextmanager
def restored_process() -> Iterator[None]:
    """Restore the process-wide state at the end of the block."""
    switches = {**SWITCHES, **HOOKS, **library_switches(), **generator_switches()}
    before, variables, loggers = values_of(switches), dict(os.environ), _loggers()
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    if "torch" in sys.modules:  # a thread per core only slows the tiny models here down
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
        logging.root.handlers[:] = loggers["root"][0]  # an SDK keeps the handlers of its loggers
        for name, (_, level) in loggers.items():
            if (logger := logging.getLogger(name)).level != level:  # setting it is slow
                logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            for number, handler in signals.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _loggers() -> dict[str, tuple[Any, int]]:
    """Return the handlers and the level of each logger. The empty name has `logging.disable`."""
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    found: dict[str, tuple[Any, int]] = {
        logger.name: ([*logger.handlers], logger.level)
        for logger in known
        if isinstance(logger, logging.Logger)
    }
    return {"": (None, logging.Logger.manager.disable), **found}


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the directory was deleted
        return ""


def _change_to(path: str) -> None:
    with suppress(FileNotFoundError):  # the block deleted the directory
        os.chdir(path)
