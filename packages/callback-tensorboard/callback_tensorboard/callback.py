"""`TensorBoardCallback`: writes the logs of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from callback_core.tracking import DeliveryKind, TrackerCallback, config
from callback_tensorboard.given_writer import GivenWriterTracker
from callback_tensorboard.tracker import TensorBoardTracker

_DIRECTORY: Final = "TENSORBOARD_LOGGING_DIR"


class TensorBoardCallback(TrackerCallback):
    """Writes a training's arguments, model configuration and logs, in the main process.

    Numbers become curves over the update steps, `eval_loss` as `eval/loss` and `loss` as
    `train/loss`; strings become text. Each training gets a directory of its own, in which an
    evaluation after it and a training that resumes it go on.

        Trainer(model, args, ..., callbacks=[TensorBoardCallback()])

    Args:
        tb_writer: The `SummaryWriter` to use; it stays open. Where it is not given, each run is
            written to `TENSORBOARD_LOGGING_DIR`, or else to `<output_dir>/runs/<date>_<host>`.
        delivery: `thread` writes beside the training; `process` too, in a process of its own, which
            outlives a training that is killed; `inline` writes in the training's own thread.
        open_limit: Seconds after which a run that does not open is no longer waited for.
        flush_limit: Seconds that the end of training waits for what is not written yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.

    Raises:
        RuntimeError: `tensorboard` is not installed, and no `tb_writer` is given.
        TypeError: `tb_writer` is no writer.
        ValueError: There can be no such `TENSORBOARD_LOGGING_DIR`, delivery or limit, or a process
            of its own is to use `tb_writer`.
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
        super().__init__(
            TensorBoardTracker(config.text(_DIRECTORY, None, _DIRECTORY))
            if tb_writer is None
            else GivenWriterTracker(tb_writer),
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )
