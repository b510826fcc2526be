"""Reads a tracker's store for the rules, and runs the trainings that they compare with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._registry import rule
from callback_contract._subject import PRECISIONS, RecordedRun, Subject
from callback_contract._training import Training
from callback_contract._violation import ContractViolation, require

tracker_rule = partial(rule, of_trackers=True)
"""`rule`, for rules that apply to trackers only."""

_SHARED: Final = (
    "the store has fewer runs than trainings",
    "Open a run for each training in on_train_begin, with a random id or one that the store "
    "generates.",
)
_ROUNDED: Final = (
    "its store keeps numbers less exactly than `precision` claims",
    "Store numbers unrounded, or declare the `precision` that the store has.",
)
_EMPTY: Final = (
    "its store holds no points",
    "Check that `read` finds the store, and that settings() of a tracker returns what locates it.",
)
"""Causes of failures in several rules, each with a fix."""

LOSSES: Final = (0.1 + 1 / 3, 2e-5, 123456.789, -1e-12, 7 / 9, 0.05)
"""The losses of a training, in order. Rounding changes each of them."""


class Stored:
    """A snapshot of the store of a case.

    Args:
        case: The case.
        runs: The runs in the store; by default they are read.

    Attributes:
        runs: The runs, oldest first.
        parameters: The parameters of all runs, as strings.
    """

    def __init__(self, case: Case, runs: list[RecordedRun] | None = None) -> None:
        self.runs = case.runs() if runs is None else runs
        self.parameters = {n: str(v) for run in self.runs for n, v in run.parameters.items()}
        self._author = type(case.subject).__name__
        self._stored_name = case.subject.stored_name
        self._has_own_names = type(case.subject).stored_name is not Subject.stored_name
        self._tolerance = PRECISIONS[case.subject.precision]

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return the points of all runs that were logged as `name`."""
        return [point for run in self.runs for point in self.points_of(run, name)]

    def points_of(self, run: RecordedRun, name: str) -> list[tuple[int, float]]:
        """Return the points of one run that were logged as `name`."""
        return list(run.points.get(self._stored_name(name), ()))

    def text(self, name: str) -> list[tuple[int, str]]:
        """Return the strings of all runs that were logged as `name`."""
        return [item for run in self.runs for item in run.text.get(self._stored_name(name), ())]

    def has(self, name: str, step: int, value: float) -> bool:
        """Return whether the store has `value`, logged as `name` at `step`."""
        return self._contains(self.points(name), step, value)

    def in_summary(self, name: str, value: float) -> bool:
        """Return whether the summary of a run has `value`, logged as `name`."""
        ends = (name, name.removeprefix("train_"), self._stored_name(name))
        return any(
            title.endswith(ends) and matches(value, found, self._tolerance)
            for run in self.runs
            for title, found in run.summary.items()
        )

    def names_at(self, step: int, value: float) -> list[str]:
        """Return the names under which the store has `value` at `step`."""
        return [
            name
            for run in self.runs
            for name, points in run.points.items()
            if self._contains(points, step, value)
        ]

    def _contains(self, points: Iterable[tuple[int, float]], step: int, value: float) -> bool:
        return any(at == step and matches(value, found, self._tolerance) for at, found in points)

    def parameter(self, name: str) -> str | None:
        """Return a parameter as a string; `None` if the store lacks it."""
        return parameter_of(self.parameters, name)

    def require(self, name: str, step: int, value: float) -> None:
        """Raise `ContractViolation` unless the store has `value` at `step`."""
        if self.has(name, step, value):
            return
        title, found = self._stored_name(name), self.points(name)
        # The loop adds the epoch to each log, and it may equal the value.
        others = [o for o in self.names_at(step, value) if not o.endswith("epoch")]
        if not found and others and not self._has_own_names:
            hint = f"{self._author} needs the hook `stored_name`"
            raise ContractViolation(
                f"{name!r} is stored as {others[0]!r}, but the rule looked for {title!r}: {hint}",
                hint,
            )
        names = sorted({name[:80] for run in self.runs for name in run.points})
        is_rounded = any(at == step and _is_rounded(value, number) for at, number in found)
        raise ContractViolation(
            f"{name}={value!r} was logged at step {step}. The store of {len(self.runs)} runs has "
            f"{found[:12] or 'nothing'} as {title!r}, and the names {names[:12]}",
            *(_ROUNDED if is_rounded else () if names else _EMPTY),
        )

    def require_losses(self, *losses: float, first: int = 1) -> None:
        """Require that the store has these losses at consecutive steps, beginning with `first`."""
        for step, loss in enumerate(losses, first):
            self.require("loss", step, loss)

    def require_all_of(self, training: Training) -> None:
        """Require that the store has all logs of `training`, as points or in a summary."""
        for log in training.state.log_history:
            for name, value in log.items():
                if name not in ("epoch", "step") and not self.in_summary(name, value):
                    self.require(name, log["step"], value)

    def require_arguments_of(self, before: Stored) -> None:
        """Require that the store still has the arguments that it had before."""
        lost = sorted(before.parameters.keys() - self.parameters.keys())
        require(
            not lost,
            f"the store had {len(before.parameters)} arguments and lost {lost[:4]}",
            "when a run is opened again, its arguments are lost",
        )

    def require_once(self, *names: str) -> None:
        """Require that each run has at most one point per step under each of these names."""
        for name in names:
            for run in self.runs:
                points = self.points_of(run, name)
                steps = [step for step, _ in points]
                repeated = sorted({step for step in steps if steps.count(step) > 1})
                require(
                    not repeated,
                    f"{name!r} was logged once per step, but the store has several points at the "
                    f"steps {repeated[:8]}: {points[:12]}",
                )

    def require_ordered(self, *names: str) -> None:
        """Require that the store has the points of each name in the order of their steps."""
        for name in names:
            steps = [step for step, _ in self.points(name)]
            require(steps == sorted(steps), f"the steps of {name!r} are stored in order {steps}")


