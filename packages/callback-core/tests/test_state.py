"""The fields of the state, the steps that it computes, and its file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callback_core import TrainerState

LOGGED = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
)
LOGS = st.lists(st.dictionaries(st.text(max_size=8), LOGGED, max_size=4), max_size=4)


def test_the_page_s_fields_have_the_page_s_defaults() -> None:
    state = TrainerState()
    assert (state.epoch, state.global_step, state.max_steps, state.num_train_epochs) == (
        None,
        0,
        0,
        0,
    )
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (500, 500, 500)
    assert (state.total_flos, state.log_history) == (0, [])
    assert (state.best_metric, state.best_model_checkpoint) == (None, None)
    assert (state.is_local_process_zero, state.is_world_process_zero) == (True, True)
    assert (state.is_hyper_param_search, state.trial_name, state.trial_params) == (
        False,
        None,
        None,
    )


def test_two_states_share_no_history() -> None:
    TrainerState().log_history.append({"loss": 1.0})
    assert TrainerState().log_history == []


@pytest.mark.parametrize(("given_steps", "steps"), [(7, 7), (0.25, 3), (1, 1), (None, 500)])
def test_steps_are_taken_from_the_arguments_and_fractions_are_of_all_steps(
    given_steps: float | None, steps: int
) -> None:
    state = TrainerState()
    state.compute_steps(
        SimpleNamespace(logging_steps=given_steps, eval_steps=given_steps, save_steps=5), 10
    )
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (steps, steps, 5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@given(history=LOGS, trial=st.none() | st.text())
def test_a_saved_state_reads_back_as_it_was(
    directory: Path, history: list[Any], trial: str | None
) -> None:
    path = directory / "trainer_state.json"
    state = TrainerState(
        epoch=0.5, global_step=3, log_history=history, trial_name=trial, best_metric=0.1
    )
    state.save_to_json(path)
    assert TrainerState.load_from_json(path) == state


def test_the_file_has_every_field_and_a_line_for_each_log(tmp_path: Path) -> None:
    state = TrainerState(log_history=[{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}])
    state.save_to_json(tmp_path / "state.json")
    lines = (tmp_path / "state.json").read_text(encoding="utf-8").splitlines()
    assert '{"loss": 0.5, "step": 2}' in lines
    assert all(
        any(line.startswith(f'"{field.name}"') for line in lines) for field in fields(TrainerState)
    )
