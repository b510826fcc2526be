"""A loop of one's own: its events, logs, evaluations, checkpoints and ends."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from callback_core import (
    EVENTS,
    EarlyStoppingCallback,
    Loop,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    request_stop,
)

BATCHES = [1.0, 2.0, 3.0, 4.0]


class Recorder(TrainerCallback):
    """Notes the events, with the step, and what they pass."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.passed: dict[str, list[dict[str, Any]]] = {}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def _noting(name: str) -> Any:
    def method(
        self: Recorder, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.events.append((name, state.global_step))
        self.passed.setdefault(name, []).append(kwargs)

    return method


for _name in EVENTS:
    setattr(Recorder, _name, _noting(_name))


class Quiet(PrinterCallback):
    """Prints nothing."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class Plain(TrainerCallback):
    """A callback like most, of one event."""

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        pass


def made(recorder: Any, args: Any = None, **options: Any) -> Loop:
    options.setdefault("train_dataloader", BATCHES)
    return Loop([recorder, Quiet()], args, **options)


def trained(loop: Loop) -> Loop:
    with loop:
        for batch in loop.steps():
            loop.report(loss=batch)
    return loop


def test_a_loop_fires_the_events_in_the_order_of_the_table(tmp_path: Path) -> None:
    recorder = Recorder()
    args = {"num_train_epochs": 1, "logging_strategy": "epoch", "output_dir": str(tmp_path)}
    args |= {"save_strategy": "epoch"}
    loop = made(
        recorder,
        args,
        train_dataloader=[1.0],
        evaluate=lambda: {"loss": 1.0},
        save=lambda directory: None,
    )
    with loop:
        for _ in loop.epochs():
            for batch in loop.steps():
                loop.fire("on_pre_optimizer_step")
                loop.fire("on_optimizer_step")
                loop.report(loss=batch)
    assert recorder.names == [
        *("on_init_end", "on_train_begin", "on_epoch_begin", "on_step_begin"),
        *("on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_epoch_end"),
        *("on_log", "on_log", "on_evaluate", "on_save", "on_train_end"),
    ]


def test_steps_alone_drive_all_epochs() -> None:
    by_steps, by_epochs = Recorder(), Recorder()
    trained(made(by_steps, {"num_train_epochs": 2}))
    with made(by_epochs, {"num_train_epochs": 2}) as loop:
        for _ in loop.epochs():
            for batch in loop.steps():
                loop.report(loss=batch)
    assert by_steps.events == by_epochs.events
    assert by_steps.names.count("on_step_end") == 2 * len(BATCHES)


def test_the_log_has_the_means_since_the_last_one() -> None:
    loop = trained(made(Recorder(), {"num_train_epochs": 1, "logging_steps": 2}))
    assert [(log["loss"], log["step"]) for log in loop.state.log_history] == [(1.5, 2), (3.5, 4)]


def test_what_is_left_to_log_is_logged_at_the_end() -> None:
    loop = trained(made(Recorder(), {"num_train_epochs": 1, "logging_steps": 3}))
    assert [log["loss"] for log in loop.state.log_history] == [2.0, 4.0]


def test_batches_of_a_step_are_accumulated_and_the_last_step_of_an_epoch_may_be_short() -> None:
    recorder, updates = Recorder(), []
    args = {"num_train_epochs": 2, "gradient_accumulation_steps": 3}
    with made(recorder, args) as loop:
        for batch in loop.steps():
            loop.report(loss=batch)
            updates.append(loop.completes_step)
    assert updates == [False, False, True, True] * 2
    assert recorder.names.count("on_substep_end") == 4
    assert loop.state.global_step == loop.state.max_steps == 4
    assert [passed["loss"] for passed in recorder.passed["on_step_end"]] == [2.0, 4.0] * 2


def test_a_loop_without_data_and_epochs_ends_at_max_steps() -> None:
    recorder = Recorder()
    with made(recorder, {"max_steps": 5}, train_dataloader=None) as loop:
        seen = list(loop.steps())
    assert seen == [0, 1, 2, 3, 4]
    assert recorder.names.count("on_epoch_begin") == recorder.names.count("on_epoch_end") == 1


def test_a_loop_without_a_length_ends_with_its_data() -> None:
    with made(Recorder(), {"logging_steps": 2}, train_dataloader=None) as loop:
        for batch in loop.steps(iter(BATCHES)):
            loop.report(loss=batch)
    assert loop.state.global_step == 4
    assert loop.state.max_steps == -1


def test_max_steps_go_beyond_the_epochs_of_the_data() -> None:
    loop = trained(made(Recorder(), {"max_steps": 10}))
    assert loop.state.global_step == 10
    assert loop.state.epoch == 2.5
    assert loop.state.num_train_epochs == 3


def test_data_that_is_empty_ends_a_training_by_steps() -> None:
    loop = trained(made(Recorder(), {"max_steps": 10}, train_dataloader=iter(())))
    assert loop.state.global_step == 0


def test_data_that_can_be_read_once_ends_the_training_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = trained(made(Plain(), {"num_train_epochs": 2}, train_dataloader=iter(BATCHES)))
    assert loop.state.global_step == 4
    assert len(caplog.records) == 1


def test_an_epoch_without_steps_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with made(Plain(), {"num_train_epochs": 1}) as loop:
        for _ in loop.epochs():
            assert BATCHES  # as in a program that iterates over its own batches
    assert ["steps()" in record.getMessage() for record in caplog.records] == [True]


def test_a_break_ends_the_step_and_the_epoch() -> None:
    recorder = Recorder()
    with made(recorder, {"num_train_epochs": 2}) as loop:
        for _ in loop.epochs():
            for batch in loop.steps():
                loop.report(loss=batch)
                if batch == 2.0:
                    break
    assert recorder.names.count("on_step_end") == 4
    assert recorder.names.count("on_epoch_end") == 2
    assert recorder.names[-1] == "on_train_end"


def test_a_callback_stops_the_training_and_the_epoch_ends() -> None:
    class Stop(Recorder):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            request_stop(control, "enough")

    stop = Stop()
    loop = trained(made(stop))
    assert loop.state.global_step == 1
    assert stop.names[-3:] == ["on_epoch_end", "on_log", "on_train_end"]
    assert loop.control.requests[0].reason == "enough"


def test_an_epoch_that_a_callback_leaves_is_followed_by_the_next() -> None:
    class Leave(Recorder):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_epoch_stop = True

    leave = Leave()
    trained(made(leave, {"num_train_epochs": 2}))
    assert leave.names.count("on_epoch_begin") == 2


def test_an_error_ends_the_training_as_failed() -> None:
    recorder, error = Recorder(), RuntimeError("lost")
    with pytest.raises(RuntimeError) as raised, made(recorder) as loop:
        for _ in loop.steps():
            raise error
    assert raised.value is error
    assert recorder.names[-2:] == ["on_exception", "on_train_end"]
    assert recorder.passed["on_exception"][0]["exception"] is error
    assert "on_step_end" not in recorder.names


def test_a_callback_that_refuses_the_training_closes_the_others() -> None:
    recorder = Recorder()
    loop = Loop([recorder, EarlyStoppingCallback(), Quiet()], train_dataloader=BATCHES)
    with pytest.raises(ValueError), loop:  # there is no metric_for_best_model
        pass
    assert recorder.names[-2:] == ["on_exception", "on_train_end"]


def test_an_error_at_the_end_of_the_training_closes_the_callbacks() -> None:
    class Fails(Recorder):
        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("late")

    recorder = Recorder()
    with pytest.raises(OSError, match="late"), Loop([Fails, recorder, Quiet()]) as loop:
        for _ in loop.epochs():
            break
    assert recorder.names[-2:] == ["on_exception", "on_train_end"]


def test_a_second_training_begins_afresh() -> None:
    loop = made(Recorder(), {"num_train_epochs": 1})
    first = trained(loop).state.log_history
    assert trained(loop).state.log_history == first


# Evaluations


def test_metrics_get_the_prefix_and_decide_the_best_model() -> None:
    recorder, losses = Recorder(), iter([3.0, 1.0, 2.0])
    args = {"num_train_epochs": 3, "metric_for_best_model": "loss"}
    loop = trained(made(recorder, args, evaluate=lambda: {"loss": next(losses)}))
    assert [passed["metrics"]["eval_loss"] for passed in recorder.passed["on_evaluate"]] == [
        3,
        1,
        2,
    ]
    assert (loop.state.best_metric, loop.state.best_global_step) == (1.0, 8)


def test_early_stopping_needs_no_best_metric_of_the_loop() -> None:
    recorder = Recorder()
    args = {"num_train_epochs": 9, "metric_for_best_model": "accuracy", "eval_strategy": "epoch"}
    with Loop([EarlyStoppingCallback(2), recorder, Quiet()], args, train_dataloader=[1]) as loop:
        for _ in loop.epochs():
            list(loop.steps())
            loop.log_evaluation({"accuracy": 0.5})
    assert loop.state.epoch == 3.0


def test_an_evaluation_in_the_program_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    with made(Plain(), {"num_train_epochs": 2, "eval_strategy": "epoch"}) as loop:
        for _ in loop.epochs():
            list(loop.steps())
            loop.log_evaluation({"loss": 1.0})
    assert not caplog.records


def test_a_request_that_nothing_serves_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    args = {"num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 1}
    trained(made(Plain(), args | {"save_strategy": "epoch"}))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "evaluate" in told[0]
    assert "save" in told[1]


def test_a_log_that_has_nothing_to_say_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with made(Plain(), {"logging_steps": 1}) as loop:
        list(loop.steps())
    assert ["report" in record.getMessage() for record in caplog.records] == [True]


def test_prediction_steps_pass_their_batches_to_callbacks() -> None:
    recorder = Recorder()
    loop = made(recorder, eval_dataloader=[5, 6])
    assert list(loop.prediction_steps()) == [5, 6]
    assert list(loop.prediction_steps([7])) == [7]
    seen = [passed["eval_dataloader"] for passed in recorder.passed["on_prediction_step"]]
    assert seen == [[5, 6], [5, 6], [7]]


# What is reported and logged


class Scalar:
    """A number like those of numpy and torch."""

    shape = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def item(self) -> float:
        return self.value

    def __add__(self, other: Scalar) -> Scalar:
        return Scalar(self.value + other.value)

    def __radd__(self, other: float) -> Scalar:
        return Scalar(other + self.value)

    def __truediv__(self, count: int) -> Scalar:
        return Scalar(self.value / count)


def test_numbers_of_other_libraries_are_reported_as_pythons() -> None:
    with made(Recorder(), {"num_train_epochs": 1}) as loop:
        for batch in loop.steps():
            loop.report(loss=Scalar(batch))
    assert loop.state.log_history[0]["loss"] == 2.5


@pytest.mark.parametrize("value", ["high", None, [1.0]])
def test_what_has_no_mean_is_refused_when_it_is_reported(value: Any) -> None:
    with pytest.raises(TypeError, match="accuracy"), made(Recorder()) as loop:
        for _ in loop.steps():
            loop.report(accuracy=value)


def test_nan_is_logged() -> None:
    with made(Recorder(), {"num_train_epochs": 1}) as loop:
        for _ in loop.steps():
            loop.report(loss=math.nan)
    assert math.isnan(loop.state.log_history[0]["loss"])


def test_the_learning_rate_of_the_step_is_logged_with_the_means() -> None:
    optimizer = Namespace(param_groups=[{"lr": 0.5}])
    with made(Recorder(), {"logging_steps": 1, "max_steps": 2}, optimizer=optimizer) as loop:
        for batch in loop.steps():
            loop.report(loss=batch)
            optimizer.param_groups[0]["lr"] *= 0.1  # as a schedule does
    rates = [log["learning_rate"] for log in loop.state.log_history]
    assert rates == [0.5, pytest.approx(0.05)]


def test_a_callback_logs_from_any_event() -> None:
    class Logs(Recorder):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.log({"norm": 2.0})

    logs = Logs()
    loop = trained(made(logs, {"num_train_epochs": 1, "logging_strategy": "no"}))
    assert loop.state.log_history[0] == {"norm": 2.0, "epoch": 1.0, "step": 4}
    assert logs.passed["on_log"][0]["logs"] == {"norm": 2.0, "epoch": 1.0}


def test_a_log_of_a_callback_leaves_the_log_of_the_loop_due() -> None:
    class Logs(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.log({"norm": 2.0})

    loop = trained(made(Logs(), {"max_steps": 2, "logging_steps": 1}))
    assert ["loss" in log for log in loop.state.log_history] == [False, True] * 2


def test_a_callback_that_logs_at_every_log_is_refused() -> None:
    class Endless(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.log({"again": 1})

    with pytest.raises(RuntimeError, match="again"):
        trained(made(Endless()))


# Order


def test_methods_at_the_wrong_place_are_refused_with_the_next_step() -> None:
    loop = made(Recorder())
    methods = ("begin_epoch", "begin_step", "end_step", "end_epoch", "end", "save_checkpoint")
    for method in (*methods, "report"):
        with pytest.raises(RuntimeError, match="begin"):
            getattr(loop, method)()
    loop.begin()
    with pytest.raises(RuntimeError, match="end"):
        loop.begin()
    with pytest.raises(RuntimeError, match="begin_epoch"):
        loop.begin_step()
    loop.begin_epoch()
    with pytest.raises(RuntimeError, match="begin_step"):
        loop.end_step()
    with pytest.raises(RuntimeError, match="end_epoch"):
        loop.begin_epoch()
    loop.begin_step()
    with pytest.raises(RuntimeError, match="end_step"):
        loop.end_epoch()
    loop.end()


@pytest.mark.parametrize("event", ["on_train_begin", "on_step_end", "on_log", "on_save"])
def test_events_that_methods_fire_are_not_fired_by_themselves(event: str) -> None:
    with pytest.raises(RuntimeError, match=event):
        made(Recorder()).fire(event)


def test_events_of_the_program_reach_callbacks() -> None:
    class Own(TrainerCallback):
        seen = 0

        def on_episode_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            Own.seen = kwargs["reward"]

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            pass

    made(Own()).fire("on_episode_end", reward=7)
    assert Own.seen == 7


def test_the_events_of_an_optimizer_that_is_not_known_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Watches(TrainerCallback):
        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            pass

    trained(made(Watches()))
    assert ["Watches" in record.getMessage() for record in caplog.records] == [True]


# Arguments


@dataclass
class Own:
    learning_rate: float = 0.1
    num_train_epochs: int = 1


class WithDict:
    num_train_epochs = 1

    def __init__(self) -> None:
        self.learning_rate = 0.1

    def to_dict(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "num_train_epochs": 1}


@pytest.mark.parametrize(
    "args",
    [
        {"learning_rate": 0.1, "num_train_epochs": 1},
        Namespace(learning_rate=0.1, num_train_epochs=1),
        Own(),
        WithDict(),
    ],
    ids=["dict", "Namespace", "dataclass", "to_dict"],
)
def test_arguments_of_any_kind_are_the_parameters_of_the_training(args: Any) -> None:
    loop = trained(made(Recorder(), args))
    assert loop.args.to_dict() == {"learning_rate": 0.1, "num_train_epochs": 1}
    assert getattr(loop.args, "learning_rate") == 0.1  # noqa: B009 callbacks may read it
    assert loop.state.global_step == 4


def test_arguments_that_are_none_have_their_defaults() -> None:
    assert made(Recorder(), Namespace(logging_steps=None, run_name=None)).args.logging_steps == 500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logging_strategy", "sometimes"),
        ("logging_steps", 0),
        ("logging_steps", 2.5),
        ("logging_first_step", "False"),
        ("disable_tqdm", "no"),
        ("greater_is_better", "False"),
        ("metric_for_best_model", 5),
        ("max_steps", 1.5),
        ("num_train_epochs", "three"),
        ("gradient_accumulation_steps", 0),
        ("load_best_model_at_end", True),
        ("resume_from_checkpoint", True),
    ],
)
def test_an_argument_that_is_not_allowed_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        made(Recorder(), {name: value})


def test_a_share_of_an_unknown_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="logging_steps"):
        made(Recorder(), {"logging_steps": 0.1}, train_dataloader=None)


def test_a_misspelt_argument_is_told_with_the_one_that_it_means(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made(Recorder(), {"loging_steps": 3})
    assert "logging_steps" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("epochs", 5, "num_train_epochs"),
        ("accumulate_grad_batches", 2, "gradient_accumulation_steps"),
        ("save_total_limit", 2, "save_total_limit"),
        ("eval_on_start", True, "eval_on_start"),
    ],
)
def test_an_argument_that_asks_for_what_is_not_done_is_told(
    name: str, value: Any, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    made(Recorder(), {name: value})
    assert meant in caplog.text


def test_a_length_of_its_own_beside_the_one_that_is_read_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made(Recorder(), {"epochs": 5, "max_steps": 3})
    assert caplog.text == ""


def test_whole_numbers_of_any_kind_become_pythons() -> None:
    numbers = {"max_steps": 2.0, "logging_steps": Fraction(1), "disable_tqdm": 1}
    args = made(Recorder(), numbers).args
    assert [type(getattr(args, name)) for name in numbers] == [int, int, bool]


def test_an_argument_named_like_a_method_is_a_parameter_only() -> None:
    loop = made(Recorder(), {"to_dict": 1, "given": 2})
    assert loop.args.to_dict() == {"to_dict": 1, "given": 2}


def test_arguments_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        made(Recorder(), 3)


def test_processes_that_are_not_connected_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    loop = trained(made(Plain()))
    assert not loop.state.is_world_process_zero
    assert ["WORLD_SIZE" in record.getMessage() for record in caplog.records] == [True]


def test_an_epoch_of_unknown_length_counts_as_done_at_its_end() -> None:
    recorder = Recorder()
    epochs = []
    with Loop([recorder, Quiet], {"num_train_epochs": 2}, evaluate=lambda: {"a": 1}) as loop:
        for _ in loop.epochs():
            for _ in loop.steps(iter(BATCHES)):
                epochs.append(loop.state.epoch)
    assert epochs == [0.0] * 4 + [1.0] * 4
    assert [passed["metrics"]["epoch"] for passed in recorder.passed["on_evaluate"]] == [1.0, 2.0]


# Left by break


def test_a_break_within_a_step_of_several_batches_ends_the_epoch_without_that_step() -> None:
    recorder = Recorder()
    with made(recorder, {"gradient_accumulation_steps": 3, "num_train_epochs": 2}) as loop:
        for _ in loop.epochs():
            for batch in loop.steps():
                if batch == 2:
                    break
    assert recorder.names.count("on_substep_end") == 4
    assert recorder.names.count("on_epoch_end") == 2
    assert loop.state.global_step == 0


def test_an_evaluation_after_a_break_belongs_to_the_step_that_it_ended() -> None:
    recorder = Recorder()
    with made(recorder, {"num_train_epochs": 1}) as loop:
        for _ in loop.epochs():
            for batch in loop.steps():
                if batch == 2:
                    break
            loop.log_evaluation({"accuracy": 1})
    assert ("on_evaluate", 2) in recorder.events


def test_a_checkpoint_after_a_break_holds_the_step_that_it_ended(tmp_path: Path) -> None:
    args = {"num_train_epochs": 1, "output_dir": tmp_path, "save_strategy": "no"}
    with made(Recorder(), args, save=lambda path: None) as loop:
        for _ in loop.epochs():
            for _ in loop.steps():
                break
            loop.save_checkpoint()
    assert (tmp_path / "checkpoint-1").is_dir()


def test_a_step_that_an_error_leaves_is_not_counted_where_the_error_is_handled(
    tmp_path: Path,
) -> None:
    loop = made(Recorder(), {"output_dir": tmp_path}, save=lambda path: None)
    with pytest.raises(RuntimeError, match="end_step"), loop:
        try:
            for _ in loop.steps():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            loop.save_checkpoint()
    assert not (tmp_path / "checkpoint-1").exists()


def test_without_data_the_numbers_of_steps_are_those_of_their_batches() -> None:
    with made(
        Recorder(), {"max_steps": 2, "gradient_accumulation_steps": 2}, train_dataloader=None
    ) as loop:
        assert list(loop.steps()) == [0, 0, 1, 1]


@pytest.mark.parametrize("metrics", [None, [1.0], 1.0])
def test_an_evaluation_that_returns_no_metrics_by_name_is_refused(metrics: Any) -> None:
    with pytest.raises(TypeError, match="evaluate"):
        trained(made(Recorder(), evaluate=lambda: metrics))


def test_logs_have_names() -> None:
    loop = made(Recorder())
    with pytest.raises(TypeError, match="loss"):
        loop.log("loss")  # type: ignore[arg-type]
    assert loop.log_evaluation({0: 0.5})["eval_0"] == 0.5  # type: ignore[dict-item]


def test_a_last_step_that_was_not_known_is_told_if_it_is_neither_evaluated_nor_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = {"output_dir": tmp_path, "num_train_epochs": 1, "eval_strategy": "steps"}
    functions: dict[str, Any] = {"evaluate": dict, "save": lambda path: None}
    with made(Plain(), args, train_dataloader=None, **functions) as loop:
        list(loop.steps(iter(BATCHES)))
    assert "evaluation" in caplog.text
    assert "checkpoint" in caplog.text
    caplog.clear()
    trained(made(Plain(), args, **functions))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["evaluate", "save", "load"])
def test_what_is_no_function_is_refused_before_training(name: str) -> None:
    functions: dict[str, Any] = {name: {"loss": 1}}
    with pytest.raises(TypeError, match=name):
        made(Recorder(), **functions)
