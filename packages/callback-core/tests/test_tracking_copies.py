"""Copies of a tracker's callback: in a worker, in a copied trainer, in a file."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    runs,
    tracked,
    warned,
)

from callback_core import CallbackHandler, TrainerControl, TrainerState
from callback_core.tracking import TrackerCallback

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


def log_in_worker(handler: CallbackHandler, args: Any, state: TrainerState) -> str:
    """Fire events of a training under way, as a worker that got the handler may do."""
    for step in (5, 6):
        state.global_step = step
        handler.on_log(args, state, TrainerControl(), logs={"loss": 5.0})
        handler.on_save(args, state, TrainerControl())
    handler.on_train_end(args, state, TrainerControl())
    return type(handler.callbacks[-1]).__name__


def train_in_worker(output_dir: Path, callback: TrackerCallback) -> None:
    Training(output_dir, [callback]).train(3)


def in_worker(call: Callable[..., Any], *values: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *values).result()


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_callback_can_be_copied_at_any_time_and_the_run_goes_on(
    tmp_path: Path, out: Path, kind: str, delivery: Any
) -> None:
    callback, copied = tracked(out, delivery=delivery), COPIES[kind]
    assert copied(callback).options == callback.options
    training = Training(tmp_path / "run", [callback])
    training.begin()
    training.step()
    assert eventually(lambda: callback.member is not None and callback.member.run_id is not None)
    during = copied(callback)
    training.step()
    training.end()
    assert copied(callback).session is None
    assert during.session is None
    assert callback.session is not None
    assert curve(out) == expected(1, 2)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_trains_like_a_new_callback(tmp_path: Path, out: Path, kind: str) -> None:
    callback = tracked(out)
    Training(tmp_path / "first", [callback]).train(2)
    other = COPIES[kind](callback)
    Training(tmp_path / "second", [other]).train(2)
    assert curve(out) == expected(1, 2, 1, 2)
    assert len(runs(out)) == 2
    assert other.tracker is not callback.tracker


def test_a_copy_in_a_worker_does_not_write_into_the_run(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path / "run", [tracked(out)])
    training.begin()
    training.step()
    in_worker(log_in_worker, training.handler, training.args, training.state)
    training.step()
    training.end()
    assert curve(out) == expected(1, 2)
    assert len(runs(out)) == 1
    assert len([*tmp_path.glob("run/tracking/*")]) == 1


def test_a_copy_in_a_worker_can_record_a_training_of_its_own(tmp_path: Path, out: Path) -> None:
    callback = tracked(out)
    in_worker(train_in_worker, tmp_path / "first", callback)
    in_worker(train_in_worker, tmp_path / "second", callback)
    assert curve(out) == expected(1, 2, 3, 1, 2, 3)
    assert len({call["pid"] for call in calls(out, "open")}) == 2


def test_a_copy_that_is_to_resume_continues_the_run(tmp_path: Path, out: Path) -> None:
    callback = tracked(out)
    Training(tmp_path / "run", [callback]).train(2)
    resumed = tracked(out)
    resumed.load_state_dict(callback.state_dict())
    state = TrainerState(global_step=2, max_steps=9)
    Training(tmp_path / "run", [COPIES["pickle"](resumed)], state).train(1)
    assert len(runs(out)) == 1


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_without_the_user_s_object_says_that_it_records_nothing(
    tmp_path: Path, out: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = COPIES[kind](tracked(out, bound=True))
    Training(tmp_path / "run", [other]).train(2)
    assert calls(out) == []
    [warning] = warned(caplog)
    assert FileTracker.name in warning
    assert TrackerCallback.__name__ in warning
