"""What the rules for trackers ask: what the store holds, and which warnings came meanwhile."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._ending import is_of_an_earlier_rule
from callback_contract._registry import rule
from callback_contract._subject import PRECISIONS, RecordedRun
from callback_contract._training import Training
from callback_contract._violation import ContractViolation, require

tracker_rule = partial(rule, of_trackers=True)
"""`rule`, for what only trackers are asked."""

LOSSES: Final = (0.1 + 1 / 3, 2e-5, 123456.789, -1e-12, 7 / 9, 0.05)
"""Losses of a training in turn: none is the same once it is rounded."""


class Stored:
    """What the store holds of the trainings of a case, read once.

    Attributes:
        runs: The runs, oldest first.
        parameters: The parameters of all runs, as strings.
    """

    def __init__(self, case: Case) -> None:
        self.runs = case.runs()
        self.parameters = {n: str(v) for run in self.runs for n, v in run.parameters.items()}
        self._case = case
        self._stored_name = case.subject.stored_name
        self._tolerance = PRECISIONS[case.subject.precision]

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return the points that were logged as `name`, of all runs."""
        title = self._stored_name(name)
        return [(at, v) for run in self.runs for at, v in run.points.get(title, ())]

    def text(self, name: str) -> list[tuple[int, str]]:
        """Return the strings that were logged as `name`, of all runs."""
        title = self._stored_name(name)
        return [(at, v) for run in self.runs for at, v in run.text.get(title, ())]

    def has(self, name: str, step: int, value: float) -> bool:
        """Return whether `value`, logged as `name` at `step`, is stored."""
        return any(at == step and self._is(value, kept) for at, kept in self.points(name))

    def in_summary(self, name: str, value: float) -> bool:
        """Return whether a run has `value`, logged as `name`, among what it has one of."""
        ends = (name, name.removeprefix("train_"), self._stored_name(name))
        return any(
            title.endswith(ends) and self._is(value, kept)
            for run in self.runs
            for title, kept in run.summary.items()
        )

    def of(self, run: RecordedRun, name: str) -> list[tuple[int, float]]:
        """Return the points of one run that were logged as `name`."""
        return list(run.points.get(self._stored_name(name), ()))

    def names_at(self, step: int, value: float) -> list[str]:
        """Return the names under which `value` is stored at `step`."""
        return [
            name
            for run in self.runs
            for name, points in run.points.items()
            if any(at == step and self._is(value, kept) for at, kept in points)
        ]

    def _is(self, value: float, kept: Any) -> bool:
        return same(value, kept, self._tolerance)

    def parameter(self, name: str) -> str | None:
        """Return a parameter as a string, `None` if it is not there.

        The store may put something before its name: `args/learning_rate`.
        """
        return parameter_of(self.parameters, name)

    def require(self, name: str, step: int, value: float) -> None:
        """Raise `ContractViolation` unless `value` is stored at `step`."""
        if self.has(name, step, value):
            return
        title, others = self._stored_name(name), self.names_at(step, value)
        if not self.points(name) and others:
            author = type(self._case.subject).__name__
            raise ContractViolation(
                f"{name!r} is stored as {others[0]!r}, where {title!r} was looked for: "
                f"{author} needs the hook `stored_name`",
                cause=f"{author} needs the hook `stored_name`",
            )
        found = self.points(name)
        names = sorted({name for run in self.runs for name in run.points})
        rounded = any(at == step and _is_near(value, kept) for at, kept in found)
        cause = (
            "its store does not keep numbers as exactly as `precision` claims" if rounded else None
        )
        raise ContractViolation(
            f"{name}={value!r} was logged at step {step}; as {title!r} the store of "
            f"{len(self.runs)} runs has {found[:12] or 'nothing'}, and it has the names "
            f"{names[:12]}",
            cause if names else "its store holds no points",
        )

    def require_losses(self, *losses: float, first: int = 1) -> None:
        """Require that these losses are stored, of the steps from `first` on."""
        for step, loss in enumerate(losses, first):
            self.require("loss", step, loss)

    def require_all_of(self, training: Training) -> None:
        """Require that all is stored that `training` has logged, as points or in a summary."""
        for log in training.state.log_history:
            for name, value in log.items():
                if name not in ("epoch", "step") and not self.in_summary(name, value):
                    self.require(name, log["step"], value)

    def require_once(self, *names: str) -> None:
        """Require that no run has two points of a step among those logged under these names."""
        for name in names:
            for run in self.runs:
                steps = [step for step, _ in self.of(run, name)]
                twice = sorted({step for step in steps if steps.count(step) > 1})
                require(
                    not twice,
                    f"{name!r} was logged once at each step, and is stored more than once at the "
                    f"steps {twice[:8]}: {self.of(run, name)[:12]}",
                )


