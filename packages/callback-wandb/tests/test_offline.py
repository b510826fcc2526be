"""What is in the SDK's own files after a training, read without the SDK."""

from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from processes import BY_HAND, python, replay
from reader import runs, the_run
from trainings import At, Slow, expected, trainer, wait_until

from callback_core import TrainerState
from callback_core.tracking import Opening, Point
from callback_wandb import WandbCallback, WandbTracker

SUMMARY = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}


def curves(made: Any) -> dict[tuple[str, int], Any]:
    """Return what is to be drawn of a training: all but what it has one of."""
    single = {f"train/{name}" for name in SUMMARY}
    return {key: value for key, value in expected(made).items() if key[0] not in single}


def opening(tmp_path: Path, **changed: Any) -> Opening:
    folder = tmp_path / "out" / "tracking" / "20260101-000000-abcdef" / "wandb"
    return Opening(**{"name": None, "output_dir": tmp_path / "out", "folder": folder, **changed})


def test_configuration_curves_summary_and_status_of_a_training_are_there(tmp_path: Path) -> None:
    made = trainer(
        tmp_path / "out", WandbCallback, run_name="first", config={"hidden": [8, 4], "seed": -1}
    )
    made.train()
    run = the_run(tmp_path / "out")
    assert (run.project, run.name, run.exit_codes) == ("huggingface", "first", [0])
    assert run.values() == curves(made)
    assert run.config["learning_rate"] == 0.05
    assert run.config["hidden"] == [8, 4]
    assert run.config["seed"] == 42  # the arguments' win over the model's
    assert run.config["model/num_parameters"] == 3
    assert {*run.summary} >= SUMMARY
    assert run.summary["train_loss"] == made.state.log_history[-1]["train_loss"]
    assert run.metrics == {"train/global_step": "", "*": "train/global_step"}


def test_rows_have_the_time_of_the_log_and_numbers_without_gaps(tmp_path: Path) -> None:
    made = trainer(tmp_path / "out", WandbCallback, Slow(0.02))
    made.train()
    rows = the_run(tmp_path / "out").rows
    assert [row["_step"] for row in rows] == list(range(15))  # 12 of training, 3 of evaluation
    times = [row["_timestamp"] for row in rows]
    assert times == sorted(times)
    assert 0.2 < times[-1] - times[0] < 30


def test_nan_infinities_and_text_are_kept_and_what_is_no_value_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path / "out", WandbCallback)
    odd = {"nan": math.nan, "high": math.inf, "note": "warm", "eval_x/y z": 2, "list": [1]}
    made.add_callback(At(5, lambda: made.log(dict(odd))))
    made.train()
    run = the_run(tmp_path / "out")
    [(step, value)] = run.points("train/nan")
    assert (step, math.isnan(value)) == (5, True)
    assert run.points("train/high") == [(5, math.inf)]
    assert run.points("train/note") == [(5, "warm")]
    assert run.points("eval/x/y z") == [(5, 2)]
    assert "list: it is a list, not a number" in caplog.text


