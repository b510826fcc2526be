"""What an error in a callback costs: the training, or no more than the callback."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)


class Fails(TrainerCallback):
    """Raises at some of its logs, and at the end where it is told to."""

    def __init__(
        self, at: tuple[int, ...] = (), on_error: Any = "raise", end: bool = False
    ) -> None:
        self.at, self.on_error, self.end = at, on_error, end
        self.called: list[int] = []
        self.ended = 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.called.append(state.global_step)
        if state.global_step in self.at:
            raise OSError(f"disk full at {state.global_step}")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended += 1
        if self.end:
            raise OSError("cannot close")


class Run:
    """A training of some callbacks by hand."""

    def __init__(self, *callbacks: Any) -> None:
        self.handler = CallbackHandler([DefaultFlowCallback, *callbacks], None, None, None, None)
        self.args, self.state, self.control = Arguments(), TrainerState(), TrainerControl()

    def fire(self, event: str, step: int = 0, **kwargs: Any) -> None:
        self.state.global_step = step
        getattr(self.handler, event)(self.args, self.state, self.control, **kwargs)

    def log_until(self, last: int) -> None:
        self.fire("on_train_begin")
        for step in range(1, last + 1):
            self.fire("on_log", step, logs={})


def test_an_error_is_raised_at_once_by_default() -> None:
    after = Fails()
    with pytest.raises(OSError, match="disk full at 1"):
        Run(Fails(at=(1,)), after).log_until(1)
    assert after.called == []


def test_an_isolated_callback_s_error_is_logged_once_with_its_traceback_and_training_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, after = Fails(at=(1, 2), on_error="isolate"), Fails()
    run = Run(failing, after)
    caplog.clear()
    run.log_until(4)
    assert after.called == failing.called == [1, 2, 3, 4]
    [record] = caplog.records
    assert record.getMessage().startswith("Fails failed in on_log at step 1")
    assert "disk full at 1" in caplog.text
    assert "Traceback" in caplog.text


def test_after_three_failures_in_a_row_it_is_called_no_more_but_to_be_closed() -> None:
    failing = Fails(at=(2, 3, 4), on_error="isolate")
    run = Run(failing)
    run.log_until(6)
    run.fire("on_train_end", 6)
    assert failing.called == [1, 2, 3, 4]
    assert failing.ended == 1


def test_failures_with_a_success_between_them_do_not_switch_it_off() -> None:
    failing = Fails(at=(1, 2, 4, 5, 7), on_error="isolate")
    Run(failing).log_until(8)
    assert failing.called == list(range(1, 9))


def test_the_end_says_in_one_line_who_failed_how_often_and_how_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Run(Fails(at=(2, 3, 4), on_error="isolate"))
    run.log_until(4)
    caplog.clear()
    run.fire("on_train_end", 4)
    assert [record.getMessage() for record in caplog.records] == [
        "Training was not affected, but Fails failed 3 times and was switched off at step 4 "
        "(last: OSError: disk full at 4)."
    ]


def test_nothing_is_said_where_nothing_failed(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(Fails(on_error="isolate"))
    run.log_until(2)
    run.fire("on_train_end", 2)
    assert caplog.records == []


def test_another_training_is_another_chance() -> None:
    failing = Fails(at=(1, 2, 3), on_error="isolate")
    run = Run(failing)
    run.log_until(4)
    run.fire("on_train_end", 4)
    failing.called.clear()
    failing.at = ()
    run.log_until(2)
    assert failing.called == [1, 2]


def test_every_callback_is_closed_and_then_the_first_error_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    callbacks = [Fails(end=True), Fails(end=True), Fails()]
    run = Run(*callbacks)
    run.log_until(1)
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="cannot close"):
        run.fire("on_train_end", 1)
    assert [callback.ended for callback in callbacks] == [1, 1, 1]
    assert caplog.text.count("on_train_end failed too") == 1  # the second; the first is raised


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_never_isolated(interrupt: type[BaseException]) -> None:
    class Interrupted(TrainerCallback):
        on_error = "isolate"

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            raise interrupt

    with pytest.raises(interrupt):
        Run(Interrupted).log_until(1)


def test_an_unknown_policy_is_refused_when_the_callback_is_added() -> None:
    with pytest.raises(ValueError, match=r"on_error.*'ignore'.*raise.*isolate"):
        Run(Fails(on_error="ignore"))


def test_a_second_beginning_without_an_end_is_an_error() -> None:
    run = Run()
    run.fire("on_train_begin")
    with pytest.raises(RuntimeError, match="on_train_end"):
        run.fire("on_train_begin")
    run.fire("on_train_end")
    run.fire("on_train_begin")


def test_a_callback_is_closed_also_where_training_never_began() -> None:
    closed = Fails()
    Run(closed).fire("on_train_end")
    assert closed.ended == 1


@pytest.mark.parametrize("event", ["on_exception", "on_train_end"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_closing_is_raised_once_every_callback_is_closed(
    interrupt: type[BaseException], event: str
) -> None:
    class Interrupted(TrainerCallback):
        on_error = "isolate"

    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        raise interrupt

    setattr(Interrupted, event, method)
    closed = Recording(event)
    with pytest.raises(interrupt):
        Run(Interrupted, closed).fire(event)
    assert closed.steps == [0]


class Recording(TrainerCallback):
    """Keeps the steps at which one event comes, and fails there where it is told to."""

    def __init__(self, event: str, error: Exception | None = None, on_error: Any = "raise") -> None:
        self.steps: list[int] = []
        self.on_error = on_error
        self.error = error
        setattr(self, event, self.record)

    def record(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        if self.error is not None:
            raise self.error


def isolated(event: str) -> Recording:
    return Recording(event, OSError("disk full"), "isolate")


def test_errors_at_on_exception_are_logged_and_do_not_mask_the_one_that_ended_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, after = Recording("on_exception", OSError("disk full")), Recording("on_exception")
    Run(failing, after).fire("on_exception", exception=ValueError("original"))
    assert after.steps == [0]
    assert "on_exception failed" in caplog.text and "disk full" in caplog.text


def test_a_policy_that_became_wrong_masks_no_error_and_is_refused_at_the_next_training() -> None:
    failing, after = Fails(end=True), Fails()
    run = Run(failing, after)
    run.fire("on_train_begin")
    failing.on_error = "ignore"
    with pytest.raises(OSError, match="cannot close"):
        run.fire("on_train_end")
    assert after.ended == 1
    for _ in range(2):  # it has not begun by the first of them
        with pytest.raises(ValueError, match=r"on_error.*'ignore'"):
            run.fire("on_train_begin")


def test_a_success_at_another_event_does_not_keep_a_failing_callback_on() -> None:
    class Tracker(Fails):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            pass

    failing = Tracker(at=tuple(range(9)), on_error="isolate")
    run = Run(failing)
    run.fire("on_train_begin")
    for step in range(1, 9):
        run.fire("on_step_end", step)
        run.fire("on_log", step, logs={})
    assert failing.called == [1, 2, 3]


def test_failures_before_training_are_reported_at_its_end_and_training_is_another_chance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing = isolated("on_evaluate")
    run = Run(failing)
    for _ in range(4):
        run.fire("on_evaluate", metrics={})
    assert len(failing.steps) == 3
    run.fire("on_train_begin")
    run.fire("on_evaluate", 5, metrics={})
    caplog.clear()
    run.fire("on_train_end", 5)
    assert failing.steps[3:] == [5]
    [report] = [record.getMessage() for record in caplog.records]
    assert all(fact in report for fact in ("Recording", "4 times", "OSError: disk full"))
    caplog.clear()
    run.fire("on_train_end", 5)
    assert caplog.records == []


def test_a_switch_off_outside_of_training_is_said_at_once_for_no_report_may_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Run(isolated("on_evaluate"))
    run.log_until(1)
    run.fire("on_train_end", 1)
    caplog.clear()
    for _ in range(5):
        run.fire("on_evaluate", metrics={})
    first, off = [record.getMessage() for record in caplog.records]
    assert "on_evaluate" in first
    assert all(fact in off for fact in ("Recording", "3 times", "on_evaluate", "disk full"))


def test_an_event_of_somebody_s_own_is_not_called_where_the_callback_is_off() -> None:
    failing = isolated("on_mine")
    failing.on_log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    run = Run(failing)
    for _ in range(5):
        run.handler.call_event("on_mine", run.args, run.state, run.control)
    assert len(failing.steps) == 3


def test_an_error_that_cannot_be_shown_is_isolated_all_the_same() -> None:
    class Nameless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    failing = Recording("on_log", Nameless(), "isolate")
    Run(failing).log_until(2)
    assert failing.steps == [1, 2]


def test_a_message_of_several_lines_is_reported_in_one(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(Recording("on_log", OSError("first\nsecond"), "isolate"))
    run.log_until(1)
    run.fire("on_train_end", 1)
    assert "(last: OSError: first second)." in caplog.records[-1].getMessage()