def parameter_of(parameters: Mapping[str, Any], name: str) -> str | None:
    """Return a parameter as a string; the store may put something before its name."""
    if name in parameters:
        return str(parameters[name])
    ends = (f"/{name}", f".{name}", f"|{name}")
    return next((str(v) for n, v in parameters.items() if n.endswith(ends)), None)


def same(value: float, kept: Any, tolerance: float = PRECISIONS["single"]) -> bool:
    """Return whether a store has kept `value`, to this relative tolerance."""
    if isinstance(kept, (int, float)) and kept == value:
        return True
    try:
        number = float(kept)
    except (TypeError, ValueError, OverflowError):
        return False
    if math.isnan(value):
        return math.isnan(number)
    if math.isinf(value) or value == 0 or not tolerance:
        return number == value
    return math.isclose(value, number, rel_tol=tolerance)


def _is_near(value: float, kept: Any) -> bool:
    """Return whether `kept` is what rounding to some digits makes of `value`."""
    try:
        return abs(float(kept) - value) <= 0.01 * max(1.0, abs(value))
    except (TypeError, ValueError, OverflowError):
        return False


def in_time(holds: Callable[[], object], seconds: float = 60.0) -> bool:
    """Return whether something holds within so many seconds."""
    deadline = monotonic() + seconds
    while not holds():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


def comes_true(case: Case, holds: Callable[[], object]) -> bool:
    """Return whether something holds within the time in which the store has what was logged."""
    return in_time(holds, case.subject.stored_within)


def require_in_time(case: Case, name: str, step: int, value: float) -> None:
    """Wait for a value that is logged when no training runs, and require that it is stored."""
    comes_true(case, lambda: Stored(case).has(name, step, value))
    Stored(case).require(name, step, value)


@contextmanager
def warned() -> Iterator[list[str]]:
    """Collect the warnings of the block: of all loggers, and those of Python.

    A delivery of an earlier rule that is still inside a call is not heard.
    """
    lines: list[str] = []
    made_by = logging.getLogRecordFactory()

    def note(line: str) -> None:
        if not is_of_an_earlier_rule(threading.current_thread()):
            lines.append(line)

    def noting(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made_by(*args, **kwargs)
        if record.levelno >= logging.WARNING:
            note(record.getMessage())
        return record

    logging.setLogRecordFactory(noting)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: note(str(message))
            yield lines
    finally:
        logging.setLogRecordFactory(made_by)


def require_runs(case: Case, count: int, of: str) -> None:
    """Raise `ContractViolation` unless the store holds so many runs."""
    runs = case.runs()
    require(len(runs) == count, f"the store holds {len(runs)} runs of {of}, not {count}")


def require_curves(case: Case, expected: list[list[float]]) -> None:
    """Require that for each of `expected` a run has these losses and no others."""
    stored = Stored(case)
    curves = {run.id: [value for _, value in stored.of(run, "loss")] for run in stored.runs}
    for losses_of_one in expected:
        require(
            any(_are_the_same(losses_of_one, curve) for curve in curves.values()),
            f"a training logged the losses {list(losses_of_one)}; no run has these and no others: "
            f"{_shown(curves)}",
        )


def _are_the_same(expected: Iterable[float], found: Iterable[float]) -> bool:
    expected, found = list(expected), list(found)
    return all(any(same(e, f) for f in found) for e in expected) and all(
        any(same(e, f) for e in expected) for f in found
    )


def _shown(curves: Mapping[str, list[float]]) -> str:
    return "; ".join(f"{run!r} has {curve[:8]}" for run, curve in curves.items()) or "there is none"


def losses(*values: float) -> list[dict[str, float]]:
    """Return a log for each loss."""
    return [{"loss": value} for value in values]


def log_steps(training: Training, *logs: Mapping[str, Any]) -> None:
    """Train a step for each log, in epochs of two steps."""
    for values in logs:
        if training.state.global_step % 2 == 0:
            training.fire("on_epoch_begin")
        training.step(values)
        if training.state.global_step % 2 == 0:
            training.fire("on_epoch_end")


def trained(
    case: Case, *logs: Mapping[str, Any], error: BaseException | None = None, **more: Any
) -> Training:
    """Train a step for each log, and end.

    Args:
        case: The case.
        logs: What is logged at each step.
        error: What ends the training.
        more: Arguments of `Case.training`; `callback` is one that is not made for this training.
    """
    callback = more.pop("callback", None)
    training = case.training(*([] if callback is None else [callback]), **more)
    training.begin()
    log_steps(training, *logs)
    training.end(error)
    return training


def stored_of(case: Case, *logs: Mapping[str, Any], **more: Any) -> tuple[Stored, str]:
    """Train as `trained` does; return what the store holds then, and the warnings, as a text."""
    with warned() as lines:
        trained(case, *logs, **more)
    return Stored(case), "\n".join(lines)
