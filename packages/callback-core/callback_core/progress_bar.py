"""`ProgressCallback`: a progress bar of the training, and one of each evaluation in it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.printer import printable, readable_logs, why_stopped
from callback_core.state import TrainerState

if TYPE_CHECKING:
    from tqdm.auto import tqdm


class ProgressCallback(TrainerCallback):
    """Shows the progress of training, evaluation and prediction, and writes the logs above the bar.

    One process of all shows it. A bar is drawn in a terminal and in a notebook; where standard
    error is a pipe or a file, only the logs are written, as plain lines. Where a training is asked
    to end early, it says by whom. tqdm's environment variable `TQDM_DISABLE` turns the bars off.

    Args:
        max_str_len: Logged strings with more characters than this are not written out.

    Attributes:
        training_bar: The bar of training, while there is one.
        prediction_bar: The bar of an evaluation or prediction, while there is one.
        current_step: The step at which the bar of training is.
    """

    def __init__(self, max_str_len: int = 100) -> None:
        self.max_str_len = max_str_len
        self.training_bar: tqdm[Any] | None = None
        self.prediction_bar: tqdm[Any] | None = None
        self.current_step = 0
        self._predicted: Any = None  # the dataloader of the prediction bar

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the training bar, at the step from which training goes on."""
        self._close_bars()  # which an error has left open
        if state.is_world_process_zero:
            total = state.max_steps if state.max_steps > 0 else None
            self.training_bar = _bar(total=total, initial=state.global_step)
        self.current_step = state.global_step

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the training bar to this step."""
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
        """Move the prediction bar by a batch, opening it at the first."""
        if not state.is_world_process_zero:
            return
        bar = self.prediction_bar
        # An evaluation that fails outside of training ends without an event, so its bar is found
        # here: by its dataloader or, where that is used again, by being full.
        if bar is None or self._predicted is not eval_dataloader or _is_full(bar):
            self._close_prediction_bar()
            bar = _bar(total=_length(eval_dataloader), below=self.training_bar)
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
            sys.stdout.flush()  # a pipe or a file would keep it back

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bars, also one of an evaluation that an error cut short."""
        bar, line = self.training_bar, why_stopped(state, control)
        self._close_bars()
        if bar is not None and line is not None:
            bar.colour = "orange"  # in a notebook, where it is red now, as after an error
            print(printable(line), flush=True)

    def _close_bars(self) -> None:
        self._close_prediction_bar()
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
        self.prediction_bar = self._predicted = None


def _bar(total: int | None, initial: int = 0, below: tqdm[Any] | None = None) -> tqdm[Any]:
    """Return a bar, silent where neither a terminal nor a notebook would draw it.

    Args:
        total: Where the bar ends, if that is known.
        initial: Where it begins.
        below: The bar under which it is shown, until it is closed.
    """
    # What is given to tqdm comes before its environment variable, so that is asked for here.
    disabled = bool(os.environ.get("TQDM_DISABLE"))
    # tqdm is imported here, because that takes longer than to import all of callback_core.
    if not _in_notebook():
        from tqdm import tqdm as terminal_bar

        return terminal_bar(
            total=total,
            initial=initial,
            leave=below is None,
            dynamic_ncols=True,
            disable=disabled or None,  # None: by whether there is a terminal
        )
    from tqdm.auto import tqdm  # a widget where there is ipywidgets, else text

    return tqdm(
        total=total,
        initial=initial,
        leave=below is None,
        dynamic_ncols=True,
        file=sys.stdout,  # where the logs go, so that they stay in order
        # A notebook cannot go up a line, so that a second bar of text would go down the page.
        disable=disabled or (below is not None and not hasattr(below, "container")),
    )


def _in_notebook() -> bool:
    """Return whether this program is a notebook's kernel.

    That a notebook's modules are imported does not tell: other programs import them too.
    """
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _is_full(bar: tqdm[Any]) -> bool:
    return bar.total is not None and bar.n >= bar.total


def _length(dataloader: Any) -> int | None:
    """Return the number of batches; `None` where the dataloader does not know it."""
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):  # torch's has a __len__ that raises
        return None
