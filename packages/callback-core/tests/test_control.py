"""The flags, and who asked for them."""

from __future__ import annotations

from typing import Any

from arguments_for_tests import Arguments

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    Request,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)


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
