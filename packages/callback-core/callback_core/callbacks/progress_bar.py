"""`ProgressCallback`: a progress bar of the training, and one of each evaluation."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.callbacks.output_above_bars import OutputAboveBars
from callback_core.callbacks.printer import printable, readable_logs, where_resumed, why_stopped
from callback_core.control import TrainerControl
from callback_core.data_length import number_of_batches
from callback_core.state import TrainerState

if TYPE_CHECKING:
    from tqdm.auto import tqdm


class ProgressCallback(TrainerCallback):
    """Shows the progress of training, evaluation and prediction, and writes the logs above the bar.

    Only the main process shows it. Bars appear in a terminal and in a notebook. If standard error
    is a pipe or a file, only the logs are written, as plain lines. Lines also say where a training
    resumes, and who asked for its early end. Lines that others print or log in a terminal appear
    above the bar. tqdm's environment variable `TQDM_DISABLE` turns the bars off.

    Args:
        max_str_len: Logged strings with more characters than this are replaced by their length.

    Attributes:
        training_bar: The bar of the training, while it is open.
        prediction_bar: The bar of an evaluation or prediction, while it is open.
        current_step: The step that the training's bar shows.
    """

    def __init__(self, max_str_len: int = 100) -> None:
        self.max_str_len = max_str_len
        self.training_bar: tqdm[Any] | None = None
        self.prediction_bar: tqdm[Any] | None = None
        self.current_step = 0
        self._predicted: Any = None  # the dataloader of the prediction bar
        self._output: OutputAboveBars | None = None

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the training's bar at the first step of this training, below where it resumes."""
        self._close_bars()  # that an error left open
        if state.is_world_process_zero:
            if (line := where_resumed(state, checkpoint_dir)) is not None:
                print(printable(line), flush=True)
            total = state.max_steps if state.max_steps > 0 else None
            if not (_in_notebook() or _turned_off()):
                self._output = OutputAboveBars()
            self.training_bar = open_bar(total=total, initial=state.global_step)
        self.current_step = state.global_step

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the training's bar to this step."""
        if self.training_bar is not None:
            self.training_bar.update(state.global_step - self.current_step)
            self.current_step = state.global_step

    def on_prediction_step(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Move the prediction's bar by a batch; the first batch opens it."""
        if not state.is_world_process_zero:
            return
        bar = self.prediction_bar
        # An evaluation that fails outside of training ends without an event and leaves its bar. It
        # is recognized by another dataloader or, with the same one, by a full bar.
        if bar is None or self._predicted is not eval_dataloader or _is_full(bar):
            self._close_prediction_bar()
            bar = open_bar(total=number_of_batches(eval_dataloader), below=self.training_bar)
            self.prediction_bar, self._predicted = bar, eval_dataloader
        bar.update(1)

    def on_evaluate(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the prediction bar."""
        self._close_prediction_bar()

    def on_predict(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
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
            from tqdm import tqdm

            tqdm.write(printable(str(readable_logs(logs, self.max_str_len))))
            sys.stdout.flush()  # a pipe or a file buffers it

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bars, including that of an evaluation that failed."""
        bar, line = self.training_bar, why_stopped(state, control)
        self._close_bars()
        if bar is not None and line is not None:
            bar.colour = "orange"  # a notebook shows it red, as after an error
            print(printable(line), flush=True)

    def _close_bars(self) -> None:
        self._close_prediction_bar()
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None
        if self._output is not None:
            self._output.end()
            self._output = None

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
        self.prediction_bar = self._predicted = None


def open_bar(
    total: int | None,
    initial: int = 0,
    below: tqdm[Any] | None = None,
    leave: bool | None = None,
) -> tqdm[Any]:
    """Return a bar, which is silent unless a terminal or a notebook can draw it.

    Args:
        total: The end of the bar, if it is known.
        initial: The start of the bar.
        below: The bar under which this one appears until it is closed.
        leave: Whether the bar stays when it is closed. By default, it does unless it is below
            another.
    """
    leave = below is None if leave is None else leave
    disabled = _turned_off()
    # tqdm is imported here, because that takes longer than importing all of callback_core.
    if not _in_notebook():
        from tqdm import tqdm as terminal_bar

        return terminal_bar(
            total=total,
            initial=initial,
            leave=leave,
            dynamic_ncols=True,
            disable=disabled or None,  # None: unless there is a terminal
        )
    from tqdm.auto import tqdm  # a widget with ipywidgets, else text

    return tqdm(
        total=total,
        initial=initial,
        leave=leave,
        dynamic_ncols=True,
        file=sys.stdout,  # where the logs go, so that they stay in order
        # A notebook cannot move the cursor up, so a second bar of text would fill the page.
        disable=disabled or (below is not None and not hasattr(below, "container")),
    )


def _turned_off() -> bool:
    # An argument overrides tqdm's environment variable, so the variable is read here.
    return bool(os.environ.get("TQDM_DISABLE"))


def _in_notebook() -> bool:
    """Return whether this program is a notebook's kernel.

    Imported modules of a notebook are no proof: other programs import them too.
    """
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _is_full(bar: tqdm[Any]) -> bool:
    return bar.total is not None and bar.n >= bar.total
