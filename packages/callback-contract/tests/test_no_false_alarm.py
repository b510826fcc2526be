"""What correct callbacks do, and no rule reports."""

from __future__ import annotations

import itertools
import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from callback_contract import CallbackContract, check
from callback_core import TrainerCallback, saved_checkpoint


def outcome(callback: Any, rule: str, folder: Path, **members: Any) -> str:
    """Check one rule for the callbacks that `callback` makes, and return its outcome."""
    members = {
        "__test__": False,
        "contract": (2, 0),
        "make": lambda self, output_dir: callback(),
        **members,
    }
    [result] = check(type("Suite", (CallbackContract,), members), folder, [rule])
    return result.outcome


class WarnsThroughPython(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        warnings.warn("Python shows this once", stacklevel=1)


class WarnsThroughALogger(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logging.getLogger(__name__).warning("the step is %d", state.global_step)


@pytest.mark.parametrize(
    ("callback", "expected"), [(WarnsThroughPython, "kept"), (WarnsThroughALogger, "broken")]
)
def test_a_warning_that_python_shows_once_is_not_repeated(
    callback: type[TrainerCallback], expected: str, tmp_path: Path
) -> None:
    assert outcome(callback, "OUT-005", tmp_path) == expected


class RemembersOnItsClass(TrainerCallback):
    """Opens a file in the main process, and closes it where its class says so."""

    closes = False

    def __init__(self) -> None:
        self.opened: list[str] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            RemembersOnItsClass.closes = True
            self.opened = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if RemembersOnItsClass.closes:
            assert self.opened is not None
            self.opened = []


def test_other_ranks_do_not_see_what_the_main_process_sets_on_the_class(tmp_path: Path) -> None:
    assert outcome(RemembersOnItsClass, "RNK-003", tmp_path) == "kept"


class WritesToTheCheckpoint(TrainerCallback):
    """Writes a file to each new checkpoint."""

    name = "average.txt"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = saved_checkpoint(args, state, kwargs.get("checkpoint_dir"))
        if folder is not None and folder.is_dir():
            (folder / self.name).write_text(str(state.global_step))


class ReplacesTheWeights(WritesToTheCheckpoint):
    name = "model.safetensors"


class WritesToTheCheckpointLater(WritesToTheCheckpoint):
    """Writes to it after it may have been uploaded."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for folder in Path(args.output_dir).glob("checkpoint-*"):
            (folder / self.name).write_text("later")


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (WritesToTheCheckpoint, "kept"),
        (ReplacesTheWeights, "broken"),
        (WritesToTheCheckpointLater, "broken"),
    ],
)
def test_only_on_save_may_add_files_to_a_checkpoint_and_change_none(
    callback: type[TrainerCallback], expected: str, tmp_path: Path
) -> None:
    assert outcome(callback, "ROY-008", tmp_path) == expected


class ReadsTheOptimizer(TrainerCallback):
    rate: float | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rate = kwargs["optimizer"].param_groups[0]["lr"]
        assert kwargs["lr_scheduler"] is not None
        assert kwargs["train_dataloader"] is not None


def test_a_callback_that_joins_a_training_finds_its_optimizer(tmp_path: Path) -> None:
    assert outcome(ReadsTheOptimizer, "LIF-006", tmp_path) == "kept"


class AnnouncesOnce(TrainerCallback):
    """Announces a training once, also if it is resumed, and the next one again."""

    def __init__(self) -> None:
        self.announced = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.announced = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.announced = False

    def state_dict(self) -> dict[str, Any]:
        return {"announced": self.announced}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.announced = state["announced"]


def test_the_end_of_a_training_may_reset_what_checkpoints_have(tmp_path: Path) -> None:
    assert outcome(AnnouncesOnce, "STA-001", tmp_path, capabilities={"state"}) == "kept"


class CountsUnderALock(TrainerCallback):
    """Has a lock from its constructor on, and makes another one for a copy."""

    def __init__(self) -> None:
        self.steps = 0
        self._lock = threading.Lock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with self._lock:
            self.steps += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class HasAFunction(TrainerCallback):
    """Has a function that pickle finds in no module."""

    def __init__(self) -> None:
        self.is_due = lambda step: step % 2 == 0


@pytest.mark.parametrize("callback", [CountsUnderALock, HasAFunction])
def test_a_callback_that_can_be_copied_may_have_a_lock_or_a_function(
    callback: type[TrainerCallback], tmp_path: Path
) -> None:
    assert outcome(callback, "LIF-010", tmp_path) == "kept"


class LosesItsSettingInACopy(TrainerCallback):
    def __init__(self, every: int = 2) -> None:
        self.every = every

    def __getstate__(self) -> dict[str, Any]:
        return {"every": 10}


def test_a_copy_with_another_setting_is_noticed(tmp_path: Path) -> None:
    assert outcome(LosesItsSettingInACopy, "LIF-010", tmp_path) == "broken"


class ServesOnce(TrainerCallback):
    """Starts what a process can have only once, and remembers that in its class."""

    serves = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not ServesOnce.serves:
            assert "a server" not in STARTED
            STARTED["a server"] = object()
            ServesOnce.serves = True


STARTED: dict[str, object] = {}


class AddsLines(TrainerCallback):
    """Adds lines to a file that all trainings share."""

    def __init__(self, path: str) -> None:
        self._path = path

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with Path(self._path).open("a") as file:
            file.write(f"{state.global_step}\n")


@pytest.mark.parametrize("rule", ["LIF-003", "LIF-007", "LIF-008", "LIF-010"])
@pytest.mark.parametrize("callback", [ServesOnce, AddsLines])
def test_a_process_may_have_one_server_and_one_file_for_all_trainings(
    callback: type[TrainerCallback], rule: str, tmp_path: Path
) -> None:
    def make(self: Any, output_dir: Path) -> Any:
        return AddsLines(str(output_dir / "steps")) if callback is AddsLines else callback()

    assert outcome(callback, rule, tmp_path, make=make) == "kept"


class HasAThreadInEachThirdTraining(TrainerCallback):
    """Runs a thread in the training of the copy, which follows those of two new callbacks."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._done = threading.Event()
        if next(TRAININGS) % 3 == 2:
            threading.Thread(target=self._done.wait).start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._done.set()


TRAININGS = itertools.count()


def test_a_thread_that_new_callbacks_lack_may_run_by_chance(tmp_path: Path) -> None:
    assert outcome(HasAThreadInEachThirdTraining, "LIF-010", tmp_path) == "kept"