def test_half_a_character_costs_no_other(tmp_path: Path) -> None:
    tracker = WandbTracker()
    tracker.open(opening(tmp_path))
    tracker.log_text([Point("train/half", "\ud800", 1, 1.0)])
    tracker.log_metrics([Point("train/whole", 1.0, 2, 2.0)])
    tracker.close("finished")
    assert the_run(tmp_path / "out").points("train/whole") == [(2, 1.0)]


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("broken"), 1), (KeyboardInterrupt(), 255)]
)
def test_a_training_that_does_not_come_to_its_end_is_failed_or_killed(
    error: BaseException, code: int, tmp_path: Path
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        trainer(tmp_path / "out", WandbCallback, At(5, fail)).train()
    run = the_run(tmp_path / "out")
    assert run.exit_codes == [code]
    assert run.points("train/loss")[-1][0] == 4


def test_nothing_is_left_in_the_process(tmp_path: Path) -> None:
    names = ("exit", "excepthook")
    before = dict(os.environ), [getattr(sys, name) for name in names], set(threading.enumerate())
    trainer(tmp_path / "out", WandbCallback(delivery="inline")).train()
    assert wandb.run is None
    after = dict(os.environ), [getattr(sys, name) for name in names], set(threading.enumerate())
    assert after == before
    assert not any(Path().glob("*wandb*"))


def test_the_run_is_that_of_wandb_while_it_is_open(tmp_path: Path) -> None:
    seen: list[Any] = []

    def log() -> None:
        wait_until(lambda: wandb.run is not None)
        run: Any = wandb.run
        seen.append(run.id)
        wandb.log({"mine": 1.0})

    made = trainer(tmp_path / "out", WandbCallback, At(5, log))
    made.train()
    run = the_run(tmp_path / "out")
    assert seen == [run.id]
    assert [row["mine"] for row in run.rows if "mine" in row] == [1.0]
    assert len(run.points("train/loss")) == 12


def test_a_run_that_the_user_opened_is_used_and_stays_open(tmp_path: Path) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    hooks = sys.exit, sys.excepthook
    theirs.log({"before": 1})
    callback = WandbCallback()
    made = trainer(tmp_path / "out", callback)
    made.train()
    assert wandb.run is theirs
    assert (sys.exit, sys.excepthook) == hooks
    assert callback.state_dict()["run_id"] == "own/theirs"
    theirs.log({"after": 1})
    theirs.finish()
    wandb.teardown()
    run = the_run(tmp_path)
    assert len(run.points("train/loss")) == 12
    assert run.config["learning_rate"] == 0.05
    assert "after" in run.rows[-1]
    assert runs(tmp_path / "out") == []


def test_a_run_that_the_user_finishes_meanwhile_still_gets_the_rest(tmp_path: Path) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    made = trainer(tmp_path / "out", WandbCallback, Slow(0.05))
    made.add_callback(At(6, theirs.finish))
    made.train()
    [first], [second] = runs(tmp_path), runs(tmp_path / "out")
    assert (first.id, second.id) == ("theirs", "theirs")
    steps = {step for run in (first, second) for step, _ in run.points("train/loss")}
    assert steps == set(range(1, 13))
    assert wandb.run is None


def test_setup_may_open_the_run(tmp_path: Path) -> None:
    class Own(WandbCallback):
        def setup(self, args: Any, state: TrainerState, model: Any, **kwargs: Any) -> None:
            super().setup(args, state, model, **kwargs)
            wandb.init(project="from-setup", id="own", dir=tmp_path, tags=["t"])

    trainer(tmp_path / "out", Own).train()
    assert wandb.run is not None
    wandb.finish()
    wandb.teardown()
    run = the_run(tmp_path)
    assert (run.project, run.config["model/num_parameters"]) == ("from-setup", 3)
    assert len(run.points("train/loss")) == 12


def test_a_second_training_is_a_run_of_its_own_and_an_evaluation_goes_on_in_the_last(
    tmp_path: Path,
) -> None:
    made = trainer(tmp_path / "out", WandbCallback)
    made.train()
    made.train()
    first, second = runs(tmp_path / "out")
    assert len(first.points("train/loss")) == len(second.points("train/loss")) == 12
    made.evaluate()
    wait_until(lambda: len(runs(tmp_path / "out")[1].exit_codes) == 2)
    first, second = runs(tmp_path / "out")
    assert [len(run.points("eval/loss")) for run in (first, second)] == [3, 4]
    assert (second.exit_codes, second.ended) == ([0, 0], True)


def test_a_prediction_is_logged(tmp_path: Path) -> None:
    made = trainer(tmp_path / "out", WandbCallback)
    made.train()
    data: Any = made.eval_dataset
    metrics = made.predict(data).metrics
    wait_until(lambda: len(the_run(tmp_path / "out").exit_codes) == 2)
    assert the_run(tmp_path / "out").points("test/loss") == [(12, metrics["test_loss"])]


def test_a_resumed_training_goes_on_in_its_run_without_a_point_twice(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "run_name": "resumed"}
    with pytest.raises(RuntimeError):
        trainer(tmp_path / "out", WandbCallback, At(7, fail), **arguments).train()
    made = trainer(tmp_path / "out", WandbCallback, **arguments)
    made.train(resume_from_checkpoint=True)
    run = the_run(tmp_path / "out")
    assert {key: v for key, v in run.values().items() if key[0] == "train/loss"} == {
        key: value for key, value in expected(made).items() if key[0] == "train/loss"
    }
    assert [row["_step"] for row in run.rows] == list(range(len(run.rows)))
    assert run.exit_codes == [1, 0]


def test_a_trial_of_a_search_is_a_run_in_a_group_even_where_the_user_has_one(
    tmp_path: Path,
) -> None:
    theirs = wandb.init(project="own", id="theirs", dir=tmp_path)
    tracker = WandbTracker()
    tracker.in_search = True
    assert tracker.adopt() is None
    tracker.open(opening(tmp_path, name="search", trial_name="trial-1"))
    assert wandb.run is theirs
    tracker.log_metrics([Point("train/loss", 1.0, 1, 1.0)])
    tracker.close("finished")
    assert wandb.run is theirs
    theirs.finish()
    wandb.teardown()
    run = the_run(tmp_path / "out")
    assert (run.name, run.group, run.exit_codes) == ("trial-1", "search", [0])


@pytest.mark.parametrize("when", ["end", "checkpoint"])
def test_models_are_versions_of_an_artifact(when: Any, tmp_path: Path) -> None:
    callback = WandbCallback(log_model=when)
    made = trainer(tmp_path / "out", callback, save_strategy="epoch", save_total_limit=1)
    made.train()
    run = the_run(tmp_path / "out")
    *checkpoints, final = run.artifacts
    assert {artifact.name for artifact in run.artifacts} == {f"model-{run.id}"}
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


def test_a_failed_training_has_no_final_model(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        trainer(tmp_path / "out", WandbCallback(log_model="end"), At(2, fail)).train()
    assert the_run(tmp_path / "out").artifacts == []


def test_the_model_is_watched_from_the_training_and_left_alone_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_WATCH", "all")
    made = trainer(tmp_path / "out", WandbCallback(delivery="inline"), num_train_epochs=51)
    made.train()
    rows = the_run(tmp_path / "out").rows
    watched = {name for row in rows for name in row if name.startswith(("grad", "param"))}
    assert watched  # with names that the SDK chooses
    assert not any(layer._forward_hooks for layer in made.model.modules())
    trained: Any = made.model
    trained.layer(torch.ones(2)).sum().backward()  # no hook logs to a run that is closed


def test_a_process_of_its_own_delivers(tmp_path: Path) -> None:
    made = trainer(tmp_path / "out", WandbCallback(delivery="process"))
    made.train()
    run = the_run(tmp_path / "out")
    assert run.values() == curves(made)
    assert (run.exit_codes, wandb.run) == ([0], None)
    assert {*run.summary} >= SUMMARY
    assert run.config["model/num_parameters"] == 3


def test_a_training_that_was_killed_is_delivered_by_the_replay(tmp_path: Path) -> None:
    assert python(BY_HAND, str(tmp_path / "out"), "8", "kill").returncode == -9
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    found = runs(tmp_path / "out")
    points = {point for run in found for point in run.points("train/loss")}
    assert points == {(step, step / 8) for step in range(1, 9)}
    assert len({run.id for run in found}) == 1
    assert found[-1].exit_codes == [1]
