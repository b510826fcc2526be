"""The callbacks that every loop has: the default flow, and a bar or a printer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from callback_core.callbacks.default_flow import DefaultFlowCallback
from callback_core.callbacks.printer import PrinterCallback
from callback_core.callbacks.progress_bar import ProgressCallback
from callback_core.validation import list_callbacks


def with_standard_callbacks(callbacks: Iterable[Any] | None, disable_tqdm: bool) -> list[Any]:
    """Return the default flow, `callbacks`, and a bar or a printer, which comes last.

    Nothing is added that `callbacks` already has.

    Args:
        callbacks: Callbacks, or classes of callbacks.
        disable_tqdm: Whether to print logs as plain lines, without a bar.

    Raises:
        TypeError: `callbacks` is not an iterable of callbacks.
    """
    given = list_callbacks(callbacks)
    shown = PrinterCallback if disable_tqdm else ProgressCallback
    flow = [] if _has(given, DefaultFlowCallback) else [DefaultFlowCallback]
    return [*flow, *given, *([] if _has(given, PrinterCallback, ProgressCallback) else [shown])]


def _has(callbacks: list[Any], *kinds: type) -> bool:
    return any(
        issubclass(one, kinds) if isinstance(one, type) else isinstance(one, kinds)
        for one in callbacks
    )
