"""`PrinterCallback`: prints the logs, one line each."""

from __future__ import annotations

from typing import Any

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.state import TrainerState


class PrinterCallback(TrainerCallback):
    """Prints the logs to standard output, in the main process of each machine.

    For where no progress bar is wanted.
    """

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
            print(readable_logs(logs), flush=True)


def readable_logs(logs: dict[str, Any], max_str_len: int | None = None) -> dict[str, Any]:
    """Return `logs` as a person reads them: floats to four digits, and `total_flos` left out.

    Args:
        logs: The logged values by name.
        max_str_len: Replace strings that have more characters than this by a note of their length.
    """
    return {
        name: _readable(value, max_str_len) for name, value in logs.items() if name != "total_flos"
    }


def _readable(value: Any, max_str_len: int | None) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, str) and max_str_len is not None and len(value) > max_str_len:
        return f"[{len(value)} characters, more than max_str_len={max_str_len}]"
    return value
