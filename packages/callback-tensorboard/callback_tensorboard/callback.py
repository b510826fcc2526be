"""`TensorBoardCallback`: logs a training to TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import DeliveryKind, TrackerCallback, config
from callback_tensorboard.capture import capture_warning
from callback_tensorboard.given_writer import GivenWriterTracker
from callback_tensorboard.tracker import TensorBoardTracker

logger = logging.getLogger(__name__)

_DIRECTORY: Final = "TENSORBOARD_LOGGING_DIR"


class TensorBoardCallback(TrackerCallback):
    """Writes a training's arguments, model configuration and logs, in the main process.

    Numbers become curves over the update steps: `eval_loss` as `eval/loss`, `loss` as `train/loss`.
    Strings become text. Each training gets its own directory. Later evaluations, and trainings that
    resume it, write to the same directory.

        Trainer(model, args, ..., callbacks=[TensorBoardCallback()])

    Args:
        tb_writer: A `SummaryWriter` to use; it stays open. By default, each run gets a directory
            `<date>_<host>` in `TENSORBOARD_LOGGING_DIR`, else in `<output_dir>/runs`.
        delivery: `thread` writes in the background; `process` writes in a separate process, which
            outlives a killed training; `inline` writes in the training's own thread.
        open_limit: Seconds that the end of training waits for the run to open.
        flush_limit: Seconds that the end of training waits for unwritten data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.

    Raises:
        ModuleNotFoundError: `tensorboard` is not installed, and there is no `tb_writer`.
        TypeError: `tb_writer` is not a writer.
        ValueError: `TENSORBOARD_LOGGING_DIR`, `delivery` or a limit is invalid, or `delivery` is
            `process` and there is a `tb_writer`.
    """

    def __init__(
        self,
        tb_writer: Any = None,
        *,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        self.tb_writer = tb_writer
        self._has_told_of_capture = False
        super().__init__(
            TensorBoardTracker(config.text(_DIRECTORY, None, _DIRECTORY))
            if tb_writer is None
            else GivenWriterTracker(tb_writer),
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which does not have the user's writer."""
        return super().__getstate__() | {"tb_writer": None}

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to deliver, and warn of an SDK that captures other writers than ours."""
        super().on_epoch_begin(args, state, control, **kwargs)
        if self.session is None or self._has_told_of_capture:
            return
        if warning := capture_warning(self.tb_writer is not None, self.session.members):
            self._has_told_of_capture = True
            logger.warning("%s", warning)