class Scalar:
    """A zero-dimensional scalar that changes in place, like those of numpy and torch."""

    shape = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def item(self) -> float:
        """Return the value as a plain number."""
        return self.value

    def fill_(self, value: float) -> None:
        """Change the value, as a torch tensor's method does."""
        self.value = value


def parameter_of(parameters: Mapping[str, Any], name: str) -> str | None:
    """Return a parameter as a string; the store may prefix its name, as in `args/seed`."""
    if name in parameters:
        return str(parameters[name])
    ends = (f"/{name}", f".{name}", f"|{name}")
    return next((str(v) for n, v in parameters.items() if n.endswith(ends)), None)


def matches(value: float, found: Any, tolerance: float = PRECISIONS["single"]) -> bool:
    """Return whether `found` in a store equals `value`, within a relative tolerance."""
    if isinstance(found, (int, float)) and found == value:
        return True
    try:
        number = float(found)
    except (TypeError, ValueError, OverflowError):
        return False
    if math.isnan(value):
        return math.isnan(number)
    if math.isinf(value) or value == 0 or not tolerance:
        return number == value
    return math.isclose(value, number, rel_tol=tolerance)


def _is_rounded(value: float, found: Any) -> bool:
    """Return whether `found` may be `value` rounded to some digits."""
    try:
        return abs(float(found) - value) <= 0.01 * max(1.0, abs(value))
    except (TypeError, ValueError, OverflowError):
        return False


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Return whether `condition` becomes true within `seconds`."""
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


def wait_for_store(case: Case, condition: Callable[[], object]) -> bool:
    """Return whether `condition` becomes true within the subject's `stored_within`."""
    return wait_for(condition, case.subject.stored_within)


def require_eventually(case: Case, name: str, step: int, value: float) -> None:
    """Wait for a value that was logged outside a training, and require that it is stored."""
    wait_for_store(case, lambda: Stored(case).has(name, step, value))
    Stored(case).require(name, step, value)


def require_runs(case: Case, count: int, of: str) -> None:
    """Raise `ContractViolation` unless the store has `count` runs."""
    found = len(case.runs())
    cause = _SHARED if 0 < found < count else ()
    require(found == count, f"the store has {found} runs of {of}, not {count}", *cause)


def require_curves(case: Case, expected: list[list[float]]) -> None:
    """Require for each list in `expected` that a run has exactly these losses."""
    stored = Stored(case)
    curves = {run.id: [value for _, value in stored.points_of(run, "loss")] for run in stored.runs}
    for curve in expected:
        is_rounded = any(_have_same_values(curve, found, _is_rounded) for found in curves.values())
        require(
            any(_have_same_values(curve, found) for found in curves.values()),
            f"a training logged the losses {curve}, but no run has exactly these: "
            + ("; ".join(f"{run!r} has {c[:8]}" for run, c in curves.items()) or "there is no run"),
            *(_ROUNDED if is_rounded else ()),
        )


def _have_same_values(
    expected: list[float], found: list[float], equal: Callable[[float, Any], bool] = matches
) -> bool:
    return all(any(equal(e, f) for f in found) for e in expected) and all(
        any(equal(e, f) for e in expected) for f in found
    )


def losses(*values: float) -> list[dict[str, float]]:
    """Return a log for each loss."""
    return [{"loss": value} for value in values]


def log_steps(
    training: Training, *logs: Mapping[str, Any], evaluates: bool = False, saves: bool = False
) -> None:
    """Train a step for each log, in epochs of two steps.

    Args:
        training: The training.
        logs: The logs.
        evaluates: Whether an evaluation follows the last step.
        saves: Whether a checkpoint follows it.
    """
    for number, values in enumerate(logs, 1):
        if training.state.global_step % 2 == 0:
            training.fire("on_epoch_begin")
        is_last = number == len(logs)
        training.step(values, evaluates=evaluates and is_last, saves=saves and is_last)
        if training.state.global_step % 2 == 0:
            training.fire("on_epoch_end")


def train(
    case: Case, *logs: Mapping[str, Any], error: BaseException | None = None, **more: Any
) -> Training:
    """Train a step for each log, end the training, and return it.

    Args:
        case: The case.
        logs: What each step logs.
        error: The error that ends the training.
        more: Arguments of `Case.training`. `callback` is used instead of a new one, and `config`
            replaces the model's configuration.
    """
    callbacks = [more.pop("callback")] if "callback" in more else []
    config = [more.pop("config")] if "config" in more else []
    training = case.training(*callbacks, **more)
    if config:
        [training.model.config] = config
    training.begin()
    log_steps(training, *logs)
    training.end(error)
    return training


def train_and_read(case: Case, *logs: Mapping[str, Any], **more: Any) -> tuple[Stored, str]:
    """Train as `train` does, and return the store's content and the warnings as one text."""
    with collected_warnings() as lines:
        train(case, *logs, **more)
    return Stored(case), "\n".join(lines)
