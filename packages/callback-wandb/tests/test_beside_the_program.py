"""The callback beside the program's own calls of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb
from recorded import the_run

from callback_core import TrainerCallback
from callback_wandb import WandbCallback
from trainer_torch.testing import logged_points, small_trainer

STEPS = 48


def logs_at(event: str, every: int = 1, numbered: bool = True) -> Any:
    """Return a callback that logs to W&B in `event`."""

    def log(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % every == 0:
            number = {"step": state.global_step} if numbered else {}
            wandb.log({"x": float(state.global_step)}, **number)

    return type("Logs", (TrainerCallback,), {event: log})


def rows_of(folder: Path) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """Return the program's values by row and by step, and ours by step."""
    rows = the_run(folder).rows
    mine = {row["_step"]: row["x"] for row in rows if "x" in row}
    losses = {row["train/global_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    evaluated = {row["train/global_step"]: row["eval/loss"] for row in rows if "eval/loss" in row}
    return mine, losses, evaluated


@pytest.mark.parametrize("whose", ["the program's run", "the training's run"])
@pytest.mark.parametrize("event", ["on_step_end", "on_step_begin", "on_log"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("every", [1, 5])
def test_rows_that_the_program_numbers_keep_their_numbers(
    whose: str, event: str, first: bool, every: int, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    if whose == "the program's run":
        wandb.init(project="own", dir=tmp_path)
        folder = tmp_path
    callbacks = [WandbCallback, logs_at(event, every)]
    made = small_trainer(
        tmp_path / "out", *(callbacks[::-1] if first else callbacks), num_train_epochs=12
    )
    made.train()
    wandb.finish()
    wandb.teardown()
    mine, losses, evaluated = rows_of(folder)
    shift = 1 if event == "on_step_begin" else 0
    expected = {s: float(s) for s in range(every, STEPS + 1 - shift, every)}
    assert {number: value for number, value in mine.items() if number} == expected
    logged = logged_points(made)
    assert losses == {s: v for (name, s), v in logged.items() if name == "train/loss"}
    assert evaluated == {s: v for (name, s), v in logged.items() if name == "eval/loss"}
