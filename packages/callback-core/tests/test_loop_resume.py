"""Checkpoints of a loop of one's own, and the trainings that resume from them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from callback_core import Loop, PrinterCallback, TrainerCallback, get_last_checkpoint


class Quiet(PrinterCallback):
    """Prints nothing."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        pass

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class Counts(TrainerCallback):
    """A callback with a state."""

    steps = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class Killed(BaseException):
    """Stands for the end of the process: nothing after it is written."""


class Training:
    """A model of one number, trained by a loop of one's own."""

    def __init__(self, output_dir: Path, **args: Any) -> None:
        self.weight, self.counts = 1.0, Counts()
        self.loop = Loop(
            [self.counts, Quiet()],
            {"output_dir": str(output_dir), "num_train_epochs": 2, "logging_steps": 3, **args},
            train_dataloader=[0.1, 0.2, 0.3, 0.4, 0.5],
            evaluate=lambda: {"loss": self.weight},
            save=self.save,
            load=self.load,
        )

    def save(self, directory: Path) -> None:
        (directory / "weight.json").write_text(json.dumps(self.weight))

    def load(self, directory: Path) -> None:
        self.weight = json.loads((directory / "weight.json").read_text())

    def run(self, kill_at: int | None = None) -> Training:
        with self.loop as loop:
            for batch in loop.steps():
                self.weight = self.weight * 0.9 + batch
                loop.report(loss=self.weight)
                if loop.state.global_step == kill_at:
                    raise Killed
        return self

    @property
    def result(self) -> tuple[Any, ...]:
        state = self.loop.state
        return self.weight, state.log_history, state.global_step, state.epoch, self.counts.steps


@pytest.mark.parametrize("kill_at", range(1, 10))
def test_a_training_that_was_killed_at_any_step_ends_like_an_undisturbed_one(
    kill_at: int, tmp_path: Path
) -> None:
    undisturbed = Training(tmp_path / "whole", save_steps=1).run()
    with pytest.raises(Killed):
        Training(tmp_path / "out", save_steps=1).run(kill_at)
    resumed = Training(tmp_path / "out", save_steps=1, resume_from_checkpoint=True).run()
    assert resumed.result == undisturbed.result


def test_a_training_resumed_at_its_end_does_nothing(tmp_path: Path) -> None:
    done = Training(tmp_path).run()
    resumed = Training(tmp_path, resume_from_checkpoint=True).run()
    assert resumed.result == done.result


def test_a_training_is_prolonged(tmp_path: Path) -> None:
    Training(tmp_path, num_train_epochs=1).run()
    assert Training(tmp_path, resume_from_checkpoint=True).run().loop.state.global_step == 10


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    class Full(Training):
        def save(self, directory: Path) -> None:
            (directory / "half").touch()
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        Full(tmp_path, save_steps=2).run()
    assert get_last_checkpoint(tmp_path) is None
    assert not list(tmp_path.glob("**/half"))


def test_a_checkpoint_of_an_earlier_training_is_replaced(tmp_path: Path) -> None:
    Training(tmp_path, save_steps=5).run()
    (tmp_path / "checkpoint-5" / "of_old").touch()
    Training(tmp_path, save_steps=5).run()
    assert not list(tmp_path.rglob("of_old"))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5", "checkpoint-10"}


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path) -> None:
    args = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    best = Training(tmp_path, load_best_model_at_end=True, **args).run()
    losses = {
        log["step"]: log["eval_loss"] for log in best.loop.state.log_history if "eval_loss" in log
    }
    step = min(losses, key=losses.__getitem__)
    assert best.loop.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{step}")
    assert best.weight == losses[step]


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert get_last_checkpoint(tmp_path / "none") is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-11").mkdir()
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_an_address_is_refused_because_only_directories_are_searched() -> None:
    with pytest.raises(ValueError, match="auto"):
        get_last_checkpoint("s3://bucket/run")


def test_auto_resumes_if_there_is_a_checkpoint(tmp_path: Path) -> None:
    given: dict[str, Any] = {"resume_from_checkpoint": "auto", "save_steps": 2}
    with pytest.raises(Killed):
        Training(tmp_path / "killed", **given).run(kill_at=7)
    resumed = Training(tmp_path / "killed", **given)
    resumed.weight = 5.0  # a training from the beginning would end with another weight
    assert resumed.run().result == Training(tmp_path / "whole", **given).run().result


