"""Misspelt events, keywords, flags and fields are named with what was meant; others are not."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from callback_core import (
    EVENTS,
    CallbackHandler,
    DefaultFlowCallback,
    EarlyStoppingCallback,
    ExportableState,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from callback_core.control import FLAGS


def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Do nothing."""


def words(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {word for record in caplog.records for word in re.findall(r"\w+", record.getMessage())}


def handler_of(*callbacks: Any) -> CallbackHandler:
    return CallbackHandler([DefaultFlowCallback, *callbacks], None, None, None, None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("on_steps_end", "on_step_end"),
        ("on_step_ends", "on_step_end"),
        ("on_stepend", "on_step_end"),
        ("onStepEnd", "on_step_end"),
        ("On_Step_End", "on_step_end"),
        ("on_setp_end", "on_step_end"),
        ("on_logs", "on_log"),
        ("on_lgo", "on_log"),
        ("on_svae", "on_save"),
        ("on_saved", "on_save"),
        ("on_evaluated", "on_evaluate"),
        ("on_evaluation", "on_evaluate"),
        ("on_training_end", "on_train_end"),
        ("on_train_start", "on_train_begin"),
        ("on_epoch_start", "on_epoch_begin"),
        ("on_sub_step_end", "on_substep_end"),
        ("on_predictions_step", "on_prediction_step"),
        ("on_exceptions", "on_exception"),
        ("on_optimiser_step", "on_optimizer_step"),
        ("on_train_batch_end", "on_step_end"),
        ("on_batch_begin", "on_step_begin"),
        ("on_validation_end", "on_evaluate"),
        ("on_test_batch_end", "on_prediction_step"),
        ("on_save_checkpoint", "on_save"),
    ],
)
def test_a_misspelt_event_is_named_with_the_one_that_is_meant(
    name: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler_of(type("Watch", (TrainerCallback,), {name: method})())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert {"Watch", name, meant} <= words(caplog)


@pytest.mark.parametrize(
    "name",
    [
        *("on_plot", "on_load", "on_loss", "on_step", "on_epoch", "on_close"),
        *("on_error", "on_model_ready", "on_gpu", "once", "only_main", "step"),
    ],
)
def test_a_method_of_the_user_s_own_is_not_named(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler_of(type("Watch", (TrainerCallback,), {name: method, "on_log": method})())
    assert caplog.records == []


def test_an_attribute_that_is_no_method_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    handler_of(type("Watch", (TrainerCallback,), {"on_logs": 3, "on_log": method})())
    assert caplog.records == []


def test_a_misspelt_event_of_a_base_class_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    base = type("Base", (TrainerCallback,), {"on_steps_end": method})
    watch = type("Watch", (base, ExportableState), {"on_steps_end": method})
    handler = handler_of(watch())
    handler.on_train_begin(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    copy.copy(handler)
    handler_of(watch())
    assert len([record for record in caplog.records if "on_steps_end" in record.getMessage()]) == 1


def test_a_callback_for_two_libraries_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    methods = {"on_step_end": method, "on_train_batch_end": method}
    handler_of(type("ForBoth", (TrainerCallback,), methods)())
    assert not caplog.records


def test_a_method_of_another_library_s_callback_is_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs = type("Callback", (), {"on_train_start": method, "on_before_optimizer_step": method})
    handler_of(type("Both", (TrainerCallback, theirs), {"on_train_start": method})())
    assert caplog.records == []


@pytest.mark.parametrize("cls", [PrinterCallback, ProgressCallback, EarlyStoppingCallback])
def test_our_own_callbacks_are_spelt_right(cls: type, caplog: pytest.LogCaptureFixture) -> None:
    handler_of(type("Extended", (cls,), {"on_log": method})())
    assert caplog.records == []


def test_an_object_whose_only_event_is_misspelt_is_refused_with_the_one_that_is_meant() -> None:
    with pytest.raises(TypeError) as error:
        handler_of(type("Plain", (), {"on_steps_end": method})())
    assert {"on_steps_end", "on_step_end"} <= set(re.findall(r"\w+", str(error.value)))


@pytest.mark.parametrize(
    ("event", "keyword", "meant"),
    [
        ("on_log", "log", "logs"),
        ("on_evaluate", "metric", "metrics"),
        ("on_step_end", "lr_schedular", "lr_scheduler"),
        ("on_train_begin", "train_data_loader", "train_dataloader"),
        ("on_save", "checkpoint_dirs", "checkpoint_dir"),
    ],
)
def test_a_misspelt_keyword_of_an_event_is_named_with_the_one_that_is_meant(
    event: str, keyword: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    names: dict[str, Any] = {}
    exec(f"def {event}(self, args, state, control, {keyword}=None, **kwargs): ...", names)
    handler_of(type("Watch", (TrainerCallback,), {event: names[event]})())
    assert {event, keyword, meant} <= words(caplog)


def test_right_keywords_and_those_of_the_user_s_own_are_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for event in EVENTS.values():
        keywords = ", ".join(f"{name}=None" for name in ("model", "mine", *event.passes))
        names: dict[str, Any] = {}
        exec(f"def method(self, args, state, control, {keywords}, **kwargs): ...", names)
        handler_of(type("Watch", (TrainerCallback,), {event.name: names["method"]})())
    assert caplog.records == []


class Sets(TrainerCallback):
    """Sets an attribute of the control and of the state at each step."""

    def __init__(self, control: dict[str, Any], state: dict[str, Any]) -> None:
        self.control, self.state = control, state

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, value in self.control.items():
            setattr(control, name, value)
        for name, value in self.state.items():
            setattr(state, name, value)


def two_steps(control: dict[str, Any], state: dict[str, Any]) -> TrainerControl:
    args: Any = SimpleNamespace(
        logging_strategy="no", eval_strategy="no", save_strategy="no", logging_first_step=False
    )
    handler, made = handler_of(Sets(control, state)), TrainerControl()
    training = TrainerState(max_steps=9)
    for _ in range(2):
        handler.on_step_begin(args, training, made)
        training.global_step += 1
        handler.on_step_end(args, training, made)
    return made


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("should_stop", {"should_training_stop", "should_epoch_stop"}),
        ("stop", {"should_training_stop", "should_epoch_stop"}),
        ("training_stop", {"should_training_stop"}),
        ("stop_training", {"should_training_stop"}),
        ("should_stop_training", {"should_training_stop"}),
        ("should_training_stopp", {"should_training_stop"}),
        ("should_eval", {"should_evaluate"}),
        ("should_sav", {"should_save"}),
        ("shuld_log", {"should_log"}),
        ("should_checkpoint", set()),
        ("early_stop", set()),
    ],
)
def test_a_misspelt_flag_is_named_once_with_those_that_may_be_meant_and_who_set_it(
    name: str, meant: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """All flags are listed at the end, so those that may be meant are named twice."""
    two_steps({name: True}, {})
    [record] = caplog.records
    assert {name, "Sets", *FLAGS} <= words(caplog)
    named = Counter(re.findall(r"\w+", record.getMessage()))
    assert {flag for flag in FLAGS if named[flag] == 2} == meant


@pytest.mark.parametrize("name", ["request_stop", "request"])
def test_an_assignment_to_a_method_of_the_control_is_named(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(TrainerControl(), name, True)
    assert name in words(caplog)


def test_flags_and_a_note_of_the_user_s_own_are_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    control = two_steps({"should_save": True, "note": "mine", "requests": ()}, {})
    assert control.note == "mine"  # type: ignore[attr-defined]
    copy.deepcopy(control).should_log = True
    dataclasses.replace(TrainerControl(), should_log=True)
    assert caplog.records == []


def test_a_subclass_of_the_control_may_have_flags_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Pushing(TrainerControl):
        def __init__(self) -> None:
            super().__init__()
            self.should_push = False

    Pushing().should_push = True
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_step", "max_steps"),
        ("globalstep", "global_step"),
        ("best_metrics", "best_metric"),
        ("log_histroy", "log_history"),
        ("maxSteps", "max_steps"),
        ("should_training_stop", "control"),
    ],
)
def test_a_misspelt_field_of_the_state_is_named_once_with_the_one_that_is_meant(
    name: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    two_steps({}, {name: 3})
    assert len(caplog.records) == 1
    assert {name, meant} <= words(caplog)


def test_an_attribute_of_the_user_s_own_on_the_state_is_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    two_steps({}, {"my_counter": 1, "train_loss": 0.5, "tokens": 3, "best_metric": 0.5})
    state = copy.deepcopy(TrainerState(log_history=[{"loss": 1.0}]))
    dataclasses.replace(state, max_steps=4)
    assert caplog.records == []


def test_a_subclass_of_the_state_may_have_fields_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @dataclasses.dataclass
    class Longer(TrainerState):
        epochs: int = 0

    Longer(epochs=3).epochs = 4
    assert caplog.records == []
