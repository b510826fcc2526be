"""What a server on this machine gets from the SDK, and what happens where it is away."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from processes import BY_HAND, python, replay
from standin import ENTITY, StandIn
from trainings import At, Slow, expected, trainer, wait_until

from callback_wandb import WandbCallback


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the SDK give up after seconds, as the user can ask it to."""
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "2")


def losses(made: Any) -> list[tuple[int, float]]:
    found = expected(made)
    return [(step, value) for (name, step), value in found.items() if name == "train/loss"]


def test_a_server_gets_configuration_curves_summary_models_and_the_end(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    callback = WandbCallback()
    made = trainer(tmp_path / "out", callback, save_strategy="epoch", run_name="first run")
    made.train()
    [run] = standin.runs.values()
    assert (run.project, run.exit_code) == ("digits", 0)
    assert run.fields["displayName"] == "first run"
    assert callback.state_dict()["run_id"] == f"{ENTITY}/digits/{run.id}"
    assert run.points("train/loss") == losses(made)
    assert run.config()["learning_rate"] == 0.05
    assert run.summary()["train_loss"] == made.state.log_history[-1]["train_loss"]
    assert [artifact.committed for artifact in standin.artifacts] == [True] * 4
    assert {artifact.name for artifact in standin.artifacts} == {"model-first-run"}
    assert "checkpoint-4" in standin.artifacts[0].aliases
    assert "final_model" in standin.artifacts[-1].aliases
    weights = tmp_path / "out" / "checkpoint-12" / "model.safetensors"
    assert standin.artifacts[2].files["model.safetensors"] == weights.read_bytes()
    assert not list((tmp_path / "out").glob("tracking/*/files/wandb/*"))


def test_nothing_of_sources_console_or_git_is_captured(standin: StandIn, tmp_path: Path) -> None:
    trainer(tmp_path / "out", WandbCallback).train()
    [run] = standin.runs.values()
    assert not [name for name in run.files if name.startswith(("code/", "output.log", "diff"))]
    assert "output.log" not in run.lines
    assert b'"git"' not in run.files["wandb-metadata.json"]


def test_a_resumed_training_goes_on_in_its_run(standin: StandIn, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    with pytest.raises(RuntimeError):
        trainer(tmp_path / "out", WandbCallback, At(7, fail), **arguments).train()
    [run] = standin.runs.values()
    assert run.exit_code == 1
    made = trainer(tmp_path / "out", WandbCallback, **arguments)
    made.train(resume_from_checkpoint=True)
    [run] = standin.runs.values()
    assert run.points("train/loss") == losses(made)
    assert [row["_step"] for row in run.rows()] == list(range(len(run.rows())))
    assert run.exit_code == 0


def test_a_run_that_the_user_names_is_gone_on_in(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "named")
    made = trainer(tmp_path / "out", WandbCallback)
    made.train()
    assert [*standin.runs] == ["named"]
    trainer(tmp_path / "other", WandbCallback).train()
    assert [*standin.runs] == ["named"]
    assert len(standin.runs["named"].points("train/loss")) == 24


def test_rows_that_the_server_lacks_after_a_kill_are_sent_again_and_none_twice(
    standin: StandIn, tmp_path: Path
) -> None:
    assert python(BY_HAND, str(tmp_path / "out"), "8", "kill").returncode == -9
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = standin.runs.values()
    assert [step for step, _ in run.points("train/loss")] == list(range(1, 9))
    assert run.exit_code == 1


def test_a_server_that_is_away_costs_the_training_nothing_and_is_delivered_to_later(
    standin: StandIn, impatient: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    standin.stop()
    made = trainer(tmp_path / "out", WandbCallback(flush_limit=1), Slow(0.05))
    begun = time.monotonic()
    made.train()
    assert time.monotonic() - begun < 20
    warnings = [record.getMessage() for record in caplog.records]
    assert sum("wandb" in message for message in warnings) <= 2
    assert "callback_core.tracking.replay" in warnings[-1]
    assert not standin.runs
    standin.start()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = standin.runs.values()
    assert run.points("train/loss") == losses(made)
    assert run.exit_code == 0
    wait_until(lambda: wandb.run is None)


def test_what_a_server_lacks_that_went_away_is_sent_when_it_is_back(
    standin: StandIn, impatient: None, tmp_path: Path
) -> None:
    made = trainer(tmp_path / "out", WandbCallback(flush_limit=2), Slow(0.02))

    def leave() -> None:
        wait_until(lambda: bool(standin.runs) and wandb.run is not None and wandb.run.step > 3)
        standin.refuses = True

    made.add_callback(At(9, leave))
    made.train()
    [run] = standin.runs.values()
    assert run.exit_code is None
    standin.refuses = False
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.points("train/loss") == losses(made)
    assert run.exit_code == 0


def test_without_a_key_the_sdk_does_not_ask_for_one(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    _, terminal = os.openpty()
    done = python(BY_HAND, str(tmp_path / "out"), "8", "fails", stdin=terminal)
    assert "trained 8 steps" in done.stdout, done.stderr
    assert "wandb login" in done.stderr


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_server_that_is_of_no_use_holds_no_program_at_its_exit(
    how: str, standin: StandIn, tmp_path: Path
) -> None:
    standin.refuses, standin.delay = how == "refuses", 300.0 if how == "hangs" else 0.0
    done = python(BY_HAND, str(tmp_path / "out"), "8", "hangs", timeout=90)
    assert "trained 8 steps" in done.stdout, done.stderr
    assert "wandb has not got 8 points" in done.stderr
