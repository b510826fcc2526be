"""Our trainer fires the events that transformers 5.23.0 fires, in its order and with its flags."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from event_cases import CASES, FIRED_WHILE_TRAINING, Case, read_sequences, run

from callback_core import EVENTS, TrainerCallback
from trainer_torch import Trainer, TrainingArguments

RECORDED = read_sequences()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}-{case.name}")
def test_same_events_as_transformers(case: Case, tmp_path: Path) -> None:
    fired = run(case, Trainer, TrainingArguments, TrainerCallback, tmp_path)
    assert fired == RECORDED[case.group, case.name]


def test_every_case_is_recorded_once_and_every_record_has_its_case() -> None:
    cases = Counter((case.group, case.name) for case in CASES)
    assert cases == Counter(dict.fromkeys(RECORDED, 1))


def test_the_cases_reach_every_event_but_two() -> None:
    fired = {line.split()[0] for lines in RECORDED.values() for line in lines}
    assert set(EVENTS) - fired == {"on_exception", "on_push_begin"}


def test_every_action_was_taken_in_the_recorded_run() -> None:
    missed = [
        case.name
        for case in CASES
        if case.action is not None
        and not any(
            line.split()[0] == case.action.event and int(line.split()[1]) >= case.action.step
            for line in RECORDED[case.group, case.name]
        )
    ]
    assert not missed


def test_actions_are_taken_at_every_event_of_training() -> None:
    in_training = set(EVENTS) - {"on_init_end", "on_predict", "on_exception", "on_push_begin"}
    assert set(FIRED_WHILE_TRAINING) == in_training
