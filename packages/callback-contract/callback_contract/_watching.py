"""Trainings that compare state before and after each call, or the behaviour of whole trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from time import monotonic
from typing import Any

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._process import difference
from callback_contract._training import Training, plain_logs
from callback_contract._violation import ContractViolation, require
from callback_core import CallbackHandler, TrainerState

FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)

Probe = Callable[[Training, dict[str, Any]], Any]
"""Returns what must not change, from a training and an event's keywords."""


class WatchedTraining(Training):
    """A training in which no call of a callback may change what `probe` returns."""

    subject: str
    probe: Probe

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and compare."""
        before = deepcopy(self.probe(self, keywords))
        answer = super().call(callback, event, keywords)
        after = self.probe(self, keywords)
        name = f"{type(callback).__name__}.{event}"
        require(before == after, f"{name} changed {self.subject}: {_changes(before, after)}")
        return answer


def watch(case: Case, subject: str, probe: Probe, state: TrainerState | None = None) -> None:
    """Require that no event of a new callback changes what `probe` returns.

    Args:
        case: The case.
        subject: What `probe` returns, for messages.
        probe: Returns what must not change.
        state: The state at the beginning of the training.
    """
    kind = type("Watched", (WatchedTraining,), {"subject": subject, "probe": staticmethod(probe)})
    case.exercise(kind=kind, state=state, max_steps=12)


def _changes(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(map(str, difference(before, after)))
    return f"{before!r} became {after!r}"


def another_rank(*, main_of_its_node: bool = False) -> TrainerState:
    """Return the state of a process that is not the main process of the training."""
    return TrainerState(is_local_process_zero=main_of_its_node, is_world_process_zero=False)


class ObservedTraining(Training):
    """A training that records the requests of callbacks, and what they log.

    Attributes:
        requests: The flags that callbacks set, each with the event and the step. A flag may have
            been on before, because the loop itself had requested the same.
        logged: By name, the values that callbacks logged as text, each with the step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[str] = []
        self.logged: dict[str, list[tuple[int, str]]] = {}

    def log_for_callback(self, logs: Mapping[str, Any]) -> None:
        """Log what a callback logs, and record it."""
        logs = plain_logs(logs)
        for name, value in logs.items():
            self.logged.setdefault(name, []).append((self.state.global_step, repr(value)))
        super().log_for_callback(logs)

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and record the flags that it set."""
        before = self._requests_by_flag()
        answer = super().call(callback, event, keywords)
        for flag in sorted(self._requests_by_flag() - before):
            self.requests.append(f"{flag} in {event} at step {self.state.global_step}")
        return answer

    def _requests_by_flag(self) -> Counter[str]:
        return Counter(request.flag for request in self.control.requests)


class HandledTraining(Training):
    """A training that calls each callback through a `CallbackHandler`, which applies `on_error`.

    Attributes:
        durations: The event and the seconds of each call.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.durations: list[tuple[str, float]] = []
        try:
            with collected_warnings():  # each handler warns that it has no DefaultFlowCallback
                self._handlers = {
                    id(callback): CallbackHandler([callback], self.model, None, None, None)
                    for callback in self.callbacks
                }
        except (TypeError, ValueError) as error:
            raise ContractViolation(f"a loop refuses it: {error}", cause=f"{error}") from error

    def _invoke(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        handler, begun = self._handlers[id(callback)], monotonic()
        try:
            return handler.call_event(event, self.args, self.state, self.control, **keywords)
        finally:
            self.durations.append((event, monotonic() - begun))


def flags(control: Any) -> set[str]:
    """Return the flags that are on."""
    return {flag for flag in FLAGS if getattr(control, flag)}
