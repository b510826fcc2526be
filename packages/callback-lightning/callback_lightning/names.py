"""Maps the names of Lightning's logs to those of all loops."""

from __future__ import annotations

import logging
import re
from typing import Final, Literal

logger = logging.getLogger(__name__)

Stage = Literal["train", "eval", "test"]
"""In which part of a training a value is logged."""

_STAGES: Final[dict[str, Stage]] = {
    "train": "train",
    "training": "train",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "eval": "eval",
    "test": "test",
}
_PREFIXED: Final = re.compile(rf"({'|'.join(_STAGES)})[_/](.+)", re.DOTALL)


class Names:
    """Maps the names of Lightning's logs to those that callbacks know from other loops.

    `val_loss` and `val/loss` become `eval_loss`, `train_loss` becomes `loss`; `test_loss` stays.
    A name without such a prefix is treated as one of the stage that logs it. If two names would
    become the same, the later one ends in `_2`.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, name: str, stage: Stage) -> str:
        """Return the name in all loops for Lightning's `name`, logged in `stage`."""
        key = name if _PREFIXED.fullmatch(name) else f"{stage} {name}"
        if key not in self._known:
            self._known[key] = self._new(name, stage)
        return self._known[key]

    def state_dict(self) -> dict[str, str]:
        """Return the names that were given, for a training that resumes."""
        return dict(self._known)

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Restore what `state_dict` returned."""
        self._known = dict(state)

    def _new(self, name: str, stage: Stage) -> str:
        match = _PREFIXED.fullmatch(name)
        group, rest = (_STAGES[match[1]], match[2]) if match else (stage, name)
        mapped = rest if group == "train" else f"{group}_{rest}"
        taken, number = self._known.values(), 1
        found = mapped
        while found in taken:
            number += 1
            found = f"{mapped}_{number}"
        if found != mapped:
            logger.warning(
                "Two of Lightning's names would become %r, so %r becomes %r. Rename one of them.",
                mapped,
                name,
                found,
            )
        return found
