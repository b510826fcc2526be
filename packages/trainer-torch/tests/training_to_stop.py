"""Trainings that a signal stops: `training_to_stop.py PHASE SIGNAL TARGET DIRECTORY`.

Each process sends the signal itself, at a moment of the training that the phase names, and writes
how it ended to `report-<rank>.json`. A training that ends by itself writes `result.json` too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch
from small import arguments, compute_loss, data, net
from torch.utils.data import IterableDataset
from training_to_kill import SAMPLES, Augmented

from trainer_torch import LoopCallback, Trainer
from trainer_torch.storage.checkpoint import list_checkpoints

STEPS: Final = 8
"""The update steps: two epochs of four, with two batches each, in one process."""


class Phase(NamedTuple):
    """When the signal comes.

    Attributes:
        step: The step with which the training then ends; `None` if the signal ends it at once.
        event: The method of `Sends` that sends the signal.
        options: Arguments of the training.
        resumes: Whether the training is one that resumes, from its third step.
    """

    step: int | None
    event: str
    options: Mapping[str, Any] = MappingProxyType({})
    resumes: bool = False


EVERY: Final = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
BEST: Final = {**EVERY, "save_steps": 2, "load_best_model_at_end": True}
ON_START: Final = {"eval_strategy": "epoch", "eval_on_start": True}

PHASES: Final = {
    "the Trainer is made": Phase(None, "on_init_end"),
    "its data loader is made": Phase(None, "make_loader"),
    "its optimizer is made": Phase(None, "make_optimizer"),
    "a checkpoint is loaded": Phase(None, "load_state_dict", resumes=True),
    "on_train_begin": Phase(1, "on_train_begin"),
    "the first batch is loaded": Phase(1, "load_batch", {"dataloader_num_workers": 0}),
    "batches are skipped": Phase(3, "skip", {"dataloader_num_workers": 0}, resumes=True),
    "eval_on_start": Phase(0, "on_prediction_step", ON_START),
    "a step": Phase(3, "compute_loss"),
    "between batches of a step": Phase(3, "on_substep_end"),
    "on_log": Phase(3, "on_log"),
    "an evaluation": Phase(4, "on_prediction_step", {**EVERY, "eval_steps": 4}),
    "a save": Phase(4, "checkpoint_files", {**EVERY, "save_steps": 4}),
    "on_save": Phase(4, "on_save", {**EVERY, "save_steps": 4}),
    "on_epoch_end": Phase(4, "on_epoch_end"),
    "the last step": Phase(STEPS, "compute_loss"),
    "the last evaluation": Phase(STEPS, "on_prediction_step", EVERY),
    "the last save": Phase(STEPS, "checkpoint_files", {**EVERY, "save_steps": 3}),
    "the last log": Phase(STEPS, "on_log"),
    "the best model is loaded": Phase(STEPS, "finish", BEST),
    "on_train_end": Phase(STEPS, "on_train_end", {**EVERY, "save_steps": 3}),
}


class Sends(LoopCallback):
    """Sends a signal once, in a phase, and notes what it is told."""

    def __init__(self, phase: str, send: Callable[[], None], waits: bool) -> None:
        self.phase, self.send, self.is_sent = PHASES[phase], send, False
        self.waits = waits
        self.trainer: Any = None
        self.told: list[str] = []
        self.saved: list[int] = []

    def reach(self, event: str, step: int | None = None) -> None:
        """Send the signal, if this is its event, and its step if that is known."""
        is_step = None in (step, self.phase.step) or step == self.phase.step
        if event == self.phase.event and is_step and not self.is_sent:
            self.is_sent = True
            self.send()
            if self.waits:  # for torchrun to pass it on
                while self.trainer.run.signals.received is None:
                    time.sleep(0.01)

    def on_exception(self, *args: Any, exception: Any = None, **kwargs: Any) -> None:
        self.told.append(type(exception).__name__)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved.append(state.global_step)
        self.reach("on_save", state.global_step)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("end")
        self.reach("on_train_end")

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("begin")
        self.reach("on_train_begin")

    def on_init_end(self, *args: Any, **kwargs: Any) -> None:
        self.reach("on_init_end")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.global_step < STEPS or "train_loss" in logs:
            self.reach("on_log", state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.reach("on_substep_end", state.global_step + 1)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.reach("on_prediction_step", state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.reach("on_epoch_end", state.global_step)

    def checkpoint_files(self, model: Any) -> Mapping[str, Any]:
        if self.trainer is not None:
            self.reach("checkpoint_files", self.trainer.state.global_step)
        return {}

    def finish(self, model: Any, best: Path | None) -> None:
        self.reach("finish")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reach("load_state_dict")


class Stopped(Trainer):
    """A training in which `sends` sends a signal, if it is set."""

    sends: Any = None

    def reach(self, event: str, step: int | None = None) -> None:
        if self.sends is not None:
            self.sends.reach(event, step)

    def get_train_dataloader(self) -> Any:
        self.reach("make_loader")
        return super().get_train_dataloader()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        self.reach("make_optimizer")
        return super().create_optimizer(*args, **kwargs)

    def save_checkpoint(self) -> None:
        if not self.is_world_process_zero():  # it waits for the one that writes
            self.reach("checkpoint_files", self.state.global_step)
        super().save_checkpoint()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.reach("compute_loss", self.state.global_step + 1)
        return super().compute_loss(*args, **kwargs)


class Read(IterableDataset[Any]):
    """Samples without a state, so that a resumed training reads what it has done again."""

    def __init__(self, sends: Any) -> None:
        self.sends = sends

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[Any]:
        for index in range(SAMPLES):
            if index and self.sends is not None:
                self.sends.reach("skip")
                self.sends.reach("load_batch")
            yield Augmented()[index]


def make(phase: str, directory: Path, sends: Sends | None = None, **changed: Any) -> Stopped:
    """Return a training for this phase."""
    options = {
        "per_device_train_batch_size": 4 // int(os.environ.get("WORLD_SIZE", "1")),
        "gradient_accumulation_steps": 2,
        "enable_jit_checkpoint": True,
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,
        **PHASES[phase].options,
    }
    if options["dataloader_num_workers"] == 0:
        options["dataloader_persistent_workers"] = False
    reads = PHASES[phase].event in ("skip", "load_batch")
    return Stopped(
        net(),
        arguments(directory, **{**options, **changed}),
        train_dataset=Read(sends) if reads else Augmented(),
        eval_dataset=data(9),
        compute_loss=compute_loss,
        callbacks=[] if sends is None else [sends],
    )


def sender(number: int, target: str) -> Callable[[], None]:
    """Return a function that sends the signal.

    Args:
        number: The signal.
        target: `process`; `group`, with the workers of its loaders; `rank 0` or `rank 1` of two, or
            all `ranks`; `torchrun`, which sends it to all ranks; `none`.
    """
    rank = os.environ.get("RANK", "0")
    receiver = {"torchrun": "rank 0", "none": ""}.get(target, target)
    if receiver not in ("process", "group", "ranks", f"rank {rank}"):
        return lambda: None
    if target == "group":
        return lambda: os.killpg(0, number)
    return lambda: os.kill(os.getppid() if target == "torchrun" else os.getpid(), number)


def train(phase: str, number: int, target: str, directory: Path) -> None:
    """Train, from the newest checkpoint if there is one, and write how it ended."""
    sends = Sends(phase, sender(number, target), target == "torchrun")
    rank = os.environ.get("RANK", "0")
    report = directory / f"report-{rank}.json"
    report.unlink(missing_ok=True)
    ended: Any = None
    trainer = None
    try:
        trainer = make(phase, directory, sends)
        trainer.sends, sends.trainer = sends, trainer
        trainer.train(resume_from_checkpoint=bool(list_checkpoints(directory)))
    except BaseException as error:
        ended = error.code if isinstance(error, SystemExit) else repr(error)
        raise
    finally:
        step = trainer.state.global_step if trainer is not None else 0
        told = {"ended": ended, "step": step, "told": sends.told, "saved": sends.saved}
        report.write_text(json.dumps(told))
    if rank == "0":
        (directory / "result.json").write_text(json.dumps(result(trainer), indent=1))


def result(trainer: Trainer) -> dict[str, Any]:
    """Return what a training must share with one that was not stopped."""
    measured = ("runtime", "_per_second")
    return {
        "weights": [value.tolist() for value in trainer.model.state_dict().values()],
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(measured)}
            for entry in trainer.state.log_history
        ],
        "best": trainer.state.best_metric,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
