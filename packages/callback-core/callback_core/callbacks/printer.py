"""`PrinterCallback`: prints each log as a line; and functions that make logs readable."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.callbacks.default_flow import DefaultFlowCallback
from callback_core.control import TrainerControl
from callback_core.state import TrainerState

_MOST_ELEMENTS: Final = 100  # of an array or tensor that is written out


class PrinterCallback(TrainerCallback):
    """Prints the logs to standard output, in the main process of each machine.

    Use it instead of a progress bar. It also prints where a training resumes, and who asked for its
    early end.
    """

    _in_training = False

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Print where the training resumes, if it does."""
        self._in_training = True  # its end may need a line
        line = where_resumed(state, checkpoint_dir)
        if state.is_local_process_zero and line is not None:
            print(printable(line), flush=True)

    def on_log(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print `logs`."""
        if state.is_local_process_zero and logs is not None:
            print(printable(str(readable_logs(logs))), flush=True)

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print who asked for the end, if it came early."""
        line = why_stopped(state, control) if self._in_training else None
        self._in_training = False
        if state.is_local_process_zero and line is not None:
            print(printable(line), flush=True)


def why_stopped(state: TrainerState, control: Any) -> str | None:
    """Return a line that names who ended the training before its last step.

    Args:
        state: The state at the end of training.
        control: The control at the end of training. transformers' does not know who asked.

    Returns:
        The line, with control characters as escapes; `None` if all steps were done, or if nobody is
        known to have asked for the end.
    """
    if 0 < state.max_steps <= state.global_step:
        return None
    asked = [
        (request.by or "the program") + (f": {request.reason}" if request.reason else "")
        for request in getattr(control, "requests", ())
        if request.flag == "should_training_stop" and request.by != DefaultFlowCallback.__name__
    ]
    if not asked:
        return None
    return _escaped(f"Stopped at {_step_of(state)}: {'; '.join(dict.fromkeys(asked))}")


def where_resumed(state: TrainerState, checkpoint_dir: str | None) -> str | None:
    """Return a line that says at which step a training resumes, or that nothing is left of it.

    Args:
        state: The state when training begins.
        checkpoint_dir: The checkpoint from which it resumes, if the loop tells.

    Returns:
        The line, with control characters as escapes; `None` if the training begins at step 0.
    """
    if state.global_step == 0 and checkpoint_dir is None:
        return None
    source = "" if checkpoint_dir is None else f" from {checkpoint_dir}"
    if 0 < state.max_steps <= state.global_step:
        return _escaped(
            f"Nothing is left to train{source}: {_step_of(state)} is done. To train on, raise "
            "max_steps or num_train_epochs."
        )
    return _escaped(f"Resuming{source} at {_step_of(state)}.")


def readable_logs(logs: Mapping[str, Any], max_str_len: int | None = None) -> dict[str, Any]:
    """Return `logs` as a person reads them: with rounded numbers, and without `total_flos`.

    Args:
        logs: The logged values by name. Arrays and tensors become numbers, even in nested values.
        max_str_len: Strings with more characters than this are replaced by a note of their length.
    """
    return {
        name: _readable(value, max_str_len) for name, value in logs.items() if name != "total_flos"
    }


def readable_number(value: float) -> float:
    """Return `value` rounded to four significant digits, or to one decimal from 1000 on."""
    value = float(value)  # numpy's float64 is a float that shows its type
    if value.is_integer():
        return value
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)


def printable(text: str) -> str:
    r"""Return `text`, with escapes like `\u4e2d` for what standard output cannot write."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _step_of(state: TrainerState) -> str:
    of_all = f" of {state.max_steps}" if state.max_steps > 0 else ""
    return f"step {state.global_step}{of_all}"


def _escaped(line: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in line
    )


def _readable(value: Any, max_str_len: int | None) -> Any:
    if isinstance(value, float):
        return readable_number(value)
    if isinstance(value, str):
        if max_str_len is not None and len(value) > max_str_len:
            return f"[{len(value)} characters, more than max_str_len={max_str_len}]"
        return str(value)
    if isinstance(value, Mapping):
        return {name: _readable(part, max_str_len) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_readable(part, max_str_len) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # of numpy, torch, jax
        if math.prod(value.shape) <= _MOST_ELEMENTS:
            # A sparse tensor of torch and one without data refuse, each with an error of its own.
            with suppress(Exception):
                return _readable(value.tolist(), max_str_len)
        return f"[{type(value).__name__} of shape {tuple(value.shape)}]"
    return value
