"""A deck that shows the log of a training at the time when Flyte writes the decks."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any, Final

from callback_core import TrainerState
from callback_core.tracking import Redaction
from callback_flyte.curve import curve_of
from callback_flyte.table import table_of

logger = logging.getLogger(__name__)

NAME: Final = "Log History"


def add_deck(task: Any, state: TrainerState) -> None:
    """Add a deck with the log of a training to its task.

    Args:
        task: The task's parameters, from `running_task`.
        state: The state of the training. The deck renders its history when Flyte writes the decks.
            It therefore includes what was logged after the training, and a failed task has it too.
    """
    if not task.enable_deck:
        logger.warning(
            "Flyte does not keep the log of this training, because the task's decks are disabled. "
            "Declare the task with @task(enable_deck=True), or pass save_log_history=False."
        )
        return
    taken = {deck.name for deck in task.decks}
    number = 1
    while (name := NAME if number == 1 else f"{NAME} {number}") in taken:
        number += 1
    task.decks.append(_deck(name, state))


def _deck(name: str, state: TrainerState) -> Any:
    base: Any = import_module("flytekit").Deck

    class LogHistoryDeck(base):
        @property
        def html(self) -> str:
            try:
                return html_of(state.log_history)
            except Exception as error:  # an error would cost the task all of its decks
                logger.warning("The log of this training cannot be shown.", exc_info=error)
                return "<p>The log cannot be shown. See the task's own log for the reason.</p>"

    return LogHistoryDeck(name, auto_add_to_deck=False)


def html_of(history: list[dict[str, Any]]) -> str:
    """Return the log of a training as HTML: loss curves and a table.

    Names and values are escaped. Recognized secrets are left out, as in trackers.
    """
    shown = Redaction().of(history)
    return f'<div class="callback-flyte">{_STYLE}{curve_of(shown)}{table_of(shown)}</div>'


_STYLE: Final = """<style>
.callback-flyte { font: 14px/1.4 "Open Sans", helvetica, arial, sans-serif; color: #222; }
.callback-flyte svg { display: block; max-width: 760px; width: 100%; height: auto; }
.callback-flyte .totals { margin: 1em 0; color: #555; }
.callback-flyte .totals b { color: #222; font-weight: 600; }
.callback-flyte table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.callback-flyte th, .callback-flyte td { padding: 3px 12px; border-bottom: 1px solid #ddd; }
.callback-flyte th { position: sticky; top: 0; background: #fff; text-align: right; }
.callback-flyte td { text-align: right; white-space: nowrap; }
</style>"""
