"""A callback logs from any event by `log_values`, in transformers' trainer and in ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_training import TRAINERS, build

from callback_core import TrainerCallback, log_values


class Logs(TrainerCallback):
    """Logs a value from one event, and notes the logs that it sees."""

    def __init__(self, event: str) -> None:
        self.seen: list[dict[str, Any]] = []
        setattr(self, event, self._log)

    def _log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        log_values(control, {"own": state.global_step})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append(dict(logs))


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end"])
def test_a_callback_logs_from_any_event(trainer: str, event: str, tmp_path: Path) -> None:
    callback = Logs(event)
    made = build(trainer, tmp_path, callback, max_steps=5, logging_steps=1)
    made.train()
    steps = [1, 2, 3, 4, 5] if event == "on_step_end" else [5]
    history = made.state.log_history
    assert [log["own"] for log in history if "own" in log] == steps
    assert [log["step"] for log in history if "loss" in log] == [1, 2, 3, 4, 5]
    assert [logs["own"] for logs in callback.seen if "own" in logs] == steps


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_callback_that_logs_at_every_log_is_refused(trainer: str, tmp_path: Path) -> None:
    class Endless(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            log_values(control, {"again": 1})

    with pytest.raises(RuntimeError, match="again"):
        build(trainer, tmp_path, Endless(), max_steps=1, logging_steps=1).train()


def test_values_without_a_trainer_are_refused() -> None:
    control = TRAINERS["transformers"].TrainerControl()
    with pytest.raises(RuntimeError, match="lost"):
        log_values(control, {"lost": 1})
