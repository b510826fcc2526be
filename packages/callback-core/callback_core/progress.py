"""`ProgressCallback`: a progress bar of the training, and one of each evaluation in it."""

from __future__ import annotations

import sys
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.printer import readable_logs
from callback_core.state import TrainerState

if TYPE_CHECKING:
    from tqdm.auto import tqdm


class ProgressCallback(TrainerCallback):
    """Shows the progress of training, evaluation and prediction, and writes the logs above the bar.

    One process of all shows it. A bar is drawn in a terminal and in a notebook; where standard
    error is a pipe or a file, only the logs are written, as plain lines.

    Args:
        max_str_len: Logged strings with more characters than this are not written out.
    """

    def __init__(self, max_str_len: int = 100) -> None:
        self.max_str_len = max_str_len
        self.training_bar: tqdm[Any] | None = None
        self.prediction_bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the training bar, at the step from which training goes on."""
        if state.is_world_process_zero:
            self.training_bar = _bar(total=state.max_steps, initial=state.global_step)

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the training bar to this step."""
        if self.training_bar is not None:
            self.training_bar.update(state.global_step - self.training_bar.n)

    def on_prediction_step(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Move the prediction bar by a batch, opening it at the first."""
        if not state.is_world_process_zero:
            return
        if self.prediction_bar is None:
            total = len(eval_dataloader) if isinstance(eval_dataloader, Sized) else None
            self.prediction_bar = _bar(total=total, leave=self.training_bar is None)
        self.prediction_bar.update(1)

    def on_evaluate(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the prediction bar."""
        self._close_prediction_bar()

    def on_predict(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the prediction bar."""
        self._close_prediction_bar()

    def on_log(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write `logs` above the bars."""
        if state.is_world_process_zero and logs is not None:
            from tqdm.auto import tqdm

            tqdm.write(str(readable_logs(logs, self.max_str_len)))

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bars, also one of an evaluation that an error cut short."""
        self._close_prediction_bar()
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None


def _bar(total: int | None, initial: int = 0, leave: bool = True) -> tqdm[Any]:
    """Return a bar, silent where neither a terminal nor a notebook would draw it."""
    from tqdm.auto import tqdm  # here, because it takes longer than all of callback_core to import

    in_notebook = "ipykernel" in sys.modules
    return tqdm(
        total=total,
        initial=initial,
        leave=leave,
        dynamic_ncols=True,
        disable=False if in_notebook else None,
    )
