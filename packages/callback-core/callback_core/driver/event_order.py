"""The order of the events of a training, and which methods of a `Loop` fire them."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Stage(Enum):
    """Where a training is."""

    OUTSIDE = "outside of a training"
    TRAINING = "between two epochs"
    EPOCH = "between two steps of an epoch"
    STEP = "within a step"


FIRED_BY: Final = {
    "on_train_begin": "begin",
    "on_epoch_begin": "begin_epoch",
    "on_step_begin": "begin_step",
    "on_substep_end": "end_substep",
    "on_step_end": "end_step",
    "on_log": "log",
    "on_evaluate": "log_evaluation",
    "on_save": "save_checkpoint",
    "on_epoch_end": "end_epoch",
    "on_exception": "end",
    "on_train_end": "end",
}
"""The methods that fire these events, and do the rest that such an event needs."""


_BEGINNINGS: Final = {
    Stage.OUTSIDE: "Call begin() first, or use the loop in a with statement.",
    Stage.TRAINING: "Call begin_epoch() first, or iterate over epochs().",
    Stage.EPOCH: "Call begin_step() first, or iterate over steps().",
}
"""How to reach the stage after this one."""

_ENDINGS: Final = {
    Stage.TRAINING: "Call end() first.",
    Stage.EPOCH: "Call end_epoch() first.",
    Stage.STEP: "Call end_step() first.",
}
"""How to end this stage."""


def check_stage(method: str, now: Stage, *stages: Stage) -> None:
    """Raise a `RuntimeError` unless `method` is allowed at the stage `now`: it is in `stages`."""
    if now not in stages:
        order = list(Stage)
        is_early = order.index(now) < order.index(stages[0])
        hint = (_BEGINNINGS if is_early else _ENDINGS)[now]
        raise RuntimeError(f"{method} was called {now.value}. {hint}")
