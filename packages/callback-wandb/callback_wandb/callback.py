"""`WandbCallback`: sends a training to Weights & Biases."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import DeliveryKind, Status, TrackerCallback
from callback_wandb import model as models
from callback_wandb.tracker import WandbTracker
from callback_wandb.versions import FINAL_MODEL
from callback_wandb.watching import Watch

logger = logging.getLogger(__name__)


class WandbCallback(TrackerCallback):
    """Sends configuration, metrics and, if asked to, models to W&B, beside the training.

    A run that the user has opened is used, and stays open. Otherwise one is opened for each
    training, which `wandb.run` is as long as it is open, and closed with how the training ended.
    A setting that is not given comes from the environment variable that is named with it. All else
    is the SDK's to know: `WANDB_MODE`, `WANDB_ENTITY`, `WANDB_TAGS`, `WANDB_DIR` and so on.

        Trainer(model, args, ..., callbacks=[WandbCallback()])

    Args:
        project: The project of runs that are opened here; `WANDB_PROJECT`, else `huggingface`.
        log_model: `end` keeps the model that a training ends with, `checkpoint` each checkpoint
            too, as versions of one artifact; `WANDB_LOG_MODEL`, else `false`.
        watch: Histograms of what to log: `gradients`, `parameters` or `all`; `WANDB_WATCH`, else
            `false`. The SDK makes them in the training's thread, by hooks in the model, from the
            step on at which the run is open, and at every `max(100, logging_steps)`th.
        delivery: `thread`, `process` or `inline`, as `TrackerCallback` has it. In a process there
            is no `wandb.run` in the training's, and nothing to watch.
        open_limit: Seconds that opening the run may take before this is said.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.

    Raises:
        ValueError: A setting is wrong, or a process of its own is to watch the model.
    """

    tracker: WandbTracker

    def __init__(
        self,
        *,
        project: str | None = None,
        log_model: str | bool | None = None,
        watch: str | bool | None = None,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        tracker = WandbTracker(project=project, log_model=log_model, watch=watch)
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )
        if delivery == "process" and tracker.watch != "false":
            raise ValueError(
                f"WANDB_WATCH, or watch, is {tracker.watch!r}, which needs the training's own "
                "process: it must be 'false', or delivery one of: thread, inline."
            )
        self._keeps_model = tracker.log_model != "false"
        self._watches = tracker.watch != "false"
        self._watched: Watch | None = None
        self._last_checkpoint: str | None = None

    def setup(
        self, args: CallbackArguments, state: TrainerState, model: Any, **kwargs: Any
    ) -> None:
        """Prepare a training, in its thread on the main process, before its run is opened.

        Override it to open a run as you like it, with `wandb.init(...)`: that one is used then.
        """
        self.tracker.facts = models.facts_of(model)

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Set up, and begin to record."""
        self._last_checkpoint = None
        self.tracker.in_search = state.is_hyper_param_search
        if state.is_world_process_zero and not self.tracker.disabled:
            try:
                self.setup(args, state, model, processing_class=processing_class, **kwargs)
            except Exception:
                logger.warning("WandbCallback.setup failed. Tracking continues.", exc_info=True)
        super().on_train_begin(args, state, control, model=model, **kwargs)
        if self.session is not None and self.session.status is None:
            self.session.before_end(partial(self._before_end, args, state, model, processing_class))

    def on_step_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Watch the model as soon as the run is open."""
        if not self._watches or self._watched is not None or model is None:
            return
        if self.tracker.run is None or not state.is_world_process_zero:
            return
        try:
            frequency = max(100, int(getattr(args, "logging_steps", 0)))
            self._watched = Watch(model, self.tracker.watch, frequency)
        except Exception:
            self._watches = False
            logger.warning("W&B cannot watch the model. Training goes on.", exc_info=True)

    def on_predict(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what a prediction measured, which nothing else logs."""
        self.on_log(args, state, control, logs=metrics, **kwargs)

    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a checkpoint, and keep it where that is asked for."""
        directory = checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}"
        self._last_checkpoint = directory
        super().on_save(args, state, control, checkpoint_dir=directory, **kwargs)

    def _before_end(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        processing_class: Any,
        status: Status,
    ) -> None:
        """Take the SDK's hooks off the model, and keep the model where that is asked for."""
        if self._watched is not None:
            self._watched.end()
            self._watched = None
        if self._keeps_model and status == "finished":
            try:
                self._keep_final_model(args, state, model, processing_class)
            except Exception:
                logger.warning("W&B does not get the final model.", exc_info=True)

    def _keep_final_model(
        self, args: CallbackArguments, state: TrainerState, model: Any, processing_class: Any
    ) -> None:
        """Keep the model as it is now, or a checkpoint of a model that several processes share."""
        session, member = self.session, self.member
        assert session is not None and member is not None
        with tempfile.TemporaryDirectory(dir=session.folder.path) as folder:
            directory = Path(folder, FINAL_MODEL)
            if models.is_in_one_piece(model):
                models.save(model, processing_class, directory)
            else:
                best = (
                    state.best_model_checkpoint
                    if getattr(args, "load_best_model_at_end", False)
                    else None
                )
                checkpoint = best or self._last_checkpoint
                if checkpoint is None:
                    logger.warning(
                        "W&B does not get the final model: it is spread over processes, and no "
                        "checkpoint was saved."
                    )
                    return
                directory.symlink_to(Path(checkpoint).absolute())
            session.keep(member, directory, state.global_step)
