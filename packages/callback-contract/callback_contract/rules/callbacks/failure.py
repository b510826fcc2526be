"""Failure: no error is hidden, and no service that a callback calls ends or stops a training."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import DIED, Training
from callback_contract._violation import require
from callback_contract._watching import AsInALoop

_POLICIES = ("raise", "isolate")


@rule(
    "FLT-001",
    why="A value that does not exist is found when the first error comes, hours in, if at all: an "
    "unknown COMET_MODE switches Comet off with no more than a warning (transformers 5.x).",
    mend="Set on_error to 'raise' or to 'isolate', or leave it as it is.",
)
def has_a_policy_that_exists(case: Case) -> None:
    """`on_error`, if there is one, is `raise`, `isolate` or a function."""
    chosen = getattr(case.make(), "on_error", "raise")
    require(callable(chosen) or chosen in _POLICIES, f"on_error is {chosen!r}")


@rule(
    "FLT-002",
    why="fastai formats `e.args[0]` of whatever ended the training, so that a bare assert became "
    "an IndexError (fastai 2.8). Ctrl-C and SIGTERM end trainings too.",
    mend="In on_exception, use `repr(exception)` and `isinstance(exception, Exception)` only.",
)
def takes_any_exception(case: Case) -> None:
    """`on_exception` takes any exception: one without arguments, an interrupt, an exit."""
    for error in (ValueError("no"), AssertionError(), KeyboardInterrupt(), SystemExit(143)):
        training = _begun(case)
        training.end(error)


@rule(
    "FLT-003",
    why="The error that ended a training is what its user has to see; a hook that fails or meddles "
    "masks it (pytorch/ignite#1234).",
    mend="Look at the exception and leave it; raise nothing from it, and add nothing to it.",
)
def leaves_the_error_as_it_is(case: Case) -> None:
    """The error that ended the training is unchanged after `on_exception` and `on_train_end`."""
    training = _begun(case)
    error = _raised(ValueError("the loss is not finite", 4))
    before = _content(error)
    training.end(error)
    require(_content(error) == before, f"the error became {error!r}")


@rule(
    "FLT-004",
    why="A bare except swallows Ctrl-C and SIGTERM (NVIDIA/CleanUNet#11), and a training that "
    "cannot be stopped is killed, with all that is not saved.",
    mend="Catch Exception, never BaseException, and never with a bare except.",
)
def lets_interrupts_through(case: Case) -> None:
    """A KeyboardInterrupt while a callback reads logs or metrics, or asks the model, comes out."""
    for event, keyword in (("on_log", "logs"), ("on_evaluate", "metrics")):
        training = _begun(case)
        values = _Interrupting({"loss": 0.5, "eval_loss": 0.5})
        came = False
        try:
            keywords = {**training.common(), keyword: values}
            training.call(training.callbacks[0], event, keywords)
        except KeyboardInterrupt:
            came = True
        was_read, values.was_read = values.was_read, True  # whoever has kept them reads on
        training.end(KeyboardInterrupt())
        require(came or not was_read, f"{event} swallowed a KeyboardInterrupt")
    case.live_and_stop(kind=_InterruptedModel)


@rule(
    "FLT-005",
    why="A webhook without a time limit held a training for hours when its server did not answer, "
    "and one that refused ended another (huggingface/transformers#9210, radixark/miles#2571).",
    mend="Give each call a time limit, catch its errors, and log a warning; or call in a thread.",
)
def a_service_that_is_away_costs_nothing(case: Case) -> None:
    """If no service can be reached, no event fails or pauses, and each call has a time limit.

    The training's own thread is looked at. What others do costs the training nothing.
    """
    callback = case.make()
    with _no_network() as network:
        case.training(callback, kind=AsInALoop).live()
        dies = case.training(callback, kind=AsInALoop)
        dies.begin()
        dies.end(DIED)
    endless, paused = sorted(network.endless), network.paused
    require(not endless, f"it connects without a time limit to {', '.join(endless)}")
    allowed = 1.0 + case.subject.flush_limit if case.subject_is_a_tracker else 1.0
    tried = network.tried
    require(not tried or paused <= allowed, f"the training paused for {paused:g} s in all")


@rule(
    "FLT-006",
    needs=("unreachable",),
    why="Trackers' outages ended trainings after hours (Lightning-AI/pytorch-lightning#6641, "
    "huggingface/transformers#8849, wandb/wandb#5873), 15 hours of eight GPUs in one case "
    "(radixark/miles#2571).",
    mend="Set `on_error = 'isolate'` on the class, or catch the errors of the service.",
)
def an_outage_does_not_end_a_training(case: Case) -> None:
    """A training whose callback cannot reach its service runs to its end."""
    case.training(case.subject.make_unreachable(case.output_dir), kind=AsInALoop).live()


class _InterruptedModel(Training):
    """A training in which Ctrl-C is pressed whenever a callback asks the model."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        asked: list[bool] = []

        def interrupt(*_: Any) -> None:
            asked.append(True)
            raise KeyboardInterrupt

        hook = getattr(self.model, "register_forward_pre_hook", None)
        handle = hook(interrupt) if hook is not None else None
        try:
            return super().call(callback, event, keywords)
        except KeyboardInterrupt:
            asked.clear()
        finally:
            if handle is not None:
                handle.remove()
            name = f"{type(callback).__name__}.{event}"
            require(not asked, f"{name} swallowed a KeyboardInterrupt while it asked the model")


