"""`TensorBoardCallback`: writes the logs of a run for TensorBoard."""

from __future__ import annotations

import logging
import os
import socket
from datetime import datetime
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerCallback, TrainerControl, TrainerState

logger = logging.getLogger(__name__)


class TensorBoardCallback(TrainerCallback):
    """Writes a training's arguments, model configuration and logs, in the main process.

    Numbers become curves over the update steps, `eval_loss` as `eval/loss` and `loss` as
    `train/loss`; strings become text. Each training gets a directory of its own, and an evaluation
    after it goes on in the same one.

    Args:
        tb_writer: The `SummaryWriter` to use; it stays open. Where it is not given, one is opened
            when training begins and closed when it ends, in `TENSORBOARD_LOGGING_DIR`, or else in
            `<output_dir>/runs/<date>_<host>`.

    Raises:
        RuntimeError: When the first value is written, and no `SummaryWriter` is installed.
    """

    on_error = "isolate"

    def __init__(self, tb_writer: Any = None) -> None:
        self.tb_writer = tb_writer
        self._is_ours = tb_writer is None
        self._training = False
        self._logging_dir: Path | None = None
        self._refused: set[str] = set()

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Open the writer and write the arguments and the model's configuration."""
        if not state.is_world_process_zero:
            return
        self._training, self._logging_dir = True, None
        writer = self._open(args, state)
        writer.add_text("args", _as_code(args.to_json_string()))
        config = getattr(model, "config", None)
        if config is not None and hasattr(config, "to_json_string"):
            writer.add_text("model_config", _as_code(config.to_json_string()))

    def on_log(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write `logs` at the current step."""
        if not state.is_world_process_zero or not logs:
            return
        writer = self._open(args, state)
        for name, value in logs.items():
            self._write(writer, name, value, state.global_step)
        writer.flush()
        if not self._training:
            self._close()

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the writer, where it is ours."""
        self._training = False
        self._close()

    def _open(self, args: CallbackArguments, state: TrainerState) -> Any:
        if self.tb_writer is None:
            self._logging_dir = self._logging_dir or _new_logging_dir(args, state)
            self.tb_writer = _summary_writer()(log_dir=str(self._logging_dir))
        return self.tb_writer

    def _close(self) -> None:
        if self._is_ours and self.tb_writer is not None:
            self.tb_writer.close()
            self.tb_writer = None

    def _write(self, writer: Any, name: str, value: Any, step: int) -> None:
        if isinstance(value, str):
            writer.add_text(_rewritten(name), value, step)
        elif (
            isinstance(value, Real) or getattr(value, "shape", None) == ()
        ):  # a numpy or torch scalar
            writer.add_scalar(_rewritten(name), float(value), step)
        elif name not in self._refused:
            self._refused.add(name)
            logger.warning(
                "TensorBoard shows numbers and text, so %r is left out: it is %r.", name, value
            )


def _rewritten(name: str) -> str:
    """Return `name` with its split in front of a slash, by which TensorBoard groups."""
    for split in ("eval", "test"):
        if name.startswith(f"{split}_"):
            return f"{split}/{name[len(split) + 1 :]}"
    return f"train/{name}"


def _as_code(text: str) -> str:
    """Return the Markdown that shows `text` unchanged."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def _new_logging_dir(args: CallbackArguments, state: TrainerState) -> Path:
    """Return the directory of a training that begins now; each trial of a search has its own."""
    given = os.environ.get("TENSORBOARD_LOGGING_DIR")
    if given:
        directory = Path(given).expanduser()
    else:
        name = f"{datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}"
        directory = Path(args.output_dir or ".") / "runs" / name
        for number in range(2, 1000):
            if not directory.exists():
                break
            directory = directory.with_name(f"{name}_{number}")
    return (
        directory / state.trial_name
        if state.is_hyper_param_search and state.trial_name
        else directory
    )


def _summary_writer() -> Any:
    """Return torch's `SummaryWriter`, or tensorboardX's where torch or tensorboard is missing."""
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        pass
    try:
        return import_module("tensorboardX").SummaryWriter
    except ImportError:
        raise RuntimeError(
            "TensorBoardCallback finds no SummaryWriter. Beside torch: pip install tensorboard. "
            "Without torch: pip install 'callback-tensorboard[tensorboardx]'."
        ) from None
