"""`ResumableLoop`: what a `Loop` saves in a checkpoint, and resumes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from callback_core.best_metric import is_best_checkpoint
from callback_core.driver.event_order import Stage
from callback_core.driver.loop_arguments import LoopArguments
from callback_core.driver.loop_checkpoint import (
    STATE,
    checkpoint_path,
    find_checkpoint,
    write_checkpoint,
)
from callback_core.driver.loop_events import LoopEvents
from callback_core.driver.loop_position import Position
from callback_core.handler import CallbackHandler
from callback_core.persistence import export_states, restore_states
from callback_core.state import TrainerState
from callback_core.state_file import snapshot


class ResumableLoop(LoopEvents):
    """The part of a `Loop` that saves checkpoints and resumes from them.

    Args:
        args: The arguments, as `LoopArguments`.
        handler: Calls the callbacks.
        evaluate: Returns the metrics of an evaluation by name, if the program has such a function.
        save: Writes the parts of the program into a directory, if it has such a function.
        load: Reads them again, if it has such a function.
    """

    def __init__(
        self,
        args: LoopArguments,
        handler: CallbackHandler,
        evaluate: Callable[[], Mapping[str, Any]] | None,
        save: Callable[[Path], object] | None,
        load: Callable[[Path], object] | None,
    ) -> None:
        super().__init__(args, handler)
        self._evaluate, self._save, self._load = evaluate, save, load
        self._resumed: tuple[TrainerState, Path | None] | None = None
        self._saved: tuple[int, Path] | None = None
        self._to_skip = 0

    def save_checkpoint(self) -> None:
        """Save a checkpoint with the function `save`, and fire `on_save`.

        `<output_dir>/checkpoint-<step>` appears only when all of it is written. The main process
        writes it, and the others wait.

        Raises:
            RuntimeError: No training has begun, a step has not ended, there is no function `save`,
                or saving failed in the main process. The main process itself raises what `save` has
                raised.
        """
        self._end_step_left_by_break()
        self._expect("save_checkpoint", Stage.TRAINING, Stage.EPOCH)
        if self._save is None:
            raise RuntimeError("There is no function `save` that writes a checkpoint.")
        path = checkpoint_path(self.args.output_dir, self.state.global_step)
        self._saved = self.state.global_step, path
        self._note_best()
        self._export_states()
        error: Exception | None = None
        if self._processes.is_main:
            try:
                write_checkpoint(path, self._save, self.state)
            except Exception as raised:
                error = raised
        failures = self._processes.gather(repr(error) if error is not None else None)
        if error is not None:
            raise error
        if failures[0] is not None:
            raise RuntimeError(f"The main process could not save {path}: {failures[0]}")
        self._fire("on_save", checkpoint_dir=str(path))

    def saved(self, directory: str | Path) -> None:
        """Fire `on_save` for a checkpoint that the program has saved in its own way.

        Save `state_dict()` with it, so that a resumed training continues the runs of the trackers.

        Args:
            directory: The directory of the checkpoint, which trackers may upload.

        Raises:
            NotADirectoryError: `directory` is not a directory.
            RuntimeError: No training has begun, or a step has not ended, so that it is not counted.
        """
        self._end_step_left_by_break()
        self._expect("saved", Stage.TRAINING, Stage.EPOCH)
        path = Path(directory).absolute()
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory. Save each checkpoint in one.")
        self._saved = self.state.global_step, path
        self._note_best()
        self._fire("on_save", checkpoint_dir=str(path))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training and its callbacks, as JSON can represent it.

        With several processes, all of them must call this.

        Raises:
            RuntimeError: A step has not ended. A resumed training would repeat it.
        """
        self._end_step_left_by_break()
        if self._stage is Stage.STEP:
            self._expect("state_dict", Stage.EPOCH)
        self._export_states()
        values = {item.name: getattr(self.state, item.name) for item in fields(self.state)}
        found: dict[str, Any] = snapshot(values, "The state of the training")
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` returned, in the training that begins next.

        Raises:
            RuntimeError: The training has begun already.
            TypeError: It is no such state.
        """
        self._expect("load_state_dict", Stage.OUTSIDE)
        names = {item.name for item in fields(TrainerState)}
        if not isinstance(state, Mapping) or "global_step" not in state or state.keys() - names:
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            raise TypeError(f"load_state_dict takes what state_dict has returned, not: {found}")
        self._resumed = TrainerState(**deepcopy(dict(state))), None

    # What the above is made of

    def _run_save(self) -> None:
        if self._save is not None:
            self.save_checkpoint()
        elif self._saved is None or self._saved[0] != self.state.global_step:
            self._tell(
                "A checkpoint is due, but the loop has no function `save`. Pass one, or call "
                "saved() after each checkpoint that you save."
            )

    def _note_best(self) -> None:
        """Record the checkpoint of the current step in the state, if it is the best."""
        saved = self._saved
        if (
            saved is not None
            and saved[0] == self.state.global_step
            and is_best_checkpoint(self.args, self.state, self._position.best_step)
        ):
            self._position.best_step = saved[0]
            self.state.best_model_checkpoint = str(saved[1])

    def _load_best(self) -> None:
        best = self.state.best_model_checkpoint
        if not self.args.load_best_model_at_end:
            return
        if best is None:
            self._tell(
                "load_best_model_at_end has no checkpoint to load, because none was saved at an "
                f"evaluation that reported {self.args.metric_for_best_model!r}."
            )
        else:
            assert self._load is not None
            self._load(Path(best))

    def _export_states(self) -> None:
        self._position.is_left = self.control.should_epoch_stop
        self._position.unlogged = self._reported.sums(self._processes)
        owners = [*self.handler.callbacks, self._position]
        self.state.stateful_callbacks = export_states(owners, self.state.stateful_callbacks)

    def _restore(self) -> Path | None:
        """Set the state to begin or resume with, and return the checkpoint to resume from."""
        resumed, self._saved = self._resumed, None
        path = find_checkpoint(self.args.resume_from_checkpoint, self.args.output_dir)
        if resumed is None and path is not None:
            resumed = TrainerState.load_from_json(path / STATE), path
        self._position, self._to_skip = Position(), 0
        if resumed is None:
            self.state = TrainerState(epoch=0)
            return None
        self.state, path = resumed
        restore_states([*self.handler.callbacks, self._position], self.state.stateful_callbacks)
        if not self._position.has_ended:
            self._to_skip = self._position.batches
        if path is not None:
            self._find_best(path.parent)
            if self._load is not None:
                self._load(path)
        self._resumed = None  # only now, because the above may fail and be tried again
        return path

    def _find_best(self, directory: Path) -> None:
        """Look for the best checkpoint in `directory`, to which the checkpoints may have moved."""
        best = self.state.best_model_checkpoint
        if best is None or Path(best).is_dir():
            return
        moved = directory / Path(best).name
        if moved.is_dir():
            self.state.best_model_checkpoint = str(moved)
            return
        self._tell(f"The best checkpoint {best} is not there any more. Another one may become it.")
        self.state.best_model_checkpoint = self._position.best_step = None