class _Interrupting(dict[str, Any]):
    """Values. Reading the first one is interrupted by Ctrl-C."""

    was_read = False

    def _interrupt_once(self) -> None:
        if not self.was_read:
            self.was_read = True
            raise KeyboardInterrupt

    def __getitem__(self, name: str) -> Any:
        self._interrupt_once()
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        self._interrupt_once()
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        self._interrupt_once()
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._interrupt_once()
        return super().get(name, default)

    def items(self) -> Any:
        self._interrupt_once()
        return super().items()

    def keys(self) -> Any:
        self._interrupt_once()
        return super().keys()

    def values(self) -> Any:
        self._interrupt_once()
        return super().values()

    def copy(self) -> dict[str, Any]:
        self._interrupt_once()
        return dict(self)


def _begun(case: Case) -> Training:
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    return training


def _raised(error: Exception) -> Exception:
    """Return `error` with a traceback and a cause."""
    try:
        raise error from OSError("the disk is full")
    except Exception as caught:
        return caught


def _content(error: BaseException) -> tuple[Any, ...]:
    parts = (type(error), error.args, error.__traceback__, error.__cause__, error.__context__)
    return (*parts, {**vars(error)})


class _Network:
    """What the training's thread asks of a network on which nothing can be reached."""

    def __init__(self) -> None:
        self.tried = False
        self.endless: set[str] = set()
        self.paused = 0.0


_CURRENT: Final = threading.local()
_HOOKED: Final[list[bool]] = []


@contextmanager
def _no_network() -> Iterator[_Network]:
    """Refuse this thread's connections, and have its pauses pass at once.

    Python tells an audit hook of each connection. A hook cannot be removed, so there is one, which
    does nothing outside of these blocks. Names resolve to this machine, so that each is tried.
    """
    if not _HOOKED:
        _HOOKED.append(True)
        sys.addaudithook(_refuse)
    resolve, sleep = socket.getaddrinfo, time.sleep

    def resolve_here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(_CURRENT, "network"):
            return resolve(host, port, *args, **kwargs)
        number = port if isinstance(port, int) else 80
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", number))]

    def pause(seconds: Any) -> None:
        if hasattr(_CURRENT, "network"):
            _CURRENT.network.paused += seconds
        else:
            sleep(seconds)

    _CURRENT.network = _Network()
    socket.getaddrinfo, time.sleep = resolve_here, pause
    try:
        yield _CURRENT.network
    finally:
        socket.getaddrinfo, time.sleep = resolve, sleep
        del _CURRENT.network


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not hasattr(_CURRENT, "network"):
        return
    connection, address = arguments
    if getattr(connection, "family", None) in (socket.AF_INET, socket.AF_INET6):
        _CURRENT.network.tried = True
        if connection.gettimeout() is None:
            _CURRENT.network.endless.add(str(address))
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
