"""The table of events, and the class that declares a method for each."""

from __future__ import annotations

import pytest

from callback_core import COMMON_KEYWORDS, EVENTS, CallbackHandler, TrainerCallback, TrainerControl

PAGE = {
    "on_init_end",
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_step_begin",
    "on_substep_end",
    "on_step_end",
    "on_evaluate",
    "on_predict",
    "on_save",
    "on_log",
    "on_prediction_step",
}
NEWER = {"on_pre_optimizer_step", "on_optimizer_step", "on_push_begin"}


def test_the_table_holds_the_page_s_events_the_newer_ones_and_ours() -> None:
    assert set(EVENTS) == PAGE | NEWER | {"on_exception"}


def test_the_base_class_declares_exactly_the_events() -> None:
    methods = {name for name, value in vars(TrainerCallback).items() if callable(value)}
    assert {name for name in methods if name.startswith("on_")} == set(EVENTS)


def test_the_handler_overrides_every_event() -> None:
    assert {name for name in vars(CallbackHandler) if name.startswith("on_")} == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_the_base_class_says_when_an_event_happens_and_what_it_passes(event) -> None:  # type: ignore[no-untyped-def]
    said = getattr(TrainerCallback, event.name).__doc__
    assert said.startswith(event.when)
    assert all(f"Passes `{name}`" in said for name in event.passes)


def test_resets_name_flags_of_the_control() -> None:
    flags = {flag for event in EVENTS.values() for flag in event.resets}
    assert flags == set(vars(TrainerControl())) & flags


def test_every_event_passes_the_tokenizer_under_both_names() -> None:
    assert {"tokenizer", "processing_class"} < set(COMMON_KEYWORDS)
