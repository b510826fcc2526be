"""Code for transformers' `trainer_callback` behaves the same when only its import changes.

Each test runs the same code with both modules and compares the results. `DIFFERENCES` explains each
deliberate difference.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import transformers.trainer_callback
from hypothesis import given
from hypothesis import strategies as st

import callback_core

THEIRS = transformers.trainer_callback
OURS = callback_core

CLASSES = (
    "CallbackHandler",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "ExportableState",
    "PrinterCallback",
    "ProgressCallback",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
)

FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)

DIFFERENCES = {
    "TrainerState.__init__: epoch=None, not 0": "there is no epoch before a training, as in 4.34",
    "TrainerState.__init__: log_history=<factory>, not None": "either way it is an empty list",
    "TrainerState.__init__: stateful_callbacks=<factory>, not None": "either way an empty dict",
}
"""Signatures that differ from those of transformers, with the reason."""


def same(code: Callable[[Any], Any]) -> Any:
    """Run `code` with both modules, check that the results are equal, and return the result."""
    theirs, ours = code(THEIRS), code(OURS)
    assert ours == theirs
    return ours


@contextmanager
def warnings_of(module: Any) -> Iterator[list[str]]:
    """Collect the warnings of `module`; those of transformers do not reach pytest's caplog."""
    messages: list[str] = []
    collector = logging.Handler(logging.WARNING)
    collector.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(module.__name__)
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)


def handler_of(m: Any, *callbacks: Any) -> Any:
    return m.CallbackHandler(
        [m.DefaultFlowCallback, *callbacks], "model", "tokenizer", "optimizer", "schedule"
    )


def arguments(**changed: Any) -> SimpleNamespace:
    """Return the arguments that callbacks read, with their defaults."""
    return SimpleNamespace(
        **{
            "logging_strategy": "steps",
            "logging_first_step": False,
            "eval_strategy": "no",
            "eval_delay": 0,
            "save_strategy": "steps",
            "load_best_model_at_end": True,
            "metric_for_best_model": None,
            "greater_is_better": None,
            **changed,
        }
    )


def flags(control: Any) -> tuple[bool, ...]:
    return tuple(getattr(control, flag) for flag in FLAGS)


def events() -> list[str]:
    return [name for name in vars(THEIRS.TrainerCallback) if name.startswith("on_")]


def required(event: str) -> dict[str, Any]:
    """Return the keywords that the handler's method for `event` requires."""
    return {
        "on_log": {"logs": {}},
        "on_evaluate": {"metrics": {}},
        "on_predict": {"metrics": {}},
    }.get(event, {})


# --- names and signatures -----------------------------------------------------


def public_names(m: ModuleType) -> set[str]:
    """Return the public classes and functions that `m` defines."""
    return {
        name
        for name, value in vars(m).items()
        if getattr(value, "__module__", None) == m.__name__ and not name.startswith("_")
    }


def test_no_public_name_is_left_out() -> None:
    assert public_names(THEIRS) == set(CLASSES)
    assert set(CLASSES) <= set(OURS.__all__)


VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def methods(cls: type) -> list[str]:
    return ["__init__", *(name for name in dir(cls) if not name.startswith("_"))]


def signature_differences(name: str) -> Iterator[str]:
    """Yield what our class `name` lacks for callers of transformers' class."""
    theirs, ours = getattr(THEIRS, name), getattr(OURS, name)
    for method in methods(theirs):
        at = f"{name}.{method}"
        if not callable(getattr(theirs, method)):
            continue
        if not hasattr(ours, method):
            yield f"{at}: missing"
            continue
        expected = parameters(getattr(theirs, method))
        got = parameters(getattr(ours, method))
        if takes_anything(getattr(ours, method)):  # the handler's events; other tests call them
            expected = {name: expected[name] for name in expected if name in got}
        if list(got)[: len(expected)] != list(expected):
            yield f"{at}({', '.join(got)}), not ({', '.join(expected)})"
            continue
        for extra in list(got)[len(expected) :]:
            if got[extra].default is inspect.Parameter.empty:
                yield f"{at}: {extra} is required"
        for parameter in expected:
            if got[parameter].kind != expected[parameter].kind:
                yield f"{at}: {parameter} is {got[parameter].kind.description}"
            if expected[parameter].default is inspect.Parameter.empty:
                continue  # callers must pass it, so our default does not matter
            if got[parameter].default != expected[parameter].default:
                yield (
                    f"{at}: {parameter}={got[parameter].default!r}, "
                    f"not {expected[parameter].default!r}"
                )


