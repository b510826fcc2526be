"""What a local server receives from the SDK, and what happens when it is unreachable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from by_hand import BY_HAND
from recorded import curves
from wandb_server import ENTITY, WandbServer

from callback_contract.testing import environment, not_configured, replay, run_python, wait_until
from callback_core import NotConfigured
from callback_core.tracking import Opening, Rejected
from callback_wandb import WandbCallback, WandbTracker
from trainer_torch import Trainer
from trainer_torch.testing import At, Trial, logged_points, small_trainer


def fail() -> None:
    raise RuntimeError("broken")


def losses(made: Trainer) -> list[tuple[int, float]]:
    found = logged_points(made)
    return [(step, value) for (name, step), value in found.items() if name == "train/loss"]


def test_the_server_has_configuration_curves_summary_models_and_the_end(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    callback = WandbCallback()
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch", run_name="first run")
    made.train()
    [run] = server.runs.values()
    assert (run.project, run.exit_code) == ("digits", 0)
    assert run.fields["displayName"] == "first run"
    assert callback.state_dict()["run_id"] == f"{ENTITY}/digits/{run.id}"
    assert run.points("train/loss") == losses(made)
    drawn, logged = curves(run.rows()), logged_points(made)
    assert drawn.items() <= logged.items()
    assert {name for name, _ in logged.keys() - drawn.keys()} == {
        "train/train_loss",
        "train/train_runtime",
        "train/train_samples_per_second",
        "train/train_steps_per_second",
    }  # these are in the summary
    assert run.summary()["train_loss"] == made.state.log_history[-1]["train_loss"]
    assert run.config()["learning_rate"] == 0.05
    assert [artifact.committed for artifact in server.artifacts] == [True] * 4
    assert {artifact.name for artifact in server.artifacts} == {"model-first-run"}
    assert "checkpoint-4" in server.artifacts[0].aliases
    assert "final_model" in server.artifacts[-1].aliases
    weights = tmp_path / "out" / "checkpoint-12" / "model.safetensors"
    assert server.artifacts[2].files["model.safetensors"] == weights.read_bytes()
    assert not list((tmp_path / "out").glob("tracking/*/files/wandb/*"))
    # The SDK must not capture sources, the console and git.
    assert not [name for name in run.files if name.startswith(("code/", "output.log", "diff"))]
    assert "output.log" not in run.lines
    assert b'"git"' not in run.files["wandb-metadata.json"]


def test_a_resumed_training_continues_its_run(server: WandbServer, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    with pytest.raises(RuntimeError):
        small_trainer(tmp_path / "out", WandbCallback, At(7, fail), **arguments).train()
    [run] = server.runs.values()
    assert run.exit_code == 1
    made = small_trainer(tmp_path / "out", WandbCallback, **arguments)
    made.train(resume_from_checkpoint=True)
    [run] = server.runs.values()
    assert run.points("train/loss") == losses(made)
    assert [row["_step"] for row in run.rows()] == list(range(len(run.rows())))
    assert run.exit_code == 0


def test_a_run_named_by_the_user_is_continued(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "named")
    small_trainer(tmp_path / "out", WandbCallback).train()
    assert [*server.runs] == ["named"]
    small_trainer(tmp_path / "other", WandbCallback).train()
    assert [*server.runs] == ["named"]
    assert len(server.runs["named"].points("train/loss")) == 24


def test_a_trial_gets_its_own_run_next_to_the_users(server: WandbServer, tmp_path: Path) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    trial = Trial("trial-1", {"learning_rate": 0.05})
    made = small_trainer(tmp_path / "out", trial, WandbCallback)
    made.train()
    theirs.finish()
    wandb.teardown()
    own, other = server.runs["theirs"], *(r for r in server.runs.values() if r.id != "theirs")
    assert own.points("train/loss") == []
    assert other.points("train/loss") == losses(made)


def test_rows_missing_after_a_kill_are_sent_again_without_duplicates(
    server: WandbServer, tmp_path: Path
) -> None:
    assert run_python(BY_HAND, str(tmp_path / "out"), "kill").returncode == -9
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = server.runs.values()
    assert [step for step, _ in run.points("train/loss")] == list(range(1, 9))
    assert run.exit_code == 1


def test_an_unreachable_server_does_not_affect_the_training_and_a_replay_delivers(
    server: WandbServer, impatient: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    ended: list[float] = []
    made = small_trainer(
        tmp_path / "out",
        WandbCallback(flush_limit=1, log_model="end"),
        At(12, lambda: ended.append(time.monotonic())),
    )
    made.train()
    # Less than the SDK's retries would take.
    assert time.monotonic() - ended[0] < 200
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("wandb" in message for message in warnings) <= 2
    assert "callback_core.tracking.replay" in warnings[-1]
    assert not server.runs
    server.start()
    impatient()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = server.runs.values()
    assert run.points("train/loss") == losses(made)
    assert run.exit_code == 0
    assert [artifact.committed for artifact in server.artifacts] == [True]
    wait_until(lambda: wandb.run is None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken", "silent"])
def test_a_replay_delivers_what_a_lost_server_missed(
    how: Any, server: WandbServer, impatient: Any, tmp_path: Path
) -> None:
    callback = WandbCallback(flush_limit=2)

    def leave() -> None:
        wait_until(lambda: callback.tracker.run is not None and callback.tracker.run.step > 3)
        server.mode = how

    made = small_trainer(tmp_path / "out", callback, At(9, leave))
    made.train()
    [run] = server.runs.values()
    assert run.exit_code is None
    server.mode = "ok"
    impatient()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.points("train/loss") == losses(made)
    assert run.exit_code == 0


def test_without_a_key_nothing_prompts_and_the_end_of_training_does_not_wait(
    server: WandbServer, tmp_path: Path
) -> None:
    _, terminal = os.openpty()
    with not_configured("Weights & Biases", "WANDB_API_KEY") as logged:
        done = subprocess.run(
            [sys.executable, BY_HAND, str(tmp_path / "out"), "fails"],
            env=environment(),
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=500,
        )
        logged.append(done.stderr)
    assert "trained 8 steps" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["broken", "silent"])
@pytest.mark.parametrize("since", ["begun", "open"])
def test_an_unusable_server_blocks_no_exit(
    since: str, mode: Any, server: WandbServer, tmp_path: Path
) -> None:
    if since == "begun":
        server.mode = mode
    else:
        server.then = mode
    done = run_python(BY_HAND, str(tmp_path / "out"), since)
    assert "trained 8 steps" in done.stdout, done.stderr
    assert "wandb" in done.stderr and "python -m callback_core.tracking.replay" in done.stderr


def test_a_run_that_the_server_refuses_is_refused_for_good(
    server: WandbServer, tmp_path: Path
) -> None:
    server.refusal = "invalid name: too many cooks"
    folder = tmp_path / "out" / "tracking" / "run" / "wandb"
    opening = Opening(name="digits", output_dir=tmp_path / "out", folder=folder)
    with pytest.raises(Rejected, match=server.refusal):
        WandbTracker().open(opening)
    assert server.asked == 1


def test_a_key_that_is_not_valid_is_a_missing_setting(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "cut off")
    folder = tmp_path / "out" / "tracking" / "run" / "wandb"
    with pytest.raises(NotConfigured):
        WandbTracker().open(Opening(name=None, output_dir=tmp_path / "out", folder=folder))


def test_a_server_that_is_away_refuses_nothing(
    impatient: Any, server: WandbServer, tmp_path: Path
) -> None:
    server.stop()
    folder = tmp_path / "out" / "tracking" / "run" / "wandb"
    with pytest.raises(wandb.errors.CommError):
        WandbTracker().open(Opening(name=None, output_dir=tmp_path / "out", folder=folder))
