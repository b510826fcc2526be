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
    with pytest.raises(ValueError, match="on_error is 'ignore', it must be one of: raise, isolate"):
        Run(Fails(on_error="ignore"))


def test_a_second_beginning_without_an_end_is_an_error() -> None:
    run = Run()
    run.fire("on_train_begin")
    with pytest.raises(RuntimeError, match="Fire on_train_end first"):
        run.fire("on_train_begin")
    run.fire("on_train_end")
    run.fire("on_train_begin")


def test_a_callback_is_closed_also_where_training_never_began() -> None:
    closed = Fails()
    Run(closed).fire("on_train_end")
    assert closed.ended == 1
