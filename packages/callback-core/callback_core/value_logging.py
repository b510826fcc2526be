"""`log_values`: logs values from a callback, in any loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from callback_core.control import MOST_NESTED, TrainerControl
from callback_core.transformers_trainer import callers_with


def log_values(control: Any, logs: Mapping[str, Any]) -> None:
    """Log values at the current step, from any event of a callback.

    Args:
        control: Our `TrainerControl`, whose `log` this calls; or that of transformers. There, the
            Trainer is found among the callers of this function, and logs at once.
        logs: Values by name.

    Raises:
        RuntimeError: The callback logs at every log, so that this would never end; or no Trainer
            with this control is running.
    """
    if isinstance(control, TrainerControl):
        control.log(logs)
        return
    trainers = list(_trainers_of(control))
    if not trainers:
        raise RuntimeError(
            f"{', '.join(logs)} cannot be logged: no Trainer with this control is running."
        )
    if len(trainers) > MOST_NESTED:
        raise RuntimeError(
            f"A callback logs {', '.join(logs)} at every on_log, even at its own. Let it log only "
            "if `logs` has the value that it waits for."
        )
    was_due = control.should_log
    trainers[0].log(dict(logs))
    control.should_log = was_due  # on_log has reset it, but the Trainer's own log is still due


def _trainers_of(control: Any) -> Iterator[Any]:
    """Yield the owner of `control` once for each running call of its `log`, and once more."""
    found = None
    for method, found in callers_with(control):
        if method == "log":
            yield found
    if found is not None:
        yield found
