"""The process that trains, for SDKs that record facts about a process."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

COMMAND_LINE: Final = "CALLBACKS_COMMAND_LINE"
"""The variable in which a delivery process gets the training's command line, as JSON."""

_HERE: Final = 0

_training: int | None = _HERE


def training_process() -> int | None:
    """Return the id of the process that trains; `None` in a replay, which follows no training.

    In a delivery process, this is the process for which it delivers.
    """
    return os.getpid() if _training == _HERE else _training


def deliver_for(training: int | None) -> None:
    """Note for whom this process delivers, and take over the training's `sys.argv`.

    Args:
        training: The id of the process that trains; `None` in a replay.
    """
    global _training
    _training = training
    if training is not None and COMMAND_LINE in os.environ:
        sys.argv[:] = json.loads(os.environ.pop(COMMAND_LINE))
