"""The flags, and who asked for them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import (
    FLAG_BITS,
    CallbackHandler,
    DefaultFlowCallback,
    Request,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    flag_bits,
    flags_differ,
    request_stop,
)
from callback_core.control import FLAGS


class Asking(TrainerCallback):
    """Asks for a log by its flag, and to stop with a reason."""

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = True
        control.request_stop("enough")


def step_end(control: TrainerControl, *callbacks: Any) -> CallbackHandler:
    handler = CallbackHandler([DefaultFlowCallback, *callbacks], None, None, None, None)
    handler.on_step_end(
        Arguments(logging_strategy="no"), TrainerState(global_step=7, max_steps=9), control
    )
    return handler


def test_all_flags_are_off_at_first() -> None:
    assert TrainerControl() == TrainerControl(False, False, False, False, False)
    assert TrainerControl().requests == ()


def test_two_controls_are_equal_when_their_flags_are() -> None:
    control = TrainerControl()
    step_end(control, Asking)
    assert control == TrainerControl(should_training_stop=True, should_log=True)
    assert control != TrainerControl()


def test_a_flag_is_attributed_to_the_callback_that_set_it_and_to_its_step() -> None:
    control = TrainerControl()
    step_end(control, Asking)
    assert control.requests == (
        Request("should_log", "Asking", 7),
        Request("should_training_stop", "Asking", 7, "enough"),
    )
    assert str(control.requests[1]) == "Asking asked for should_training_stop at step 7: enough"


def test_a_flag_set_outside_of_an_event_is_the_program_s() -> None:
    control = TrainerControl()
    control.should_save = True
    assert str(control.requests[0]) == "the program asked for should_save"


def test_a_request_is_forgotten_with_its_flag() -> None:
    control = TrainerControl()
    handler = step_end(control, Asking)
    handler.on_step_begin(Arguments(), TrainerState(), control)
    assert [request.flag for request in control.requests] == ["should_training_stop"]
    control.should_training_stop = False
    assert control.requests == ()


def test_everyone_who_asked_is_kept() -> None:
    class AlsoAsking(Asking):
        pass

    control = TrainerControl()
    step_end(control, Asking, AlsoAsking)
    assert [request.by for request in control.requests if request.flag == "should_log"] == [
        "Asking",
        "AlsoAsking",
    ]


class Fresh(TrainerCallback):
    """Returns another control than the one that it is given."""

    def __init__(self) -> None:
        self.made = TrainerControl()

    def on_step_end(self, *args: Any, **kwargs: Any) -> TrainerControl:
        return self.made


def test_a_returned_control_is_attributed_as_the_one_before_which_is_left_alone() -> None:
    before, fresh = TrainerControl(), Fresh()
    step_end(before, fresh, Asking)
    assert [request.by for request in fresh.made.requests] == ["Asking", "Asking"]
    for control in (before, fresh.made):
        control.requests = ()
        control.should_save = True
        assert str(control.requests[0]) == "the program asked for should_save"


def test_an_error_after_a_returned_control_leaves_both_alone() -> None:
    class Fails(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise OSError

    before, fresh = TrainerControl(), Fresh()
    with pytest.raises(OSError):
        step_end(before, fresh, Fails)
    for control in (before, fresh.made):
        control.should_save = True
        assert control.requests[-1].by is None


def test_a_control_is_a_dataclass_of_its_flags() -> None:
    control = TrainerControl(should_log=True)
    assert tuple(field.name for field in dataclasses.fields(control)) == FLAGS
    assert dataclasses.asdict(control) == {**dict.fromkeys(FLAGS, False), "should_log": True}
    assert dataclasses.replace(control, should_save=True) == TrainerControl(
        should_save=True, should_log=True
    )
    assert vars(control) == dataclasses.asdict(control)
    assert TrainerControl.should_log is False


def test_a_dataclass_may_add_a_flag() -> None:
    @dataclasses.dataclass
    class Pushing(TrainerControl):
        should_push: bool = False

    control = Pushing(should_push=True)
    step_end(control, Asking)
    assert repr(control).endswith("should_log=True, should_push=True)")
    assert control == Pushing(True, should_log=True, should_push=True) != Pushing(True, False)
    assert [request.by for request in control.requests] == ["Asking", "Asking"]


def test_a_subclass_need_not_call_the_constructor() -> None:
    class Bare(TrainerControl):
        def __init__(self) -> None:
            self.should_save = True

    assert [request.flag for request in Bare().requests] == ["should_save"]
    assert (Bare().should_save, Bare().should_log) == (True, False)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda control: pickle.loads(pickle.dumps(control)),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_in_an_event_takes_flags_and_requests_and_is_nobody_s(how: str) -> None:
    class Copies(TrainerCallback):
        def __init__(self) -> None:
            self.cannot_be_copied = threading.Lock()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_log = True
            made.append(COPIES[how](control))

    made: list[TrainerControl] = []
    control = TrainerControl()
    step_end(control, Copies)
    assert (made[0], made[0].requests) == (control, control.requests)
    made[0].should_save = True
    assert made[0].requests[-1] == Request("should_save", None, None)
    assert len(control.requests) == 1


def test_an_event_that_a_callback_fires_leaves_requests_to_the_loop() -> None:
    class Evaluates(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            handler.on_log(args, state, control, logs={"mine": 1.0})
            handler.on_evaluate(args, state, control, metrics={"eval_mine": 1.0})
            handler.on_save(args, state, control, checkpoint_dir="mine")

    control, asked = TrainerControl(), TrainerControl(False, False, True, True, True)
    handler = CallbackHandler([DefaultFlowCallback, Evaluates], None, None, None, None)
    control.requests = asked.requests
    args, state = Arguments(logging_strategy="no"), TrainerState(global_step=7, max_steps=9)
    handler.on_step_end(args, state, control)
    assert (control, control.requests) == (asked, asked.requests)
    handler.on_evaluate(args, state, control, metrics={})
    assert not control.should_evaluate


def test_what_an_object_of_the_loop_asks_for_is_attributed_to_it() -> None:
    control = TrainerControl()
    with control.called(Fresh(), TrainerState(global_step=3)):
        control.should_log = True
    control.should_save = True
    assert control.requests == (
        Request("should_log", "Fresh", 3),
        Request("should_save", None, None),
    )


def test_a_stop_with_a_reason_works_in_our_loop_and_in_transformers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = TrainerControl(), SimpleNamespace(should_training_stop=False)
    request_stop(ours, "enough")
    assert (ours.should_training_stop, ours.requests[0].reason) == (True, "enough")
    assert caplog.records == []
    request_stop(theirs, "enough")
    assert theirs.should_training_stop
    assert "enough" in caplog.text


def test_given_requests_bring_their_flags_with_them() -> None:
    control = TrainerControl(should_log=True)
    control.requests = [Request("should_save", "Asking", 3)]
    assert control == TrainerControl(should_save=True)


@pytest.mark.parametrize("flag", FLAGS)
def test_combined_bits_differ_if_only_some_processes_have_set_a_flag(flag: str) -> None:
    with_flag, without = TrainerControl(**{flag: True}), TrainerControl()
    assert flags_differ(flag_bits(with_flag) | flag_bits(without))
    assert not flags_differ(flag_bits(with_flag) | flag_bits(with_flag))
    assert not flags_differ(flag_bits(without) | flag_bits(without))
    assert flag_bits(with_flag) >> FLAG_BITS == 0
