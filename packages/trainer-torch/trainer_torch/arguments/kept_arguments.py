"""`KeptArguments`: the arguments of transformers that the Trainer accepts and does not use."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final


@dataclass(kw_only=True)
class KeptArguments:
    """Arguments with any value, because scripts or callbacks read them, or nothing depends on them.

    `WITHOUT_EFFECT` says why, for each.
    """

    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    restore_callback_states_from_checkpoint: bool = False
    local_rank: int = -1
    eval_accumulation_steps: int | None = None
    eval_use_gather_object: bool = False
    project: str = "huggingface"
    trackio_space_id: str | None = None
    trackio_bucket_id: str | None = None
    trackio_static_space_id: str | bool | None = None
    hub_private_repo: bool | None = None

    def kept_at_default(self) -> set[str]:
        """Return the names of those that have their defaults."""
        return {
            item.name for item in fields(KeptArguments) if getattr(self, item.name) == item.default
        }

    def set_for_trackio(self) -> dict[str, Any]:
        """Return those that only transformers' TrackioCallback reads, if they are not defaults."""
        names = set(OF_TRACKIO) - self.kept_at_default()
        return {name: getattr(self, name) for name in OF_TRACKIO if name in names}


OF_TRACKIO: Final = (
    *("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    "hub_private_repo",
)

_BY_SCRIPTS: Final = "The Trainer does not use it. Scripts read it."
_BY_TRACKIO: Final = (
    "Only transformers' TrackioCallback reads it. A warning says so if that callback is not among "
    "the callbacks."
)

WITHOUT_EFFECT: Final = {
    "do_train": _BY_SCRIPTS,
    "do_eval": f"{_BY_SCRIPTS} It becomes true if eval_strategy is not no.",
    "do_predict": _BY_SCRIPTS,
    "restore_callback_states_from_checkpoint": "The states of callbacks are always restored. The "
    "arguments of their constructors, such as the patience of early stopping, are those that the "
    "program passes now.",
    "local_rank": "The environment says which process this is. Another number is refused.",
    "eval_accumulation_steps": "Predictions leave the device after each batch.",
    "eval_use_gather_object": "Predictions are always gathered as objects.",
    **dict.fromkeys(OF_TRACKIO, _BY_TRACKIO),
}
"""Why arguments have no effect in the Trainer."""
