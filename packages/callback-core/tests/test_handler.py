"""Who is called, in which order, with what, and what becomes of the answer."""

from __future__ import annotations

import copy
import functools
import logging
import pickle
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import (
    COMMON_KEYWORDS,
    EVENTS,
    CallbackHandler,
    DefaultFlowCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)


class Recorder(TrainerCallback):
    """Keeps what it is passed at each event."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []


def _recording(name: str) -> Any:
    def method(self: Recorder, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.calls.append((name, kwargs))

    return method


for _name in EVENTS:
    setattr(Recorder, _name, _recording(_name))


def handler_of(*callbacks: Any) -> CallbackHandler:
    return CallbackHandler(
        [DefaultFlowCallback, *callbacks], "model", "tokenizer", "optimizer", "schedule"
    )


def fire(
    handler: CallbackHandler, event: str, control: TrainerControl | None = None, **kwargs: Any
) -> TrainerControl:
    return getattr(handler, event)(
        Arguments(), TrainerState(max_steps=9), control or TrainerControl(), **kwargs
    )  # type: ignore[no-any-return]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_reaches_the_callback_with_the_common_keywords_and_its_own(event: str) -> None:
    recorder = Recorder()
    own = {name: {"loss": 1.0} for name in EVENTS[event].passes}
    fire(handler_of(recorder), event, **own)
    [(called, passed)] = recorder.calls
    assert called == event
    assert set(passed) == {*COMMON_KEYWORDS, *own}
    assert (passed["model"], passed["processing_class"], passed["tokenizer"]) == (
        "model",
        "tokenizer",
        "tokenizer",
    )
    assert (passed["optimizer"], passed["lr_scheduler"]) == ("optimizer", "schedule")


@pytest.mark.parametrize("event", ["on_log", "on_evaluate", "on_predict"])
def test_what_an_event_passes_may_be_given_by_position_as_in_transformers(event: str) -> None:
    recorder = Recorder()
    getattr(handler_of(recorder), event)(
        Arguments(), TrainerState(), TrainerControl(), {"loss": 0.5}
    )
    assert recorder.calls[0][1][EVENTS[event].passes[0]] == {"loss": 0.5}


def test_callbacks_are_called_in_the_order_in_which_they_were_added() -> None:
    order: list[str] = []

    class First(TrainerCallback):
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            order.append("first")

    class Second(TrainerCallback):
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            order.append("second")

    handler = handler_of(First)
    handler.add_callback(Second())
    fire(handler, "on_log", logs={})
    assert order == ["first", "second"]
    assert handler.callback_list == "DefaultFlowCallback\nFirst\nSecond"


def test_a_callback_s_changes_to_logs_are_seen_by_no_other() -> None:
    class Greedy(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            logs.clear()

    recorder, logs = Recorder(), {"loss": 1.0}
    fire(handler_of(Greedy, recorder), "on_log", logs=logs)
    assert recorder.calls[0][1]["logs"] == logs == {"loss": 1.0}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_switches_off_the_flags_that_the_table_names_and_no_other(event: str) -> None:
    control = TrainerControl(True, True, True, True, True)
    own = {name: {} for name in EVENTS[event].passes}
    getattr(CallbackHandler([], *[None] * 4), event)(Arguments(), TrainerState(), control, **own)
    assert {
        flag
        for flag in vars(TrainerControl())
        if flag.startswith("should") and not getattr(control, flag)
    } == set(EVENTS[event].resets)


def test_a_returned_control_replaces_the_one_that_was_passed() -> None:
    replacement = TrainerControl(should_log=True)

    class Replacing(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> TrainerControl:
            return replacement

    assert fire(handler_of(Replacing), "on_step_end") is replacement


def test_returning_something_else_is_an_error_that_names_the_method() -> None:
    class Confused(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> Any:
            return True

    with pytest.raises(TypeError, match=r"Confused\.on_step_end returned True"):
        fire(handler_of(Confused), "on_step_end")


def test_a_callback_may_be_any_object_with_some_of_the_methods() -> None:
    class Duck:
        def __init__(self) -> None:
            self.logs: list[Any] = []

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            self.logs.append(logs)

    duck = Duck()
    handler = handler_of(duck)
    fire(handler, "on_train_begin")
    fire(handler, "on_log", logs={"loss": 1.0})
    assert duck.logs == [{"loss": 1.0}]


@pytest.mark.parametrize("wrong", [object(), int, "TensorBoard", lambda: None])
def test_what_has_no_event_method_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="on_train_begin"):
        handler_of(wrong)


@pytest.mark.parametrize("wrong", [Recorder(), Recorder, "Recorder", {"Recorder": Recorder()}])
def test_callbacks_that_are_no_list_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"(Recorder|dict).*list"):
        CallbackHandler(wrong, None, None, None, None)


def test_callbacks_may_come_from_a_generator() -> None:
    callbacks = (made for made in (DefaultFlowCallback(), Recorder()))
    assert len(CallbackHandler(callbacks, None, None, None, None).callbacks) == 2


class Patient(TrainerCallback):
    def __init__(self, patience: int) -> None:
        self.patience = patience


class Broken(TrainerCallback):
    def __init__(self) -> None:
        raise TypeError("a mistake in it")


def test_a_class_that_needs_arguments_is_refused_by_name_and_a_mistake_in_it_is_shown() -> None:
    handler = CallbackHandler([DefaultFlowCallback], None, None, None, None)
    with pytest.raises(TypeError, match=r"Patient.*instance.*patience"):
        handler.add_callback(Patient)
    with pytest.raises(TypeError, match="a mistake in it"):
        handler.add_callback(Broken)


def test_a_method_without_keywords_is_refused_when_it_is_added() -> None:
    class Narrow(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any) -> None:  # type: ignore[override]
            raise AssertionError("never called")

    with pytest.raises(TypeError, match=r"Narrow\.on_log .* End its signature with \*\*kwargs"):
        handler_of(Narrow)


def test_a_second_callback_of_a_class_is_added_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = handler_of(Recorder, Recorder)
    assert [type(callback).__name__ for callback in handler.callbacks].count("Recorder") == 2
    assert "Recorder" in caplog.text


def test_a_missing_default_flow_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CallbackHandler([Recorder], None, None, None, None)
    assert "DefaultFlowCallback" in caplog.text


def test_pop_returns_the_callback_by_class_or_by_instance_and_it_is_called_no_more() -> None:
    one, other = Recorder(), Recorder()
    handler = handler_of(one, other)
    assert handler.pop_callback(other) is other
    assert handler.pop_callback(Recorder) is one
    assert handler.pop_callback(Recorder) is None
    fire(handler, "on_log", logs={})
    assert one.calls == other.calls == []


def test_remove_is_silent_about_an_absent_class_but_not_about_an_absent_instance() -> None:
    handler = handler_of()
    handler.remove_callback(Recorder)
    with pytest.raises(ValueError, match="DefaultFlowCallback"):
        handler.remove_callback(Recorder())


def test_an_error_in_a_callback_ends_the_event() -> None:
    class Failing(TrainerCallback):
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fire(handler_of(Failing), "on_log", logs={})


def test_the_empty_base_class_is_a_callback() -> None:
    assert fire(handler_of(TrainerCallback), "on_log", logs={}) == TrainerControl()


def test_a_callback_that_was_added_twice_is_popped_once() -> None:
    recorder = Recorder()
    handler = handler_of(recorder, recorder)
    handler.pop_callback(recorder)
    fire(handler, "on_log", logs={})
    assert len(recorder.calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda callbacks, added: callbacks.append(added),
        lambda callbacks, added: callbacks.insert(0, added),
        lambda callbacks, added: callbacks.extend([added]),
        lambda callbacks, added: callbacks.__setitem__(0, added),
        lambda callbacks, added: callbacks.__iadd__([added]),
    ],
    ids=["append", "insert", "extend", "set", "+="],
)
def test_the_list_of_callbacks_may_be_changed_in_place(change: Any) -> None:
    recorder, handler = Recorder(), handler_of()
    change(handler.callbacks, recorder)
    fire(handler, "on_log", logs={})
    assert len(recorder.calls) == 1
    handler.callbacks.remove(recorder)
    fire(handler, "on_log", logs={})
    assert len(recorder.calls) == 1


def test_the_list_of_callbacks_may_be_replaced_and_added_to_another() -> None:
    recorder, handler = Recorder(), handler_of()
    handler.callbacks = [*handler.callbacks, recorder]
    fire(handler, "on_log", logs={})
    assert len(recorder.calls) == 1
    assert handler.callbacks + ["more"] == [*handler.callbacks, "more"]  # noqa: RUF005


def test_a_flag_set_after_a_nested_event_is_still_the_callback_s_own() -> None:
    class Nests(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            handler.on_log(args, state, control, logs={})
            control.should_save = True

    handler = handler_of(Nests)
    control = fire(handler, "on_step_end")
    assert control.requests[-1].by == "Nests"


@pytest.mark.parametrize("wrong", [Recorder, object()], ids=["class", "object"])
def test_what_cannot_be_called_is_refused_by_the_list_which_stays_as_it_was(wrong: Any) -> None:
    handler = handler_of()
    before = list(handler.callbacks)
    with pytest.raises(TypeError, match=r"is not a callback|add an instance"):
        handler.callbacks.append(wrong)
    with pytest.raises(TypeError, match=r"is not a callback|add an instance"):
        handler.callbacks = [wrong]
    assert handler.callbacks == before
    fire(handler, "on_log", logs={})


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda made: pickle.loads(pickle.dumps(made))}


@pytest.mark.parametrize("how", COPIES)
def test_a_handler_can_be_copied_with_its_callbacks(how: str) -> None:
    recorder = Recorder()
    handler = handler_of(recorder)
    made = COPIES[how](handler)
    fire(made, "on_log", logs={})
    made.add_callback(TrainerCallback())
    assert recorder.calls == []
    assert [name for name, _ in made.callbacks[1].calls] == ["on_log"]
    assert (len(made.callbacks), len(handler.callbacks), made.model) == (3, 2, "model")
    assert type(COPIES[how](handler.callbacks)) is list


def test_a_copied_handler_goes_on_in_its_training() -> None:
    class Isolated(Recorder):
        on_error = "isolate"

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            super().on_log(*args, **kwargs)
            raise OSError

    handler = handler_of(Isolated())
    fire(handler, "on_train_begin")
    for _ in range(2):
        fire(handler, "on_log", logs={})
    made = copy.deepcopy(handler)
    for _ in range(2):
        fire(made, "on_log", logs={})
    assert len(made.callbacks[1].calls) == 4  # the beginning, and three failures in a row
    with pytest.raises(RuntimeError, match="on_train_end"):
        fire(made, "on_train_begin")


def test_a_wrapped_method_is_called_though_it_has_the_name_of_the_empty_one() -> None:
    seen: list[str] = []

    class Timed(TrainerCallback):
        @functools.wraps(TrainerCallback.on_log)
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            seen.append("on_log")

    fire(handler_of(Timed), "on_log", logs={})
    assert seen == ["on_log"]


def test_a_keyword_is_passed_on_as_it_was_given() -> None:
    recorder = Recorder()
    handler = handler_of(recorder)
    fire(handler, "on_step_end", loss=None)
    fire(handler, "on_step_end", loss=None, more=1)
    fire(handler, "on_step_end")
    assert ["loss" in passed for _, passed in recorder.calls] == [True, True, False]


def test_the_tokenizer_is_set_under_both_names() -> None:
    handler = handler_of()
    handler.tokenizer = "other"
    assert handler.processing_class == handler.tokenizer == "other"


def test_a_default_flow_is_known_by_its_name_as_that_of_transformers_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs = type("DefaultFlowCallback", (TrainerCallback,), {})
    CallbackHandler([type("Flow", (theirs,), {})], None, None, None, None)
    assert caplog.text == ""


def test_what_nested_logs_hold_is_copied_too_but_values_are_not() -> None:
    class Greedy(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            logs["each"]["a"].append(2)
            logs["each"]["b"] = 3

    value, recorder = object(), Recorder()
    logs = {"each": {"a": [1], "b": value}}
    fire(handler_of(Greedy, recorder), "on_log", logs=logs)
    assert recorder.calls[0][1]["logs"] == logs == {"each": {"a": [1], "b": value}}
