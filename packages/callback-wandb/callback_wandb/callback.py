"""`WandbCallback`: logs a training to Weights & Biases."""

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
from callback_wandb.settings import warn_of_long_names
from callback_wandb.tracker import WandbTracker
from callback_wandb.versions import FINAL_MODEL
from callback_wandb.watching import ModelWatch

logger = logging.getLogger(__name__)


class WandbCallback(TrackerCallback):
    """Sends configuration, metrics and optional models to W&B, in the background.

    The callback uses a run that the user opened, and leaves it open. Otherwise it opens a run for
    each training, which is `wandb.run` while it is open, and finishes it with the training's
    status. Each setting defaults to the environment variable named with it. The SDK reads all
    other settings itself: `WANDB_MODE`, `WANDB_ENTITY`, `WANDB_TAGS`, `WANDB_DIR` and so on.

        Trainer(model, args, ..., callbacks=[WandbCallback()])

    Args:
        project: The project of new runs; `WANDB_PROJECT`, else `huggingface`.
        log_model: `end` keeps the final model, `checkpoint` also keeps each checkpoint, as versions
            of one artifact; `WANDB_LOG_MODEL`, else `false`.
        watch: Log histograms of `gradients`, `parameters` or `all`; `WANDB_WATCH`, else `false`.
            The SDK computes them in the training's thread, with hooks in the model, every
            `max(100, logging_steps)` steps, once the run is open.
        delivery: `thread`, `process` or `inline`; see `TrackerCallback`. With `process`, the
            training process has no `wandb.run`, and cannot watch the model.
        open_limit: Seconds that opening the run may take before a warning.
        flush_limit: Seconds that the end of training waits for undelivered data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid, or `watch` is combined with `delivery="process"`.
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
                f"WANDB_WATCH, or watch, is {tracker.watch!r}, which only works in the training "
                "process: it must be 'false', or delivery one of: thread, inline."
            )
        self._keeps_model = tracker.log_model != "false"
        self._watches = tracker.watch != "false"
        self._watched: ModelWatch | None = None

    def setup(
        self, args: CallbackArguments, state: TrainerState, model: Any, **kwargs: Any
    ) -> None:
        """Prepare a training before its run is opened.

        This is called in the training's thread, on the main process. Override it to open your own
        run with `wandb.init(...)`, which the training then uses.
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
        """Call `setup`, and begin to record."""
        self.tracker.in_search = state.is_hyper_param_search
        if state.is_world_process_zero and not self.tracker.disabled:
            warn_of_long_names(args, state)
        if state.is_world_process_zero and not self.tracker.disabled:
            try:
                self.setup(args, state, model, processing_class=processing_class, **kwargs)
            except Exception:
                logger.warning("WandbCallback.setup failed. Tracking continues.", exc_info=True)
        super().on_train_begin(args, state, control, model=model, **kwargs)
        if self.session is not None and self.session.status is None:
            self.session.before_end(partial(self._before_end, args, state, model, processing_class))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which watches no model yet."""
        return super().__getstate__() | {"_watched": None}

    def on_step_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Watch the model once the run is open."""
        if not self._watches or self._watched is not None or model is None:
            return
        if self.tracker.run is None or not state.is_world_process_zero:
            return
        try:
            frequency = max(100, int(getattr(args, "logging_steps", 0)))
            self._watched = ModelWatch(model, self.tracker.watch, frequency)
        except Exception:
            self._watches = False
            logger.warning("W&B cannot watch the model. Training continues.", exc_info=True)

    def _before_end(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        processing_class: Any,
        status: Status,
    ) -> None:
        """Remove the SDK's hooks from the model, and keep the model with `log_model`."""
        if self._watched is not None:
            self._watched.end()
            self._watched = None
        if self._keeps_model and status == "finished":
            try:
                self._keep_final_model(args, state, model, processing_class)
            except Exception:
                logger.warning("W&B gets no final model: it could not be kept.", exc_info=True)

    def _keep_final_model(
        self, args: CallbackArguments, state: TrainerState, model: Any, processing_class: Any
    ) -> None:
        """Keep the current model. If it is spread over processes, keep a checkpoint instead."""
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
                checkpoint = best or self.checkpoint
                if checkpoint is None:
                    logger.warning(
                        "W&B gets no final model: the model is spread over several processes, and "
                        "no checkpoint was saved."
                    )
                    return
                directory.symlink_to(Path(checkpoint).absolute())
            session.keep(member, directory, state.global_step)
