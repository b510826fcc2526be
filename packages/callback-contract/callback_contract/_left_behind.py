"""Compares what a process has before and after trainings and evaluations of a callback."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any, Final
from unittest import mock

from callback_contract._case import Case
from callback_contract._process import END_TIMEOUT, captured_output, difference, leftovers
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import ContractViolation, require


def _done(
    case: Case, made: Callable[[Any], object] = lambda callback: None
) -> Iterator[tuple[str, bool]]:
    """Train and evaluate; after each, yield a description, and whether it was an evaluation.

    An evaluation, with a prediction, comes without a training, and after each. The trainings end in
    different ways. Each has a callback that `make` returns. `made` is called with it before its
    training.
    """

    def training_of_a_new_callback() -> Training:
        callback = case.make()
        made(callback)
        return case.training(callback, max_steps=6)

    training = training_of_a_new_callback()
    training.fire("on_init_end")
    _evaluate(training)
    yield "an evaluation without a training", True
    for steps, error in ((6, None), (3, OUT_OF_MEMORY), (1, KeyboardInterrupt())):
        training = training_of_a_new_callback()
        if error is None:
            training.run(save=True)
        else:
            _die(training, steps, error)
        how = "a training" if error is None else f"a training that ended with {error!r}"
        yield how, False
        _evaluate(training)
        yield f"{how} and an evaluation", True


def _evaluate(training: Training) -> None:
    with suppress(ContractViolation):  # LIF-004 and LIF-005 report errors
        training.evaluate()
        training.predict()
        training.fire("on_push_begin")


def _die(training: Training, steps: int, error: BaseException) -> None:
    """Train until `error` ends the training in the step after `steps` steps."""
    training.begin()
    for step in training.steps(save=True):
        if step == steps:
            training.fire("on_step_begin")
            training.fire("on_substep_end", loss=0.5)
            break
    training.end(error)


def _train_without_the_callback(case: Case) -> None:
    """Let torch import what it needs at the first step, which also changes settings."""
    case.training(object(), max_steps=1).run()
    case.forget_trainings()


def require_no_leftovers(
    case: Case,
    kind: str,
    read: Callable[[], set[Any]],
    read_after_evaluation: Callable[[], set[Any]] | None = None,
) -> None:
    """Require that nothing remains of what `read` returns after a training or an evaluation.

    What the hook `make` opens and passes to the callback is the user's. What the constructors of
    the callback and of its tracker open is not.
    """
    callback = case.make()  # the hook may start a store that outlives the callbacks
    kinds = {type(callback), type(getattr(callback, "tracker", callback))}
    _train_without_the_callback(case)
    before = read()
    own: set[Any] = set()

    def made(_: Any) -> None:
        before.update(read() - own)

    with captured_output(), ExitStack() as observed:
        for constructed in kinds:
            observed.enter_context(_opened_by_constructor(constructed, read, own))
        for done, is_evaluation in _done(case, made):
            late = read_after_evaluation if is_evaluation else None
            seconds = END_TIMEOUT + case.subject.stored_within * is_evaluation
            if case.is_known_deviation:  # waiting shows nothing
                seconds = _KNOWN_TO_REMAIN
            left = sorted(map(_name, leftovers(late or read, before, seconds)))
            shown = ", ".join(left[:_MOST_NAMES] + ["…"] * (len(left) > _MOST_NAMES))
            require(not left, f"after {done}, {kind} are left: {shown}")
            own.clear()
            before.clear()
            before.update(read())


@contextmanager
def _opened_by_constructor(
    kind: type, read: Callable[[], set[Any]], opened: set[Any]
) -> Iterator[None]:
    """Add to `opened` what the constructor of `kind` adds to what `read` returns."""
    construct = kind.__init__  # type: ignore[misc]

    @wraps(construct)
    def observed(*args: Any, **kwargs: Any) -> None:
        before = read()
        construct(*args, **kwargs)
        opened.update(read() - before)

    with mock.patch.object(kind, "__init__", observed):
        yield


_KNOWN_TO_REMAIN: Final = 2.0
"""Seconds to wait for what a declared deviation leaves behind."""

_MOST_NAMES: Final = 8
"""The most leftovers that a message names."""


def _name(leftover: Any) -> str:
    return leftover.name if isinstance(leftover, threading.Thread) else str(leftover)


def require_restored(case: Case, read: Callable[[], dict[str, Any]]) -> None:
    """Require that no training and no evaluation changes what `read` returns.

    The process has unusual settings before, because a callback must not reset them to defaults.
    """
    _train_without_the_callback(case)
    _make_unusual()
    with captured_output():
        before = read()
        for done, _ in _done(case):
            changed = leftovers(lambda: {*difference(before, read())}, set(), 2.0)
            names = ", ".join(sorted(changed))
            require(not changed, f"after {done}, these have changed: {names}")


def _make_unusual() -> None:
    """Change process-wide settings as a program may."""
    logging.getLogger().setLevel(logging.ERROR + 1)
    sys.excepthook = _unusual_hook
    threading.excepthook = _unusual_hook
    sys.setrecursionlimit(sys.getrecursionlimit() + 17)
    gc.set_threshold(701, 11, 12)
    socket.setdefaulttimeout(123.0)
    warnings.filterwarnings("ignore", message="a warning that the program ignores")
    os.environ["OF_THE_PROGRAM"] = "1"
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _unusual_hook)


def _unusual_hook(*_: Any) -> None:
    """Ignore an error or a signal."""
