"""Our callbacks, as they are, in the transformers that is installed: any version since 4.23."""

from __future__ import annotations

import gc
import json
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import transformers
import transformers.integrations
from line_tracker import LineTracker
from small_training import TinyDataset, TinyModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_core
from callback_core.tracking import TrackerCallback
from callback_tensorboard import TensorBoardCallback

OLD_NAMES = {"eval_strategy": "evaluation_strategy", "use_cpu": "no_cuda"}
KNOWN = transformers.TrainingArguments.__dataclass_fields__


def build(output_dir: Path, *callbacks: Any, scores: tuple[float, ...] = (), **changed: Any) -> Any:
    """Return a trainer with 10 steps, which logs and evaluates after each."""
    values = iter(scores)
    arguments = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 2,
        "max_steps": 10,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 5,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "remove_unused_columns": False,
        **changed,
    }
    names = {name: name if name in KNOWN else OLD_NAMES[name] for name in arguments}
    return transformers.Trainer(
        model=None if "model_init" in changed else TinyModel(),
        args=transformers.TrainingArguments(
            **{names[name]: value for name, value in arguments.items()}
        ),
        train_dataset=TinyDataset(20),
        eval_dataset=TinyDataset(4),
        compute_metrics=(lambda _: {"score": next(values)}) if scores else None,
        callbacks=list(callbacks),
    )


def tracked(output_dir: Path) -> TrackerCallback:
    output_dir.mkdir(exist_ok=True)
    return TrackerCallback(LineTracker(str(output_dir / "lines.jsonl")), flush_limit=300)


def calls(output_dir: Path, called: str | None = None) -> list[dict[str, Any]]:
    lines = map(json.loads, (output_dir / "lines.jsonl").read_text("utf-8").splitlines())
    return [line for line in lines if called in (None, line["called"])]


def steps_of(output_dir: Path, name: str) -> list[int]:
    return [point["step"] for point in calls(output_dir, "point") if point["name"] == name]


