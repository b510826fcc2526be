"""The callback beside the program's own calls of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from recorded import the_run

from callback_core import TrainerCallback
from callback_wandb import WandbCallback
from trainer_torch.testing import At, logged_points, small_trainer

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


@pytest.mark.parametrize("whose", ["the program's run", "the training's run"])
def test_rows_that_the_program_does_not_number_are_all_kept(whose: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    if whose == "the program's run":
        wandb.init(project="own", dir=tmp_path)
        folder = tmp_path
    logs = logs_at("on_step_end", numbered=False)
    small_trainer(tmp_path / "out", WandbCallback, logs, num_train_epochs=12).train()
    wandb.finish()
    wandb.teardown()
    mine, losses, evaluated = rows_of(folder)
    assert list(mine.values()) == [float(step) for step in range(1, STEPS + 1)]
    assert (len(losses), len(evaluated)) == (STEPS, 12)


def test_two_trainings_in_the_programs_run_replace_nothing(tmp_path: Path) -> None:
    wandb.init(project="own", dir=tmp_path)
    for folder in ("one", "two"):
        small_trainer(tmp_path / folder, WandbCallback, logging_steps=12).train()
    wandb.finish()
    wandb.teardown()
    rows = the_run(tmp_path).rows
    assert len([row for row in rows if "train/loss" in row]) == 2
    assert len([row for row in rows if "eval/loss" in row]) == 6


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_the_project_that_the_program_sets_takes_precedence_over_the_environment(
    delivery: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-the-environment")
    wandb.setup(settings=wandb.Settings(project="chosen"))
    small_trainer(tmp_path / "out", WandbCallback(delivery=delivery)).train()
    wandb.teardown()
    assert the_run(tmp_path / "out").project == "chosen"


@pytest.mark.parametrize("whose", ["the program's run", "the training's run"])
def test_tables_pictures_and_charts_in_a_log_are_in_the_row_of_their_step(
    whose: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    if whose == "the program's run":
        wandb.init(project="own", dir=tmp_path)
        folder = tmp_path
    made = small_trainer(tmp_path / "out", WandbCallback, save_strategy="epoch")
    picture = wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8))
    media = {
        "histogram": wandb.Histogram([1.0, 2.0, 2.0]),
        "table": wandb.Table(columns=["a"], data=[[1]]),
        "picture": picture,
        "pictures": [picture, picture],
        "number": 0.5,
    }
    made.add_callback(At(5, lambda: made.log(dict(media))))
    made.train()
    wandb.finish()
    wandb.teardown()
    [row] = [row for row in the_run(folder).rows if "train/number" in row]
    assert row["train/global_step"] == 5
    kinds = {name: row[f"train/{name}/_type"] for name in media if name != "number"}
    assert kinds == {
        "histogram": "histogram",
        "table": "table-file",
        "picture": "image-file",
        "pictures": "images/separated",
    }
    assert row["train/number"] == 0.5
    assert "histogram" not in caplog.text


def test_media_that_another_process_cannot_have_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback(delivery="process"))
    table = wandb.Table(columns=["a"], data=[[1]])
    made.add_callback(At(5, lambda: made.log({"table": table, "number": 1.0})))
    made.train()
    assert the_run(tmp_path / "out").points("train/number") == [(5, 1.0)]
    assert "table" in caplog.text