@pytest.mark.parametrize("name", [True, "checkpoint-3"])
def test_a_checkpoint_that_is_not_there_is_refused(name: Any, tmp_path: Path) -> None:
    path = name if name is True else str(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Training(tmp_path, resume_from_checkpoint=path).run()


def test_a_program_that_saves_in_its_own_way_resumes_by_the_state_of_the_loop(
    tmp_path: Path,
) -> None:
    def train(resume: dict[str, Any] | None, stop_at: int) -> tuple[dict[str, Any], Loop]:
        counts = Counts()
        loop = Loop([counts, Quiet()], {"max_steps": stop_at}, train_dataloader=list(range(4)))
        if resume is not None:
            loop.load_state_dict(resume)
        with loop:
            for batch in loop.steps():
                loop.report(loss=batch)
            state = json.loads(json.dumps(loop.state_dict()))
        assert counts.steps == stop_at
        return state, loop

    state, _ = train(None, 6)
    _, resumed = train(state, 10)
    _, whole = train(None, 10)
    assert resumed.state.global_step == whole.state.global_step
    assert resumed.state.epoch == whole.state.epoch


def test_a_checkpoint_of_the_program_reaches_callbacks(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        directory: Any = None

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.directory = kwargs["checkpoint_dir"]

    sees = Sees()
    with Loop([sees, Quiet()], {"max_steps": 1}) as loop:
        list(loop.steps())
        loop.saved(tmp_path)
        with pytest.raises(NotADirectoryError):
            loop.saved(tmp_path / f"missing-{random.random()}")
    assert sees.directory == str(tmp_path)


def test_batches_that_are_done_are_skipped_over_several_loops_of_an_epoch() -> None:
    def train(resume: dict[str, Any] | None, stop_at: int) -> tuple[list[int], dict[str, Any]]:
        loop, seen = Loop([Quiet()], {"num_train_epochs": 1}), []
        if resume is not None:
            loop.load_state_dict(resume)
        with loop:
            for _ in loop.epochs():
                for batches in ([0, 1, 2], [3, 4, 5]):
                    for batch in loop.steps(batches):
                        seen.append(batch)
                        if batch == stop_at:
                            loop.end_step()
                            return seen, loop.state_dict()
        return seen, {}

    _, state = train(None, 4)
    assert train(state, -1)[0] == [5]


def test_data_that_shrank_since_the_checkpoint_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with Loop([Quiet()], {"num_train_epochs": 2}) as loop:
        for batch in loop.steps([0, 1, 2, 3]):
            if batch == 2:
                break
        state = loop.state_dict()
    resumed, seen = Loop([Quiet()], {"num_train_epochs": 2}), []
    resumed.load_state_dict(state)
    with resumed:
        for batch in resumed.steps([0, 1]):
            seen.append(batch)
    assert seen == [0, 1]  # of the second epoch
    assert "1 batches fewer" in caplog.text


def test_a_state_within_a_step_is_refused() -> None:
    with Loop([Quiet()], {"max_steps": 1}) as loop:
        for _ in loop.steps():
            with pytest.raises(RuntimeError, match="end_step"):
                loop.state_dict()
            with pytest.raises(RuntimeError, match="end_step"):
                loop.saved(".")


def test_a_state_that_was_loaded_is_left_as_it_is() -> None:
    with Loop([Quiet()], {"max_steps": 1}) as loop:
        for _ in loop.steps():
            loop.report(loss=1)
    state = loop.state_dict()
    before = json.dumps(state)
    resumed = Loop([Quiet()], {"max_steps": 2})
    resumed.load_state_dict(state)
    with resumed:
        for _ in resumed.steps():
            resumed.report(loss=1)
    assert json.dumps(state) == before


def test_a_training_that_could_not_be_resumed_is_resumed_at_the_next_try(tmp_path: Path) -> None:
    loop = Loop([Quiet()], {"max_steps": 1})
    with loop:
        list(loop.steps())
    state, tries = loop.state_dict(), []

    class RefusesOnce(Counts):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            tries.append(state)
            if len(tries) == 1:
                raise OSError

    state["stateful_callbacks"]["RefusesOnce"] = {"args": {}, "attributes": {"steps": 1}}
    resumed = Loop([RefusesOnce(), Quiet()], {"max_steps": 2})
    resumed.load_state_dict(state)
    with pytest.raises(ValueError, match="RefusesOnce"):
        resumed.begin()
    with resumed:
        assert resumed.state.global_step == 1


class Batches:
    """Batches whose number is unknown."""

    def __iter__(self) -> Any:
        return iter([0, 1, 2, 3])


def test_a_training_resumed_at_its_end_within_an_epoch_of_unknown_length_stays_there() -> None:
    def train(resume: dict[str, Any] | None) -> Loop:
        loop = Loop([Quiet()], {"max_steps": 2}, train_dataloader=Batches())
        if resume is not None:
            loop.load_state_dict(resume)
        with loop:
            for _ in loop.steps():
                loop.report(loss=1)
        return loop

    whole = train(None)
    again = train(whole.state_dict())
    assert again.state.epoch == whole.state.epoch
    assert again.state.log_history == whole.state.log_history


def test_batches_of_a_step_that_a_stop_drops_are_trained_after_a_resume() -> None:
    class StopsAtFirstSubstep(TrainerCallback):
        def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 1

    args = {"num_train_epochs": 1, "gradient_accumulation_steps": 2}
    with Loop([StopsAtFirstSubstep(), Quiet()], args, train_dataloader=[0, 1, 2, 3]) as loop:
        seen = list(loop.steps())
    resumed = Loop([Quiet()], args, train_dataloader=[0, 1, 2, 3])
    resumed.load_state_dict(loop.state_dict())
    assert seen == [0, 1, 2]
    with resumed:
        assert list(resumed.steps()) == [2, 3]


def test_an_epoch_that_has_other_batches_since_the_checkpoint_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Loop([Quiet()], {"num_train_epochs": 1}, train_dataloader=range(4)) as loop:
        for _ in loop.steps():
            break
        state = loop.state_dict()
    resumed = Loop([Quiet()], {"num_train_epochs": 1}, train_dataloader=range(8))
    resumed.load_state_dict(state)
    with resumed:
        list(resumed.steps())
    assert "1 of 4" in caplog.text


@pytest.mark.parametrize("state", [None, {}, {"model": 1, "global_step": 1}])
def test_what_is_no_state_of_a_loop_is_refused(state: Any) -> None:
    with pytest.raises(TypeError, match="state_dict"):
        Loop([Quiet()]).load_state_dict(state)


@pytest.mark.parametrize("name", ["best", "epoch-{epoch}"])
def test_the_best_of_the_checkpoints_of_a_program_is_known_whatever_their_names(
    name: str, tmp_path: Path
) -> None:
    args = {"num_train_epochs": 3, "metric_for_best_model": "accuracy"}
    with Loop([Quiet()], args, train_dataloader=[0, 1]) as loop:
        for epoch, accuracy in zip(loop.epochs(), (0.5, 0.9, 0.1), strict=False):
            list(loop.steps())
            loop.log_evaluation({"accuracy": accuracy})
            directory = tmp_path / name.format(epoch=epoch)
            directory.mkdir(exist_ok=True)
            loop.saved(directory)
    assert loop.state.best_model_checkpoint == str(tmp_path / name.format(epoch=1))


def test_the_best_checkpoint_is_found_where_the_checkpoints_were_moved(tmp_path: Path) -> None:
    def train(output_dir: Path, epochs: int, **more: Any) -> list[Path]:
        loaded: list[Path] = []
        args = {"num_train_epochs": epochs, "output_dir": output_dir, "save_strategy": "epoch"}
        args |= {"load_best_model_at_end": True, **more}
        losses = iter([1.0, 2.0][epochs - 1 :])
        with Loop(
            [Quiet()],
            args,
            train_dataloader=[0],
            evaluate=lambda: {"loss": next(losses)},
            save=lambda path: None,
            load=loaded.append,
        ) as loop:
            list(loop.steps())
        return loaded

    train(tmp_path / "before", 1)
    (tmp_path / "before").rename(tmp_path / "after")
    loaded = train(tmp_path / "after", 2, resume_from_checkpoint=True)
    assert loaded == [tmp_path / "after" / "checkpoint-1"] * 2


def test_a_best_checkpoint_that_was_deleted_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = {"num_train_epochs": 1, "output_dir": tmp_path, "save_strategy": "epoch"}
    functions: dict[str, Any] = {"save": lambda path: None, "load": lambda path: None}
    with Loop([Quiet()], args, train_dataloader=[0], **functions) as loop:
        list(loop.steps())
    state = tmp_path / "checkpoint-1" / "trainer_state.json"
    values = json.loads(state.read_text()) | {"best_model_checkpoint": str(tmp_path / "deleted-9")}
    state.write_text(json.dumps(values))
    args |= {"resume_from_checkpoint": True}
    with Loop([Quiet()], args, train_dataloader=[0], **functions) as resumed:
        assert resumed.state.best_model_checkpoint is None
    assert "deleted-9" in caplog.text


def test_an_epoch_that_a_callback_left_is_not_continued_by_a_resumed_training() -> None:
    class LeavesTheFirst(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_epoch_stop = state.global_step == 2

    class Keeps(TrainerCallback):
        found: Any = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                self.found = loop.state_dict()

    args, keeps = {"num_train_epochs": 2}, Keeps()
    with Loop([LeavesTheFirst(), keeps, Quiet()], args, train_dataloader=[0, 1, 2, 3]) as loop:
        list(loop.steps())
    resumed = Loop([LeavesTheFirst(), Quiet()], args, train_dataloader=[0, 1, 2, 3])
    resumed.load_state_dict(keeps.found)
    with resumed:
        assert list(resumed.steps()) == [0, 1, 2, 3]
    assert resumed.state.epoch == 2
