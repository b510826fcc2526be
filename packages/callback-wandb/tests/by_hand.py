"""A simulated training without torch: by_hand.py OUTPUT_DIR [kill|fails|begun|open].

It logs eight losses, each an eighth of its step. Then it ends. With `kill`, it is killed once the
SDK has accepted all. With `fails`, it first waits for a warning; with `begun`, for the SDK's
process; with `open`, for the run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

from callback_contract.testing import children
from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_wandb import WandbCallback

BY_HAND = os.path.abspath(__file__)
"""The path of this program. Tests import it so that their sandbox contains the program."""

STEPS = 8


@dataclass
class Arguments:
    """The training arguments that the callbacks read."""

    output_dir: str
    run_name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"output_dir": self.output_dir}


class WarningFlag(logging.Handler):
    """Notes whether a warning was logged."""

    is_set = False

    def emit(self, record: logging.LogRecord) -> None:
        self.is_set = self.is_set or record.levelno >= logging.WARNING


def main(output_dir: str, what: str = "") -> None:
    warning = WarningFlag()
    logging.basicConfig()
    logging.getLogger().addHandler(warning)
    callback = WandbCallback(flush_limit=2 if what in ("begun", "open") else 300)
    args: Any = Arguments(output_dir)
    state, control = TrainerState(max_steps=1000), TrainerControl()
    handler = CallbackHandler([DefaultFlowCallback, callback], None, None, None, None)
    handler.on_train_begin(args, state, control)
    handler.on_epoch_begin(args, state, control)
    for step in range(1, STEPS + 1):
        state.global_step = step
        handler.on_log(args, state, control, logs={"loss": step / 8})
    tracker = callback.tracker
    conditions = {
        "kill": lambda: tracker.run is not None and tracker.run.step >= STEPS,
        "fails": lambda: warning.is_set,
        "begun": children,
        "open": lambda: tracker.run is not None,
    }
    while what in conditions and not conditions[what]():
        time.sleep(0.02)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    handler.on_train_end(args, state, control)
    print(f"trained {STEPS} steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
