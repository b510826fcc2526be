"""Which events our callbacks see of Lightning's trainer, and with which state."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning_for_tests import BATCHES, LinesCallback, Recorder, Small, runs_in, trainer

from callback_core import EarlyStoppingCallback, TrainerCallback
from callback_lightning import LightningCallbacks

STEP = ("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_log")


def test_a_training_fires_the_events_in_the_order_of_other_loops(tmp_path: Path) -> None:
    recorder = Recorder()
    options = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    assert recorder.names == [
        *("on_init_end", "on_train_begin", "on_epoch_begin", *STEP, *STEP),
        *("on_prediction_step", "on_log", "on_evaluate", "on_epoch_end", "on_train_end"),
    ]


def test_a_step_is_an_update_step(tmp_path: Path) -> None:
    recorder = Recorder()
    options = {"max_epochs": 1, "accumulate_grad_batches": 3, "limit_val_batches": 0}
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    assert recorder.names.count("on_substep_end") == BATCHES - 3
    assert [step for name, step in recorder.events if name == "on_step_end"] == [1, 2, 3]
    assert recorder.passed["on_step_end"][0]["epoch"] == 3 / BATCHES


def test_the_loss_of_a_step_is_the_mean_of_its_batches(tmp_path: Path) -> None:
    recorder, losses = Recorder(), []

    class Noting(Small):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            losses.append(self.loss(batch))
            return losses[-1]

    options = {"max_epochs": 1, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Noting())
    mean = torch.stack(losses[:2]).mean().item()
    assert float(recorder.passed["on_step_end"][0]["loss"]) == pytest.approx(mean)


def test_the_state_is_filled_from_the_trainer(tmp_path: Path) -> None:
    recorder = Recorder()
    running = trainer(tmp_path, LightningCallbacks([recorder]), max_epochs=3)
    model = Small()
    running.fit(model)
    state, passed = recorder.states[-1], recorder.passed["on_step_end"][0]
    assert (state.max_steps, state.num_train_epochs) == (3 * BATCHES, 3)
    assert (state.global_step, state.epoch) == (3 * BATCHES, 3.0)
    assert [log["step"] for log in state.log_history if "loss" in log] == [
        *range(1, 3 * BATCHES + 1)
    ]
    assert passed["model"] is model
    assert passed["optimizer"] is running.optimizers[0]
    assert len(passed["train_dataloader"]) == len(passed["eval_dataloader"]) == BATCHES


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [({"max_steps": 5, "max_epochs": -1}, 5, 1), ({"max_steps": 11, "max_epochs": 9}, 11, 9)],
)
def test_max_steps_may_end_the_training(
    options: dict[str, Any], steps: int, epochs: int, tmp_path: Path
) -> None:
    recorder = Recorder()
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    assert (recorder.states[-1].max_steps, recorder.states[-1].num_train_epochs) == (steps, epochs)


def test_the_metric_of_a_model_checkpoint_is_the_best_metric(tmp_path: Path) -> None:
    recorder = Recorder()
    keep = ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    running = trainer(tmp_path, LightningCallbacks([recorder]), keep, enable_checkpointing=True)
    running.fit(Small())
    state = recorder.states[-1]
    assert keep.best_model_score is not None
    assert state.best_metric == pytest.approx(float(keep.best_model_score))
    assert state.best_global_step == 2 * BATCHES
    assert state.best_model_checkpoint == keep.best_model_path


def test_sanity_checking_fires_nothing(tmp_path: Path) -> None:
    recorder = Recorder()
    options = {"max_epochs": 1, "num_sanity_val_steps": 2, "limit_train_batches": 1}
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    assert recorder.names.index("on_prediction_step") > recorder.names.index("on_step_end")
    assert recorder.names.count("on_evaluate") == 1


def test_an_error_closes_the_callbacks_and_the_run(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = LightningCallbacks([recorder, LinesCallback(tmp_path / "runs.jsonl")])
    with pytest.raises(RuntimeError, match="lost"):
        trainer(tmp_path, callbacks).fit(Small(fails_at=3))
    assert recorder.names[-2:] == ["on_exception", "on_train_end"]
    assert str(recorder.passed["on_exception"][0]["exception"]) == "lost"
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (run.status, run.steps("train/loss")) == ("failed", [1, 2, 3])


def test_an_interrupt_closes_the_run_as_interrupted(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    callbacks = LightningCallbacks([LinesCallback(tmp_path / "runs.jsonl"), Interrupt()])
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks).fit(Small())
    assert [run.status for run in runs_in(tmp_path / "runs.jsonl")] == ["interrupted"]


def test_a_callback_that_refuses_the_training_closes_the_others(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = LightningCallbacks([recorder, EarlyStoppingCallback()])
    with pytest.raises(ValueError, match="metric_for_best_model"):
        trainer(tmp_path, callbacks).fit(Small())
    assert recorder.names[-2:] == ["on_exception", "on_train_end"]


def test_a_second_fit_is_a_second_run(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = LightningCallbacks([recorder, LinesCallback(tmp_path / "runs.jsonl")])
    for _ in range(2):
        trainer(tmp_path, callbacks, max_epochs=1).fit(Small())
    first, second = runs_in(tmp_path / "runs.jsonl")
    assert first.points == second.points
    assert recorder.names.count("on_train_begin") == recorder.names.count("on_train_end") == 2
    assert recorder.names.count("on_init_end") == 1


def test_the_same_trainer_trains_further(tmp_path: Path) -> None:
    recorder = Recorder()
    running = trainer(tmp_path, LightningCallbacks([recorder]), max_epochs=1)
    model = Small()
    running.fit(model)
    running.fit_loop.max_epochs = 2
    running.fit(model)
    steps = [step for name, step in recorder.events if name == "on_step_end"]
    assert steps == [*range(1, 2 * BATCHES + 1)]


def test_an_evaluation_after_a_training_goes_to_its_run(tmp_path: Path) -> None:
    recorder, lines = Recorder(), LinesCallback(tmp_path / "runs.jsonl")
    running = trainer(tmp_path, LightningCallbacks([recorder, lines]), max_epochs=1)
    model = Small()
    running.fit(model)
    running.test(model, verbose=False)
    running.validate(model, verbose=False)
    running.predict(model)
    assert [one["metrics"].keys() - {"epoch"} for one in recorder.passed["on_evaluate"]] == [
        {"eval_loss"},
        {"test_loss"},
        {"eval_loss"},
    ]
    assert recorder.names.count("on_predict") == 1
    assert lines.session is not None
    lines.session.close()
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert run.steps("test/loss") == [BATCHES]


def test_an_evaluation_alone_is_a_run_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder()
    lines = LinesCallback(tmp_path / "runs.jsonl")
    trainer(tmp_path, LightningCallbacks([recorder, lines])).test(Small(), verbose=False)
    assert "on_train_begin" not in recorder.names
    assert lines.session is not None
    lines.session.close()
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (run.steps("test/loss"), run.parameters["width"]) == ([0], 4)


def test_a_prediction_opens_no_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    trainer(tmp_path, LightningCallbacks([LinesCallback(path)])).predict(Small())
    assert not path.exists()


def test_a_dry_run_reaches_no_tracker(tmp_path: Path) -> None:
    recorder, path = Recorder(), tmp_path / "runs.jsonl"
    callbacks = LightningCallbacks([recorder, LinesCallback(path)])
    trainer(tmp_path, callbacks, fast_dev_run=True).fit(Small())
    assert recorder.names.count("on_step_end") == 1
    assert not path.exists()
    trainer(tmp_path, callbacks, max_epochs=1).fit(Small())
    assert len(runs_in(path)) == 1


def test_several_lightning_callbacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LightningCallbacks"):
        trainer(tmp_path, LightningCallbacks(), LightningCallbacks()).fit(Small())


def test_manual_optimization_counts_each_step_of_an_optimizer(tmp_path: Path) -> None:
    class Manual(Small):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:  # type: ignore[override]
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                optimizer.step()
            self.log("train_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(2)]

    recorder = Recorder()
    trainer(tmp_path, LightningCallbacks([recorder]), max_epochs=1).fit(Manual())
    steps = [step for name, step in recorder.events if name == "on_step_end"]
    assert steps == [*range(2, 2 * BATCHES + 1, 2)]
    assert len(recorder.passed["on_step_end"][0]["optimizer"]) == 2


def test_the_batches_of_a_step_may_change(tmp_path: Path) -> None:
    recorder = Recorder()
    schedule = GradientAccumulationScheduler({0: 1, 1: 2})
    trainer(tmp_path, schedule, LightningCallbacks([recorder])).fit(Small())
    steps = [step for name, step in recorder.events if name == "on_step_end"]
    assert steps == [*range(1, BATCHES + BATCHES // 2 + 1)]


def test_a_trainer_can_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    running = trainer(tmp_path, LightningCallbacks([LinesCallback(path)]), max_epochs=1)
    copy = pickle.loads(pickle.dumps(running))
    copy.fit(Small())
    running.fit(Small())
    assert [run.status for run in runs_in(path)] == ["finished"] * 2
    assert pickle.loads(pickle.dumps(running)).global_step == BATCHES


def test_the_journal_is_where_lightning_writes(tmp_path: Path) -> None:
    callbacks = LightningCallbacks([LinesCallback(tmp_path / "runs.jsonl")])
    for root in (tmp_path / "one", tmp_path / "two"):
        trainer(root, callbacks, max_steps=1).fit(Small())
        assert len(list(root.glob("tracking/*/journal.jsonl"))) == 1
    own = LightningCallbacks([LinesCallback(tmp_path / "runs.jsonl")], {"output_dir": "mine"})
    trainer(tmp_path / "three", own, max_steps=1).fit(Small())
    assert len(list(tmp_path.glob("mine/tracking/*/journal.jsonl"))) == 1


def test_a_validation_before_a_training_is_in_its_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    running = trainer(tmp_path, LightningCallbacks([LinesCallback(path)]), max_epochs=1)
    model = Small()
    running.validate(model, verbose=False)
    running.fit(model)
    (run,) = runs_in(path)
    assert run.steps("eval/loss") == [0, BATCHES]


def test_a_module_that_draws_on_its_logger_needs_none(tmp_path: Path) -> None:
    class Draws(Small):
        def on_train_epoch_end(self) -> None:
            if self.logger is not None:
                self.logger.experiment.add_image("weights", self.layer.weight)  # type: ignore[attr-defined]

    trainer(tmp_path, LightningCallbacks([Recorder()]), max_epochs=1).fit(Draws())


def test_a_training_of_unknown_length_has_no_last_step(tmp_path: Path) -> None:
    class Endless(Recorder):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_step_end(args, state, control, **kwargs)
            control.should_training_stop = state.global_step == 3

    recorder = Endless()
    options = {"max_epochs": -1, "max_steps": -1, "limit_val_batches": 0}
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    assert recorder.states[-1].max_steps == -1
    assert recorder.states[-1].global_step == 3
