"""The content of the SDK's own files after a training, read without the SDK."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from by_hand import BY_HAND
from recorded import curves, runs, the_run

from callback_contract.testing import children, replay, run_python, wait_until
from callback_core import TrainerState
from callback_core.tracking import Opening, Point
from callback_wandb import WandbCallback, WandbTracker, sdk
from trainer_torch.testing import CONFIG, At, Trial, logged_points, pickled_copies, small_trainer

SUMMARY = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}


def fail() -> None:
    raise RuntimeError("broken")


def open_in(callback: WandbCallback) -> None:
    """Wait until the callback's run is open."""
    wait_until(lambda: callback.tracker.run is not None)


def process_state() -> dict[str, Any]:
    """Return the state of the process that the SDK must not change."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {
        "environment": dict(os.environ),
        "handlers": {number: getattr(h, "__qualname__", h) for number, h in handlers.items()},
        "hooks": (sys.exit, sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
    }


def test_the_run_has_configuration_curves_summary_and_status(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback, config={**CONFIG, "seed": -1})
    made.train()
    run = the_run(tmp_path / "out")
    assert (run.project, run.name, run.exit_codes) == ("huggingface", "small", [0])
    single = {f"train/{name}" for name in SUMMARY}
    logged = logged_points(made)
    assert curves(run.rows) == {key: v for key, v in logged.items() if key[0] not in single}
    assert {name: run.summary[name] for name in SUMMARY} == {
        name.removeprefix("train/"): v for (name, _), v in logged.items() if name in single
    }
    assert run.config["learning_rate"] == 0.05
    assert (run.config["hidden_size"], run.config["rope"]) == (8, {"theta": 10.5})
    assert run.config["seed"] == 42  # the arguments take precedence over the model's configuration
    assert run.config["model/num_parameters"] == 3
    assert run.metrics.pop("train/global_step") == ""
    assert run.metrics.pop("*") == "train/global_step"
    # An SDK before 0.31 also records the axis of each curve.
    assert run.metrics.items() <= {(name, "train/global_step") for name, _ in logged}


def test_rows_have_the_time_of_their_log_and_consecutive_numbers(tmp_path: Path) -> None:
    pause = At(6, lambda: time.sleep(0.3))
    small_trainer(tmp_path / "out", WandbCallback, pause).train()
    rows = the_run(tmp_path / "out").rows
    # What was logged at a step is a row, since the program might add to it.
    assert [row["_step"] for row in rows] == list(range(12))
    times = {row["train/global_step"]: row["_timestamp"] for row in rows}
    assert list(times.values()) == sorted(times.values())
    assert times[6] - times[5] >= 0.3


def test_nan_infinities_and_text_are_kept_and_other_values_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback)
    odd = {"nan": math.nan, "high": math.inf, "note": "wärm ☀", "eval_x/y é": 2, "list": [1]}
    made.add_callback(At(5, lambda: made.log(dict(odd))))
    made.train()
    run = the_run(tmp_path / "out")
    [(step, value)] = run.points("train/nan")
    assert (step, math.isnan(value)) == (5, True)
    assert run.points("train/high") == [(5, math.inf)]
    assert run.points("train/note") == [(5, "wärm ☀")]
    assert run.points("eval/x/y é") == [(5, 2)]
    assert "list: " in caplog.text


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("broken"), 1), (KeyboardInterrupt(), 255)]
)
def test_an_interrupted_training_is_failed_or_killed(
    error: BaseException, code: int, tmp_path: Path
) -> None:
    def end() -> None:
        raise error

    with pytest.raises(type(error)):
        small_trainer(tmp_path / "out", WandbCallback(log_model="end"), At(5, end)).train()
    run = the_run(tmp_path / "out")
    assert run.exit_codes == [code]
    assert run.points("train/loss")[-1][0] == 4
    assert run.artifacts == []  # there is no final model


def test_the_process_is_unchanged_during_the_run_and_after_it(
    tmp_path: Path,
) -> None:
    callback, seen = WandbCallback(), []
    before = process_state(), set(threading.enumerate()), children()

    def look() -> None:
        seen.append((process_state(), len(children() - before[2])))

    small_trainer(tmp_path / "without", At(5, look)).train()
    wait = At(4, lambda: open_in(callback))
    small_trainer(tmp_path / "out", callback, wait, At(5, look)).train()
    (without, none), (during, service) = seen
    assert during == without
    assert (none, service) == (0, 1)  # the SDK's process
    assert (process_state(), set(threading.enumerate()), children()) == before
    assert wandb.run is None
    assert not any(Path().glob("*wandb*"))


def test_the_open_run_is_wandbs_current_run(tmp_path: Path) -> None:
    callback, seen = WandbCallback(), []

    def log() -> None:
        open_in(callback)
        run: Any = wandb.run
        seen.append(run.id)
        wandb.log({"mine": 1.0})

    small_trainer(tmp_path / "out", callback, At(5, log)).train()
    run = the_run(tmp_path / "out")
    assert seen == [run.id]
    assert [row["mine"] for row in run.rows if "mine" in row] == [1.0]
    assert len(run.points("train/loss")) == 12


def test_the_sdks_variables_override_the_reduced_capture_and_timeouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("console", "save_code", "disable_git", "init_timeout", "finish_timeout", "root_dir")
    seen: list[list[Any]] = []

    def train(name: str) -> None:
        callback = WandbCallback()

        def look() -> None:
            open_in(callback)
            seen.append([getattr(callback.tracker.run.settings, name) for name in names])

        small_trainer(tmp_path / name, callback, At(5, look)).train()

    train("out")
    monkeypatch.setenv("WANDB_CONSOLE", "wrap_raw")
    monkeypatch.setenv("WANDB_SAVE_CODE", "true")
    monkeypatch.setenv("WANDB_DISABLE_GIT", "false")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "40")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "50")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train("other")
    assert seen == [
        ["off", False, True, 30.0, 60.0, str(tmp_path / "out")],
        ["wrap_raw", True, False, 40.0, 50.0, str(tmp_path)],
    ]


def test_a_run_opened_by_the_user_is_used_and_stays_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    before = process_state()
    theirs.log({"before": 1})
    callback = WandbCallback(delivery="process")
    small_trainer(tmp_path / "out", callback).train()
    assert "thread" in caplog.text
    assert wandb.run is theirs
    assert process_state() == before
    assert callback.state_dict()["run_id"] == "own/theirs"
    theirs.log({"after": 1})
    theirs.finish()
    wandb.teardown()
    run = the_run(tmp_path)
    assert len(run.points("train/loss")) == 12
    assert run.config["learning_rate"] == 0.05
    assert "after" in run.rows[-1]
    assert runs(tmp_path / "out") == []


def test_a_run_finished_by_the_user_still_gets_the_rest(tmp_path: Path) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    made = small_trainer(tmp_path / "out", WandbCallback, At(6, theirs.finish))
    made.train()
    found = [*runs(tmp_path), *runs(tmp_path / "out")]
    assert {run.id for run in found} == {"theirs"}
    steps = {step for run in found for step, _ in run.points("train/loss")}
    assert steps == set(range(1, 13))
    assert wandb.run is None
    wandb.teardown()


def test_setup_may_open_the_run(tmp_path: Path) -> None:
    class Own(WandbCallback):
        def setup(self, args: Any, state: TrainerState, model: Any, **kwargs: Any) -> None:
            super().setup(args, state, model, **kwargs)
            wandb.init(project="from-setup", id="own", dir=tmp_path, tags=["t"])

    small_trainer(tmp_path / "out", Own).train()
    assert wandb.run is not None
    wandb.finish()
    wandb.teardown()
    run = the_run(tmp_path)
    assert (run.project, run.config["model/num_parameters"]) == ("from-setup", 3)
    assert len(run.points("train/loss")) == 12


def test_a_second_training_gets_its_own_run_and_an_evaluation_goes_to_the_last(
    tmp_path: Path,
) -> None:
    callback = WandbCallback()
    made = small_trainer(tmp_path / "out", callback)
    made.train()
    made.train()
    made.evaluate()
    data: Any = made.eval_dataset
    metrics = made.predict(data).metrics
    assert callback.session is not None
    callback.session.close()  # as the exit of the program does
    first, second = runs(tmp_path / "out")
    assert len(first.points("train/loss")) == len(second.points("train/loss")) == 12
    assert [len(run.points("eval/loss")) for run in (first, second)] == [3, 4]
    assert second.points("test/loss") == [(12, metrics["test_loss"])]
    assert {*first.exit_codes, *second.exit_codes} == {0}


def test_a_resumed_training_continues_its_run_without_duplicate_points(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    with pytest.raises(RuntimeError):
        small_trainer(tmp_path / "out", WandbCallback, At(7, fail), **arguments).train()
    made = small_trainer(tmp_path / "out", WandbCallback, **arguments)
    made.train(resume_from_checkpoint=True)
    run = the_run(tmp_path / "out")
    losses = {step: v for (name, step), v in logged_points(made).items() if name == "train/loss"}
    assert len(losses) == 12
    assert sorted(run.points("train/loss")) == sorted(losses.items())
    assert [row["_step"] for row in run.rows] == list(range(len(run.rows)))
    assert run.exit_codes == [1, 0]


def test_a_trial_is_a_run_in_a_group_even_if_the_user_has_a_run(
    tmp_path: Path,
) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    trial = Trial("trial-1", {"learning_rate": 0.05, "layers": 3})
    made = small_trainer(tmp_path / "out", trial, WandbCallback, run_name="search")
    made.train()
    assert wandb.run is theirs
    theirs.finish()
    wandb.teardown()
    run = the_run(tmp_path / "out")
    assert (run.name, run.group, run.exit_codes) == ("trial-1", "search", [0])
    assert (run.config["layers"], run.config["learning_rate"]) == (3, 0.05)
    assert len(run.points("train/loss")) == 12


def test_the_sdk_records_no_secret_of_its_own_settings_and_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--api-key", "moonshine", "--lr=1"])
    monkeypatch.setenv("WANDB_TAGS", "first,password=moonshine")
    monkeypatch.setenv("WANDB_NOTES", "from https://ada:moonshine@host")
    small_trainer(tmp_path / "out", WandbCallback).train()
    [file] = (tmp_path / "out").rglob("*.wandb")
    assert b"moonshine" not in file.read_bytes()
    assert b"password=[redacted]" in file.read_bytes()
    assert [r.name for r in caplog.records if r.levelname == "WARNING"] == ["callback_wandb.sdk"]


@pytest.mark.parametrize("when", ["end", "checkpoint"])
def test_models_are_versions_of_an_artifact(when: Any, tmp_path: Path) -> None:
    callback = WandbCallback(log_model=when)
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch", save_total_limit=1)
    made.train()
    run = the_run(tmp_path / "out")
    *checkpoints, final = run.artifacts
    assert {artifact.name for artifact in run.artifacts} == {"model-small"}
    assert {*final.aliases} == {"final_model", "latest"}
    assert final.metadata["final_model"] is True
    assert final.metadata["train_loss"] == run.summary["train_loss"]
    kept = torch.load(final.files["model.pt"])
    trained: Any = made.model
    assert torch.equal(kept["layer.weight"], trained.layer.weight)
    aliases = [set(artifact.aliases) - {"latest"} for artifact in checkpoints]
    assert aliases == [
        {f"checkpoint-{step}", f"checkpoint_global_step_{step}", f"epoch_{step / 4}"}
        for step in ((4, 8, 12) if when == "checkpoint" else ())
    ]
    for artifact in checkpoints:
        assert all(path.stat().st_size for path in artifact.files.values())
        assert {"trainer_state.json", "manifest.json"} <= {*artifact.files}
        assert "eval/loss" in artifact.metadata


def test_a_version_has_as_many_numbers_as_wandb_takes_and_those_of_evaluations_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback(log_model="end"))
    made.add_callback(At(12, lambda: made.log({f"value_{n}": n / 7 for n in range(1200)})))
    made.train()
    [final] = the_run(tmp_path / "out").artifacts
    assert len(final.metadata) == 100
    assert "eval/loss" in final.metadata
    assert len([message for message in caplog.messages if "100" in message]) == 1


def test_the_model_is_watched_only_during_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_WATCH", "all")
    callback = WandbCallback()
    wait = At(1, lambda: open_in(callback))
    made = small_trainer(tmp_path / "out", callback, wait, num_train_epochs=52)
    made.train()
    rows = the_run(tmp_path / "out").rows
    watched = {name for row in rows for name in row if name.startswith(("grad", "param"))}
    assert watched  # the SDK chooses the names
    assert not any(layer._forward_hooks for layer in made.model.modules())  # noqa: SLF001
    trained: Any = made.model
    trained.layer(torch.ones(2)).sum().backward()  # no hook logs to the closed run


def test_a_histogram_without_a_run_does_not_affect_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = WandbCallback(watch="all")
    wait, finish = At(1, lambda: open_in(callback)), At(99, wandb.finish)
    made = small_trainer(tmp_path / "out", callback, wait, finish, num_train_epochs=26)
    made.train()
    assert made.state.global_step == 104
    assert {step for step, _ in the_run(tmp_path / "out").points("train/loss")} == {*range(1, 105)}
    assert [r.name for r in caplog.records].count("callback_wandb.watching") == 1


def test_a_delivery_process_delivers(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback(delivery="process", log_model="end"))
    made.train()
    run = the_run(tmp_path / "out")
    losses = [(step, v) for (name, step), v in logged_points(made).items() if name == "train/loss"]
    assert run.points("train/loss") == losses
    assert (run.exit_codes, wandb.run) == ([0], None)
    assert {*run.summary} >= SUMMARY
    assert run.config["model/num_parameters"] == 3
    assert [artifact.name for artifact in run.artifacts] == ["model-small"]


def test_a_replay_delivers_what_the_sdk_lost_in_a_kill(
    tmp_path: Path,
) -> None:
    assert run_python(BY_HAND, str(tmp_path / "out"), "kill").returncode == -9
    losses = [(step, step / 8) for step in range(1, 9)]
    assert the_run(tmp_path / "out").points("train/loss") != losses  # the SDK had accepted all
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    run = the_run(tmp_path / "out")
    assert run.points("train/loss") == losses
    assert run.exit_codes == [1]


def test_the_death_of_the_sdks_process_costs_neither_the_training_nor_a_point(
    tmp_path: Path,
) -> None:
    callback, before = WandbCallback(), children()

    def kill() -> None:
        wait_until(lambda: callback.tracker.run is not None and callback.tracker.run.step > 2)
        for service in children() - before:
            os.kill(service, signal.SIGKILL)

    made = small_trainer(tmp_path / "out", callback, At(6, kill))
    made.train()
    run = the_run(tmp_path / "out")
    losses = {step: v for (name, step), v in logged_points(made).items() if name == "train/loss"}
    assert sorted(dict(run.points("train/loss")).items()) == sorted(losses.items())
    assert run.exit_codes == [0]
    assert wandb.run is None


def test_two_runs_share_the_sdks_process_and_the_last_one_ends_it(tmp_path: Path) -> None:
    first, second = WandbTracker(), WandbTracker()
    before = children()
    for number, tracker in enumerate((first, second)):
        folder = tmp_path / "out" / "tracking" / f"run-{number}" / "wandb"
        tracker.open(Opening(name=None, output_dir=tmp_path / "out", folder=folder))
    first.close("finished")
    assert len(children() - before) == 1
    second.log_text([Point("train/half", "\ud800", 1, 1.0)])  # costs no other point
    second.log_metrics([Point("train/loss", 0.5, 2, 2.0)])
    second.close("finished")
    assert children() <= before
    assert [run.points("train/loss") for run in runs(tmp_path / "out")] == [[], [(2, 0.5)]]


def test_an_sdk_process_that_does_not_end_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "END_TIMEOUT", 0.2)
    before = children()
    connection = sdk.Connection(tmp_path, new=True, adopted=False, project="digits", id="one")
    connection.run.finish()
    [process] = children() - before
    os.kill(process, signal.SIGSTOP)
    connection.leave()
    assert children() <= before


def test_an_sdk_process_that_does_not_end_blocks_no_exit() -> None:
    program = (
        "import os, signal; from callback_wandb import sdk;"
        "from callback_contract.testing import children;"
        "sdk.END_TIMEOUT = 0.2; sdk._SERVICE_PROCESS.join();"
        "[os.kill(child, signal.SIGSTOP) for child in children()]; print('at its end')"
    )
    done = run_python("-c", program)
    assert (done.returncode, done.stdout) == (0, "at its end\n"), done.stderr


def test_the_callback_can_be_pickled_before_during_and_after_a_training(tmp_path: Path) -> None:
    callback = WandbCallback()
    copies = pickled_copies(tmp_path / "out", callback)
    assert [(type(copy), copy.session) for copy in copies] == [(type(callback), None)] * 3
    assert all(copy.tracker.settings() for copy in copies)