def parameters(method: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of `method`, except `*args` and `**kwargs`."""
    return {
        name: parameter
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind not in VARIABLE
    }


def takes_anything(method: Any) -> bool:
    """Return whether `method` has both `*args` and `**kwargs`."""
    kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
    return kinds >= VARIABLE


def test_every_difference_in_a_signature_is_explained() -> None:
    assert {line for name in CLASSES for line in signature_differences(name)} == set(DIFFERENCES)


@pytest.mark.parametrize("name", CLASSES)
def test_methods_take_any_keyword_if_those_of_transformers_do(name: str) -> None:
    def takes_any(m: Any) -> list[str]:
        cls = getattr(m, name)
        return [
            method
            for method in methods(getattr(THEIRS, name))
            if callable(getattr(cls, method, None))
            and any(
                parameter.kind is inspect.Parameter.VAR_KEYWORD
                for parameter in inspect.signature(getattr(cls, method)).parameters.values()
            )
        ]

    assert set(takes_any(THEIRS)) <= set(takes_any(OURS))


def test_classes_have_the_same_base_classes() -> None:
    same(
        lambda m: {
            (name, base): issubclass(getattr(m, name), getattr(m, base))
            for name, base in product(CLASSES, CLASSES)
        }
    )


def test_the_fields_of_the_state_are_the_same_and_ours_come_last() -> None:
    def fields(m: Any) -> list[str]:
        return [field.name for field in dataclasses.fields(m.TrainerState)]

    assert fields(OURS)[: len(fields(THEIRS))] == fields(THEIRS)


# --- the handler's list -------------------------------------------------------


def callbacks_of(m: Any) -> tuple[type, type, type]:
    class First(m.TrainerCallback):  # type: ignore[name-defined, misc]
        pass

    class Second(m.TrainerCallback):  # type: ignore[name-defined, misc]
        pass

    class Derived(First):
        pass

    return First, Second, Derived


def test_callbacks_are_added_as_classes_and_as_instances_in_order() -> None:
    def code(m: Any) -> Any:
        first, second, derived = callbacks_of(m)
        handler = handler_of(m, first, second())
        returned = handler.add_callback(derived)
        return returned, handler.callback_list, [type(c).__name__ for c in handler.callbacks]

    assert same(code)[1] == "DefaultFlowCallback\nFirst\nSecond\nDerived"


def test_the_callbacks_are_used_like_a_list() -> None:
    def code(m: Any) -> Any:
        first, second, _ = callbacks_of(m)
        one, two = first(), second()
        handler = handler_of(m, one)
        callbacks = handler.callbacks
        return (
            len(callbacks),
            callbacks[1] is one,
            callbacks[-1] is one,
            [type(c).__name__ for c in callbacks],
            [type(c).__name__ for c in callbacks[1:]],
            [type(c).__name__ for c in callbacks + [two]],  # noqa: RUF005  (this is what is tested)
            one in callbacks,
            two in callbacks,
            callbacks.index(one),
            bool(callbacks),
            len(handler.callbacks),
        )

    same(code)


def test_changing_the_list_changes_who_is_called() -> None:
    def code(m: Any) -> Any:
        class Named(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def __init__(self, name: str) -> None:
                self.name = name

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                called.append(self.name)

        called: list[str] = []
        one, two, three = Named("one"), Named("two"), Named("three")
        handler = handler_of(m)
        for change in (
            lambda: handler.callbacks.append(one),
            lambda: handler.callbacks.insert(0, two),
            lambda: handler.callbacks.extend([three]),
            lambda: handler.callbacks.reverse(),
            lambda: handler.callbacks.remove(two),
            lambda: handler.callbacks.pop(),
            lambda: setattr(handler, "callbacks", [three, two]),
            lambda: handler.callbacks.clear(),
        ):
            change()
            called.append("|")
            handler.on_step_begin(arguments(), m.TrainerState(), m.TrainerControl())
        return called

    same(code)


def test_pop_by_class_returns_the_first_of_it_or_of_a_derived_class() -> None:
    def code(m: Any) -> Any:
        first, second, derived = callbacks_of(m)
        handler = handler_of(m, derived, first)
        popped = [handler.pop_callback(cls) for cls in (first, second, first, first)]
        return [type(c).__name__ for c in popped], handler.callback_list

    assert same(code)[0] == ["Derived", "NoneType", "First", "NoneType"]


def test_pop_by_instance_returns_that_one() -> None:
    def code(m: Any) -> Any:
        first, _, _ = callbacks_of(m)
        one, two = first(), first()
        handler = handler_of(m, one, two)
        popped = handler.pop_callback(two)
        return popped is two, handler.callbacks[-1] is one, handler.pop_callback(two)

    assert same(code) == (True, True, None)


def test_remove_returns_nothing_and_only_refuses_absent_instances() -> None:
    def code(m: Any) -> Any:
        first, second, derived = callbacks_of(m)
        one = first()
        handler = handler_of(m, one, derived)
        returned = [handler.remove_callback(what) for what in (second, one, first, first)]
        with pytest.raises(ValueError):
            handler.remove_callback(one)
        return returned, handler.callback_list

    assert same(code) == ([None] * 4, "DefaultFlowCallback")


def test_an_instance_is_found_by_equality() -> None:
    def code(m: Any) -> Any:
        @dataclasses.dataclass
        class Equal(m.TrainerCallback):  # type: ignore[name-defined, misc]
            value: int

        kept = Equal(1)
        handler = handler_of(m, kept)
        return handler.pop_callback(Equal(2)), handler.pop_callback(Equal(1)) is kept

    assert same(code) == (None, True)


def test_a_class_that_needs_arguments_is_an_error() -> None:
    def code(m: Any) -> Any:
        class Needs(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def __init__(self, something: Any) -> None:
                pass

        handler = handler_of(m)
        with pytest.raises(TypeError, match="something"):
            handler.add_callback(Needs)
        return handler.callback_list

    same(code)


def test_a_second_callback_of_a_class_is_warned_about_and_added() -> None:
    def code(m: Any) -> Any:
        first, second, derived = callbacks_of(m)
        handler = handler_of(m, first, second)
        counts = []
        for added in (first, second(), derived, first):
            with warnings_of(m) as warnings:
                handler.add_callback(added)
            listed = "DefaultFlowCallback\nFirst\nSecond"
            counts.append((len(warnings), all(listed in warning for warning in warnings)))
        return counts, handler.callback_list

    assert [count for count, _ in same(code)[0]] == [1, 1, 0, 1]


def test_a_missing_default_flow_is_warned_about() -> None:
    def code(m: Any) -> Any:
        class Flow(m.DefaultFlowCallback):  # type: ignore[name-defined, misc]
            pass

        first, _, _ = callbacks_of(m)
        counts = []
        for callbacks in ([], [first], [m.DefaultFlowCallback], [first(), Flow()]):
            with warnings_of(m) as warnings:
                m.CallbackHandler(callbacks, None, None, None, None)
            counts.append((len(warnings), ["DefaultFlowCallback" in text for text in warnings]))
        return counts

    assert [count for count, _ in same(code)] == [1, 1, 0, 0]


# --- events -------------------------------------------------------------------


def recorder_of(m: Any) -> Any:
    """Return a callback that overrides all of transformers' events and records its arguments."""

    def method(event: str) -> Any:
        def on_event(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kwargs.pop(
                "tokenizer", None
            )  # ours also passes the processing class under its old name
            self.calls.append((event, args, flags(control), kwargs))

        return on_event

    methods = {event: method(event) for event in events()}
    return type("Recorder", (m.TrainerCallback,), {**methods, "calls": []})()


@pytest.mark.parametrize("event", events())
def test_a_callback_receives_the_same_arguments(event: str) -> None:
    def code(m: Any) -> Any:
        recorder = recorder_of(m)
        handler = m.CallbackHandler([recorder], "model", "tokenizer", "optimizer", "schedule")
        state, control = m.TrainerState(max_steps=9), m.TrainerControl()
        given = {name: {"loss": 1.0} for name in required(event)}
        getattr(handler, event)("args", state, control, **given, of_a_newer_loop=3)
        handler.model, handler.processing_class, handler.optimizer = "m", "p", "o"
        handler.lr_scheduler, handler.train_dataloader, handler.eval_dataloader = "s", "t", "e"
        if event == "on_train_begin":
            handler.on_train_end("args", state, control)  # ours refuses to begin twice
        getattr(handler, event)("args", state, control, *given.values())
        return [call for call in recorder.calls if call[0] == event]

    assert len(same(code)) == 2


@pytest.mark.parametrize("event", events())
def test_an_event_leaves_the_same_flags_on(event: str) -> None:
    def code(m: Any) -> Any:
        found = []
        for before in product((False, True), repeat=len(FLAGS)):
            handler = m.CallbackHandler([], None, None, None, None)
            control = m.TrainerControl(*before)
            after = getattr(handler, event)(
                arguments(), m.TrainerState(), control, **required(event)
            )
            found.append((flags(after), after is control))
        return found

    same(code)


@given(
    st.lists(
        st.tuples(st.sampled_from(events()), st.sampled_from((None, *FLAGS)), st.booleans()),
        max_size=30,
    )
)
def test_any_sequence_of_events_changes_the_flags_in_the_same_way(
    sequence: list[tuple[str, str | None, bool]],
) -> None:
    def code(m: Any) -> Any:
        def method(event: str) -> Any:
            def on_event(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                seen.append((event, flags(control)))
                if flag is not None:
                    setattr(control, flag, value)

            return on_event

        methods = {name: method(name) for name in events()}
        switch = type("Switch", (m.TrainerCallback,), methods)
        flag, value = None, False
        seen: list[Any] = []
        handler = handler_of(m, switch)
        state, control = m.TrainerState(max_steps=7, epoch=0.0), m.TrainerControl()
        state.compute_steps(SimpleNamespace(logging_steps=2, eval_steps=3, save_steps=4), 7)
        args = arguments(eval_strategy="steps")
        for event, switched, to in sequence:
            flag, value = switched, to
            if event == "on_step_end":
                state.global_step += 1
            if event == "on_train_begin":  # ours refuses to begin twice without an end
                handler = handler_of(m, switch)
            control = getattr(handler, event)(args, state, control, **required(event))
            seen.append(flags(control))
        return seen

    same(code)


def test_a_returned_control_replaces_the_one_that_was_passed() -> None:
    def code(m: Any) -> Any:
        other = m.TrainerControl(should_log=True)

        class Replaces(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
                control.should_save = True
                return other

        recorder = recorder_of(m)
        handler = handler_of(m, Replaces, recorder)
        passed = m.TrainerControl(should_evaluate=True)
        returned = handler.on_step_begin(arguments(), m.TrainerState(), passed)
        return returned is other, flags(passed), flags(returned), recorder.calls[-1][2]

    assert same(code)[0] is True


def test_call_event_resets_no_flag_and_passes_keywords_on() -> None:
    def code(m: Any) -> Any:
        recorder = recorder_of(m)
        handler = handler_of(m, recorder)
        control = m.TrainerControl(should_log=True)
        args, state = arguments(), m.TrainerState(epoch=0.0)
        for event in events():
            given = {**required(event), "more": [event]}
            control = handler.call_event(event, args, state, control, **given)
        return flags(control), [(event, kwargs) for event, _, _, kwargs in recorder.calls]

    same(code)


def test_call_event_calls_a_method_that_is_not_one_of_our_events() -> None:
    def code(m: Any) -> Any:
        class Callback(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def on_generation(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                control.should_log = True
                called.append(kwargs["text"])

        called: list[str] = []
        handler = m.CallbackHandler([Callback], None, None, None, None)
        control = m.TrainerControl()
        control = handler.call_event("on_generation", None, m.TrainerState(), control, text="a")
        return called, flags(control)

    same(code)


def test_a_handler_can_be_subclassed() -> None:
    def code(m: Any) -> Any:
        class Handler(m.CallbackHandler):  # type: ignore[name-defined, misc]
            def call_event(
                self, event: str, args: Any, state: Any, control: Any, **kwargs: Any
            ) -> Any:
                called.append(event)
                return super().call_event(event, args, state, control, **kwargs)

        called: list[str] = []
        # Ours skips call_event if no callback overrides the event, but one does here.
        handler = Handler([m.DefaultFlowCallback, recorder_of(m)], None, None, None, None)
        for event in events():
            getattr(handler, event)(
                arguments(), m.TrainerState(epoch=0.0), m.TrainerControl(), **required(event)
            )
        return called

    assert same(code) == events()


def test_a_handler_can_be_a_callback_of_another() -> None:
    def code(m: Any) -> Any:
        recorder = recorder_of(m)
        inner = m.CallbackHandler([recorder], "model", None, None, None)
        return inner.on_step_begin(None, m.TrainerState(), m.TrainerControl(True)), isinstance(
            inner, m.TrainerCallback
        )

    def compared(m: Any) -> Any:
        control, is_callback = code(m)
        return flags(control), is_callback

    same(compared)


def test_an_error_of_a_callback_reaches_the_loop() -> None:
    def code(m: Any) -> Any:
        class Fails(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                raise ZeroDivisionError("of the callback")

        recorder = recorder_of(m)
        with pytest.raises(ZeroDivisionError, match=r"^of the callback$"):
            handler_of(m, Fails, recorder).on_step_begin(None, m.TrainerState(), m.TrainerControl())
        return recorder.calls

    assert same(code) == []


def test_super_may_be_called_for_any_event() -> None:
    def code(m: Any) -> Any:
        callback = m.TrainerCallback()
        return [
            getattr(callback, event)(None, m.TrainerState(), m.TrainerControl(), **required(event))
            for event in events()
        ] + [callback.on_predict(None, None, None, {})]

    assert set(same(code)) == {None}


# --- the callbacks ------------------------------------------------------------


def test_the_default_flow_asks_for_the_same_at_every_step() -> None:
    strategies = ("no", "steps", "epoch")

    def code(m: Any) -> Any:
        flow, asked = m.DefaultFlowCallback(), []
        for logging_, evaluation, saving, first, delay in product(
            strategies, strategies, (*strategies, "best"), (False, True), (0, 2, 2.5)
        ):
            args = arguments(
                logging_strategy=logging_,
                eval_strategy=evaluation,
                save_strategy=saving,
                logging_first_step=first,
                eval_delay=delay,
            )
            for every, max_steps in product(((1, 2, 3), (2, 3, 1), (3, 5, 0)), (0, 1, 5, 6)):
                for step in range(8):
                    state = m.TrainerState(
                        step / 3, step, max_steps, every[0], every[1], every[2], num_train_epochs=2
                    )
                    at_step = flow.on_step_end(args, state, m.TrainerControl(), model=None)
                    at_epoch = flow.on_epoch_end(args, state, m.TrainerControl(), model=None)
                    asked.append((flags(at_step), flags(at_epoch)))
        return asked

    same(code)


@given(
    metrics=st.lists(st.floats(allow_nan=True) | st.integers(-3, 3), min_size=1, max_size=12),
    greater=st.booleans(),
    patience=st.integers(1, 4),
    threshold=st.sampled_from((0.0, 0.5, 1.0)) | st.floats(0, 10),
    prefixed=st.booleans(),
)
def test_early_stopping_counts_and_stops_at_the_same_evaluations(
    metrics: list[float], greater: bool, patience: int, threshold: float, prefixed: bool
) -> None:
    if math.isnan(metrics[0]):
        metrics[0] = 0.0  # for transformers, a first NaN is an improvement; for ours, never

    def code(m: Any) -> Any:
        callback = m.EarlyStoppingCallback(patience, early_stopping_threshold=threshold)
        handler = handler_of(m, callback)
        args = arguments(
            metric_for_best_model="eval_score" if prefixed else "score",
            greater_is_better=greater,
            eval_strategy="epoch",
        )
        state = m.TrainerState(max_steps=100)
        control = handler.on_train_begin(args, state, m.TrainerControl())
        counted = []
        for value in metrics:
            metrics_now = {"eval_loss": 1.0, "eval_score": value}
            control = handler.on_evaluate(args, state, control, metrics_now)
            counted.append((callback.early_stopping_patience_counter, flags(control)))
            best = state.best_metric
            if best is None or (value > best if greater else value < best):
                state.best_metric = value
        state_of_callback = callback.state()
        state_of_callback["attributes"].pop("best_metric", None)  # ours keeps it there
        return counted, state_of_callback

    same(code)


def test_early_stopping_refuses_and_warns_at_the_same_arguments() -> None:
    def code(m: Any) -> Any:
        outcomes = []
        for metric, strategy, best in product((None, "loss"), ("no", "epoch"), (False, True)):
            args = arguments(
                metric_for_best_model=metric, eval_strategy=strategy, load_best_model_at_end=best
            )
            refused = False
            with warnings_of(m) as warnings:
                try:
                    m.EarlyStoppingCallback().on_train_begin(
                        args, m.TrainerState(), m.TrainerControl()
                    )
                except (AssertionError, ValueError):  # theirs raises the first, ours the second
                    refused = True
            outcomes.append((refused, refused or len(warnings)))
        return outcomes

    same(code)


def test_the_counting_of_early_stopping_can_be_overridden() -> None:
    def code(m: Any) -> Any:
        class Always(m.EarlyStoppingCallback):  # type: ignore[name-defined, misc]
            def check_metric_value(
                self, args: Any, state: Any, control: Any, metric_value: Any
            ) -> None:
                checked.append(metric_value)
                self.early_stopping_patience_counter += 1

        checked: list[float] = []
        args = arguments(
            metric_for_best_model="loss", greater_is_better=False, eval_strategy="epoch"
        )
        callback, control, state = Always(2), m.TrainerControl(), m.TrainerState()
        stops = []
        for value in (3.0, 2.0, 1.0):
            callback.on_evaluate(args, state, control, {"eval_loss": value})
            stops.append(control.should_training_stop)
        return checked, stops

    assert same(code) == ([3.0, 2.0, 1.0], [False, True, True])


def test_the_constructors_set_the_same_attributes() -> None:
    def code(m: Any) -> Any:
        early, progress = m.EarlyStoppingCallback(3, 0.5), m.ProgressCallback(max_str_len=7)
        return (
            early.early_stopping_patience,
            early.early_stopping_threshold,
            early.early_stopping_patience_counter,
            progress.max_str_len,
            progress.training_bar,
            progress.prediction_bar,
        )

    same(code)


def test_the_printer_prints_one_line_per_log_in_the_main_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def code(m: Any) -> Any:
        for main in (True, False):
            state = m.TrainerState(is_local_process_zero=main)
            for logs in ({"loss": 0.123456789, "total_flos": 12, "epoch": 1}, {"text": "a"}):
                m.PrinterCallback().on_log(None, state, m.TrainerControl(), logs=logs)
        printed = capsys.readouterr().out.splitlines()
        return [line.replace("'0.1235'", "0.1235") for line in printed]  # ours prints numbers

    assert len(same(code)) == 2


# --- control and state --------------------------------------------------------


def test_a_control_is_made_compared_shown_and_copied_in_the_same_way() -> None:
    def code(m: Any) -> Any:
        control = m.TrainerControl(True, should_save=True)
        copies = (
            copy.copy(control),
            copy.deepcopy(control),
            pickle.loads(pickle.dumps(control)),
            m.TrainerControl.from_state(control.state()),
        )
        changed = copy.copy(control)
        changed.should_log = True
        state = control.state()
        return (
            (state["args"], list(state)),  # our attributes contain who asked
            repr(control),
            [made == control for made in copies],
            [flags(made) for made in copies],
            changed == control,
            flags(control),
            m.TrainerControl() == m.TrainerControl(False, False),
            isinstance(control, m.ExportableState),
        )

    same(code)


def test_a_control_is_a_dataclass() -> None:
    def code(m: Any) -> Any:
        @dataclasses.dataclass
        class Pushing(m.TrainerControl):  # type: ignore[name-defined, misc]
            should_push: bool = False

        control, pushing = m.TrainerControl(should_log=True), Pushing(should_push=True)
        passed = handler_of(m).on_step_end(
            arguments(), m.TrainerState(0.0, 1, 1), handler_of(m).on_step_begin(None, None, pushing)
        )
        return (
            [(field.name, field.default) for field in dataclasses.fields(control)],
            dataclasses.asdict(control),
            vars(control),
            flags(dataclasses.replace(control, should_save=True)),
            repr(pushing).partition(".<locals>.")[2],
            pushing == Pushing(should_push=True),
            (passed is pushing, flags(passed)),
            m.TrainerControl.should_log,
        )

    same(code)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
def test_a_handler_can_be_copied(how: Callable[[Any], Any]) -> None:
    def code(m: Any) -> Any:
        handler = how(handler_of(m, m.EarlyStoppingCallback(3)))
        control = handler.on_step_end(
            arguments(), m.TrainerState(0.0, 1, 1), m.TrainerControl(should_log=True)
        )
        patience = handler.callbacks[1].early_stopping_patience
        return handler.callback_list, handler.model, flags(control), patience

    same(code)


def test_a_callback_may_copy_its_control() -> None:
    def code(m: Any) -> Any:
        class Copies(m.TrainerCallback):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                self.cannot_be_copied = threading.Lock()

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                made.append(flags(copy.deepcopy(control)))

        made: list[Any] = []
        handler_of(m, Copies).on_step_begin(None, m.TrainerState(), m.TrainerControl(True))
        return made

    same(code)


def test_a_subclass_of_the_progress_bar_finds_the_current_step() -> None:
    def code(m: Any) -> Any:
        class Progress(m.ProgressCallback):  # type: ignore[name-defined, misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.training_bar.update(state.global_step - self.current_step)
                self.current_step = state.global_step

        progress, state = Progress(), m.TrainerState(0.0, 0, 3)
        handler = handler_of(m, progress)
        control = handler.on_train_begin(arguments(), state, m.TrainerControl())
        state.global_step = 2
        handler.on_step_end(arguments(), state, control)
        return progress.current_step

    assert same(code) == 2


def test_unused_steps_may_be_none() -> None:
    def code(m: Any) -> Any:
        nothing = arguments(logging_strategy="no", save_strategy="no")
        state = m.TrainerState(0.0, 1, 9, logging_steps=None, eval_steps=None, save_steps=0)
        return flags(m.DefaultFlowCallback().on_step_end(nothing, state, m.TrainerControl()))

    same(code)


@pytest.mark.parametrize("flow", [THEIRS, OURS])
def test_our_handler_accepts_either_default_flow(flow: Any) -> None:
    with warnings_of(OURS) as warnings:
        OURS.CallbackHandler([flow.DefaultFlowCallback], None, None, None, None)
    assert warnings == []


def test_the_state_of_a_callback_of_transformers_is_exported_and_restored() -> None:
    stopping, again = THEIRS.EarlyStoppingCallback(3), THEIRS.EarlyStoppingCallback(3)
    stopping.early_stopping_patience_counter = 2
    OURS.restore_states([again], OURS.export_states([stopping], {}))
    assert again.state() == stopping.state()


def test_a_callback_with_a_state_is_restored_from_it() -> None:
    def code(m: Any) -> Any:
        class Counts(m.TrainerCallback, m.ExportableState):  # type: ignore[name-defined, misc]
            def __init__(self, start: int = 0) -> None:
                self.start = start
                self.count = start

            def state(self) -> dict[str, Any]:
                return {"args": {"start": self.start}, "attributes": {"count": self.count}}

        counts = Counts(2)
        counts.count = 5
        restored = Counts.from_state(counts.state())
        early = m.EarlyStoppingCallback(3, 0.5)
        early.early_stopping_patience_counter = 2
        again = type(early).from_state(early.state())
        with pytest.raises(NotImplementedError):
            m.ExportableState().state()
        return vars(restored), early.state(), again.state(), type(again).__name__

    same(code)


def test_a_state_accepts_the_states_of_callbacks() -> None:
    def code(m: Any) -> Any:
        one, two = m.EarlyStoppingCallback(1), m.EarlyStoppingCallback(2)
        control = m.TrainerControl(should_save=True)
        with pytest.raises(TypeError):
            m.TrainerState(stateful_callbacks=[m.PrinterCallback()])
        with_control = m.TrainerState(stateful_callbacks=[one, control]).stateful_callbacks
        return (
            list(with_control),
            with_control["TrainerControl"]["args"],
            m.TrainerState(stateful_callbacks=[one, two]).stateful_callbacks,
            m.TrainerState(stateful_callbacks=[one, two, one]).stateful_callbacks,
            m.TrainerState(stateful_callbacks={"A": {"args": {}}}).stateful_callbacks,
            m.TrainerState(stateful_callbacks=None).stateful_callbacks,
            m.TrainerState(log_history=None).log_history,
        )

    same(code)


@pytest.mark.parametrize("max_steps", [1, 7, 100])
def test_steps_are_computed_in_the_same_way(max_steps: int) -> None:
    def code(m: Any) -> Any:
        computed = []
        for given_steps in product((None, 1, 2, 0.1, 0.34, 0.999), repeat=3):
            state = m.TrainerState()
            names = ("logging_steps", "eval_steps", "save_steps")
            state.compute_steps(
                SimpleNamespace(**dict(zip(names, given_steps, strict=True))), max_steps
            )
            computed.append((state.logging_steps, state.eval_steps, state.save_steps))
        return computed

    same(code)


def full_state(m: Any) -> Any:
    """Return a state in which no field has its default."""
    return m.TrainerState(
        epoch=1.5,
        global_step=30,
        max_steps=40,
        logging_steps=1,
        eval_steps=2,
        save_steps=3,
        train_batch_size=4,
        num_train_epochs=2,
        num_input_tokens_seen=123,
        total_flos=1e17,
        log_history=[{"loss": 0.1, "step": 1, "epoch": 0.05}, {"eval_text": "häß", "step": 2}],
        best_metric=0.25,
        best_global_step=2,
        best_model_checkpoint="out/checkpoint-2",
        is_local_process_zero=False,
        is_world_process_zero=False,
        is_hyper_param_search=True,
        trial_name="trial",
        trial_params={"learning_rate": 0.1, "deep": True},
        stateful_callbacks={
            "TrainerControl": m.TrainerControl(should_save=True).state(),
            "EarlyStoppingCallback": [m.EarlyStoppingCallback(n).state() for n in (1, 2)],
        },
    )


@pytest.mark.parametrize(
    ("writer", "reader"), list(product((THEIRS, OURS), repeat=2)), ids=lambda m: m.__name__
)
def test_both_read_state_files_of_both(writer: Any, reader: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "trainer_state.json")
    for state in (full_state(writer), writer.TrainerState()):
        assert state.save_to_json(path) is None
        read = reader.TrainerState.load_from_json(path)
        assert type(read) is reader.TrainerState
        for name in (field.name for field in dataclasses.fields(THEIRS.TrainerState)):
            assert getattr(read, name) == getattr(state, name)
        control = reader.TrainerControl.from_state(
            full_state(writer).stateful_callbacks["TrainerControl"]
        )
        assert flags(control) == (False, False, True, False, False)