class Ends(callback_core.TrainerCallback):
    """Raises at a step, and notes the events that end a training."""

    def __init__(self, error: BaseException, at: int = 2) -> None:
        self.error, self.at, self.told = error, at, []  # type: ignore[var-annotated]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            raise self.error

    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        self.told.append((exception, state.global_step, kwargs["model"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.told.append("end")


def test_every_event_reaches_a_callback_in_its_order(tmp_path: Path) -> None:
    seen: list[str] = []

    def method(name: str) -> Any:
        return lambda self, args, state, control, **kwargs: seen.append(name)

    theirs = [name for name in vars(transformers.TrainerCallback) if name.startswith("on_")]
    assert set(theirs) <= set(callback_core.EVENTS)
    recorder = type("Recorder", (callback_core.TrainerCallback,), {n: method(n) for n in theirs})
    trainer = build(tmp_path, recorder(), save_strategy="steps", save_steps=10)
    trainer.train()
    trainer.evaluate()
    trainer.predict(TinyDataset(4))
    fired = set(theirs) - {"on_substep_end", "on_push_begin"}
    assert fired - set(seen) <= {"on_predict"}  # 4.23 has none
    assert seen[:4] == ["on_init_end", "on_train_begin", "on_epoch_begin", "on_step_begin"]
    assert seen.count("on_step_end") == 10
    assert Counter(seen)["on_train_end"] == 1


def test_the_curves_of_a_training_are_those_of_its_log(tmp_path: Path) -> None:
    trainer = build(tmp_path, TensorBoardCallback())
    trainer.train()
    [directory] = (tmp_path / "runs").iterdir()
    read = EventAccumulator(str(directory)).Reload()
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        logged = [entry for entry in trainer.state.log_history if name in entry]
        expected = [(entry["step"], pytest.approx(entry[name])) for entry in logged]
        assert [(event.step, event.value) for event in read.Scalars(tag)] == expected
        assert len(expected) == {"loss": 10, "eval_loss": 2}[name]


@pytest.fixture
def loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers 4 load its own checkpoints, which newer versions of torch refuse."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.usefixtures("loads_anything")
def test_a_resumed_training_continues_its_run(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    with pytest.raises(ValueError, match="broken"):
        build(tmp_path, tracked(tmp_path), Ends(ValueError("broken"), 7), **saving).train()
    build(tmp_path, tracked(tmp_path), **saving).train(resume_from_checkpoint=True)
    assert [call["run_id"] for call in calls(tmp_path, "open")] == [None, "a-new-run"]
    assert steps_of(tmp_path, "train/loss") == [*range(1, 11)]
    assert [call["status"] for call in calls(tmp_path, "close")] == ["failed", "finished"]


def test_an_evaluation_alone_is_a_run_of_its_own(tmp_path: Path) -> None:
    callback = tracked(tmp_path)
    build(tmp_path, callback).evaluate()
    assert callback.session is not None
    callback.session.close()
    assert steps_of(tmp_path, "eval/loss") == [0]
    assert calls(tmp_path)[-1] == {"called": "close", "status": "finished"}


def test_a_prediction_after_the_training_is_in_its_run(tmp_path: Path) -> None:
    callback = tracked(tmp_path)
    trainer = build(tmp_path, callback)
    trainer.train()
    metrics = trainer.predict(TinyDataset(4)).metrics
    if not hasattr(transformers.TrainerCallback, "on_predict"):
        trainer.log(metrics)
    assert callback.session is not None
    callback.session.close()
    assert steps_of(tmp_path, "test/loss") == [10]
    assert {call["run_id"] for call in calls(tmp_path, "open")} == {None, "a-new-run"}


def test_early_stopping_stops_and_the_tracker_has_the_reason_of_the_end(tmp_path: Path) -> None:
    stopping = callback_core.EarlyStoppingCallback(1)
    trainer = build(
        tmp_path,
        stopping,
        tracked(tmp_path),
        scores=(1.0, 2.0, 1.5, 3.0, 4.0),
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
    )
    trainer.train()
    assert trainer.state.global_step == 6
    assert steps_of(tmp_path, "eval/score") == [2, 4, 6]
    assert calls(tmp_path)[-1] == {"called": "close", "status": "finished"}


def test_the_bar_the_printer_and_the_time_limit_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bar, limit = callback_core.ProgressCallback(), callback_core.TimeLimit(3600)
    trainer = build(tmp_path, bar, callback_core.PrinterCallback, limit)
    for theirs in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(theirs)
    trainer.train()
    assert trainer.state.global_step == 10
    assert "eval_loss" in capsys.readouterr().out


def test_each_trial_of_a_search_is_a_run_with_its_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    saved: list[Path | None] = []

    class Saves(callback_core.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            saved.append(callback_core.saved_checkpoint(args, state))

    trainer = build(tmp_path, tracked(tmp_path), Saves(), save_strategy="steps", save_steps=5)
    trainer.model_init = TinyModel
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        n_trials=2,
        backend="optuna",
        compute_objective=lambda metrics: metrics["eval_loss"],
        direction="minimize",
    )
    assert [call["run_id"] for call in calls(tmp_path, "open")] == [None, None]
    assert [call["status"] for call in calls(tmp_path, "close")] == ["finished", "finished"]
    assert steps_of(tmp_path, "train/loss") == 2 * [*range(1, 11)]
    assert len(set(saved)) == 4
    assert all(path is not None and path.is_dir() for path in saved)


def test_a_pruned_trial_ends_once(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")

    class Prunes(optuna.pruners.BasePruner):  # type: ignore[name-defined]
        def prune(self, study: Any, trial: Any) -> bool:
            return True

    ends = Ends(ValueError(), at=-1)
    trainer = build(tmp_path, tracked(tmp_path), ends)
    trainer.model_init = TinyModel
    # What hyperparameter_search sets before it calls train for each trial of a study.
    trainer.hp_search_backend = transformers.trainer_utils.HPSearchBackend.OPTUNA
    trainer.hp_space = lambda trial: {"learning_rate": trial.suggest_float("lr", 1e-4, 1e-2)}
    trainer.hp_name, trainer.compute_objective = None, lambda metrics: metrics["eval_loss"]
    with pytest.raises(optuna.TrialPruned):
        trainer.train(trial=optuna.create_study(pruner=Prunes()).ask())
    assert ends.told == ["end"]
    assert calls(tmp_path)[-1] == {"called": "close", "status": "finished"}


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("broken"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
@pytest.mark.parametrize("added", ["with the trainer", "later"])
def test_a_run_is_closed_before_the_program_sees_the_error(
    tmp_path: Path, error: BaseException, status: str, added: str
) -> None:
    tracker = tracked(tmp_path)
    trainer = build(tmp_path, *([tracker] if added == "with the trainer" else []))
    if added == "later":
        trainer.add_callback(tracker)
    trainer.add_callback(Ends(error))
    with pytest.raises(type(error)):
        trainer.train()
    assert calls(tmp_path)[-1] == {"called": "close", "status": status}
    assert steps_of(tmp_path, "train/loss") == [1]


def test_callbacks_are_told_of_an_error_and_then_of_the_end(tmp_path: Path) -> None:
    ends = Ends(ValueError("broken"))
    trainer = build(tmp_path, ends)
    with pytest.raises(ValueError, match="broken") as raised:
        trainer.train()
    assert ends.told == [(raised.value, 2, trainer.model), "end"]


class Raises(callback_core.TrainerCallback):
    """Fails when it is told of an error."""

    def on_exception(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise TypeError("of the callback")


def test_a_callback_that_fails_too_does_not_hide_the_error(tmp_path: Path) -> None:
    ends = Ends(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        build(tmp_path, Raises(), ends).train()
    assert ends.told[1:] == ["end"]


def test_nobody_is_told_of_an_error_before_the_training_begins(tmp_path: Path) -> None:
    ends = Ends(ValueError("broken"))
    trainer = build(tmp_path, ends)
    with pytest.raises((ValueError, OSError)):
        trainer.train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    assert ends.told == []


def test_a_training_after_one_that_failed_is_a_run_of_its_own(tmp_path: Path) -> None:
    tracker, ends = tracked(tmp_path), Ends(ValueError("broken"))
    trainer = build(tmp_path, tracker, ends)
    with pytest.raises(ValueError, match="broken"):
        trainer.train()
    ends.at = -1
    trainer.train()
    assert [call["status"] for call in calls(tmp_path, "close")] == ["failed", "finished"]
    assert steps_of(tmp_path, "train/loss") == [1, *range(1, 11)]


def test_an_attempt_with_a_smaller_batch_is_a_run_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    ends = Ends(RuntimeError("CUDA out of memory."))

    class Once(callback_core.TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ends.at = 2 if ends.at == 0 else -1

    ends.at = 0
    build(tmp_path, tracked(tmp_path), Once(), ends, auto_find_batch_size=True).train()
    assert [call["status"] for call in calls(tmp_path, "close")] == ["failed", "finished"]
    assert [call["run_id"] for call in calls(tmp_path, "open")] == [None, None]


def test_a_trainer_is_freed_as_soon_as_nobody_uses_it(tmp_path: Path) -> None:
    trainer = build(tmp_path, tracked(tmp_path))
    trainer.train()
    is_freed = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert is_freed() is None
    finally:
        gc.enable()


THEIRS: Any = getattr(transformers.integrations, "TensorBoardCallback")  # noqa: B009


class OfTheUser(THEIRS):
    """A subclass of transformers' own callback."""


@pytest.mark.parametrize("theirs", ["report_to", "a callback", "a subclass"])
def test_two_callbacks_of_one_tracker_are_refused(tmp_path: Path, theirs: str) -> None:
    beside: list[Any] = {
        "a callback": [THEIRS()],
        "a subclass": [OfTheUser],
    }.get(theirs, [])
    report_to = "tensorboard" if theirs == "report_to" else "none"
    with pytest.raises(ValueError, match=r"TensorBoardCallback.*report_to"):
        build(tmp_path, *beside, TensorBoardCallback, report_to=report_to)


def test_a_second_callback_of_one_tracker_that_is_added_later_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build(tmp_path, report_to="tensorboard")
    trainer.add_callback(TensorBoardCallback())
    trainer.train()
    [warning] = [one for one in caplog.records if one.name.startswith("callback_core")]
    assert "TensorBoardCallback" in warning.getMessage()


def test_transformers_callback_of_another_tracker_runs_beside_ours(tmp_path: Path) -> None:
    build(tmp_path, tracked(tmp_path), report_to="tensorboard").train()
    assert len(steps_of(tmp_path, "train/loss")) == 10
    assert list((tmp_path / "runs").glob("*/events*"))
