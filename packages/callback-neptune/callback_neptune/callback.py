"""`NeptuneCallback`: logs a training to Neptune."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState, saved_checkpoint
from callback_core.tracking import DeliveryKind, TrackerCallback
from callback_neptune import arguments, sdk
from callback_neptune.tracker import INTEGRATION_VERSION_KEY, CheckpointKind, NeptuneTracker

logger = logging.getLogger(__name__)


class NeptuneCallback(TrackerCallback):
    """Sends parameters, metrics, texts and checkpoints to Neptune, in the background.

    The callback uses the run that you pass, and does not stop it. Otherwise it opens a run for each
    training, and stops it with the training.

    Args:
        api_token: The API token. Prefer the environment variable `NEPTUNE_API_TOKEN`.
        project: The project, `workspace-name/project-name`; `NEPTUNE_PROJECT`.
        name: The run's name, else that of the training, `args.run_name`.
        base_namespace: The namespace in the run for everything that the callback logs.
        run: Your own run, from `neptune.init_run`.
        log_parameters: Log the arguments of the training and the configuration of the model.
        log_checkpoints: Which checkpoints to upload: `same` uploads all of them, `last` keeps the
            newest, `best` keeps the best. `None` uploads none.
        delivery: `thread`, `process` or `inline`; see `TrackerCallback`.
        open_limit: Seconds that opening the run may take before a warning.
        flush_limit: Seconds that the end of training waits for undelivered data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.
        neptune_run_kwargs: Arguments of `neptune.init_run` for new runs, such as `tags`, `mode`
            (`NEPTUNE_MODE`), `custom_run_id` (`NEPTUNE_CUSTOM_RUN_ID`), `with_id`, or
            `capture_hardware_metrics`.

    Attributes:
        integration_version_key: The path in a run that holds the version of this package.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        TypeError: `neptune.init_run` has no such argument.
        ValueError: A setting is invalid, or cannot be passed to a delivery process.
    """

    integration_version_key = INTEGRATION_VERSION_KEY
    tracker: NeptuneTracker

    def __init__(
        self,
        *,
        api_token: str | None = None,
        project: str | None = None,
        name: str | None = None,
        base_namespace: str = "finetuning",
        run: Any = None,
        log_parameters: bool = True,
        log_checkpoints: CheckpointKind | None = None,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
        **neptune_run_kwargs: Any,
    ) -> None:
        tracker = NeptuneTracker(
            api_token=api_token,
            project=project,
            name=name,
            base_namespace=base_namespace,
            run=run,
            log_parameters=log_parameters,
            log_checkpoints=log_checkpoints,
            **neptune_run_kwargs,
        )
        if delivery == "process":
            _check_process_delivery(tracker)
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )
        self._keeps_best = tracker.log_checkpoints == "best"
        self._connection: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which has no connection yet."""
        return super().__getstate__() | {"_connection": None}

    @property
    def run(self) -> Any:
        """The `neptune.Run` of the training, for adding your own values.

        During a training this is the run to which the callback delivers. Your values are sent with
        the next points. Before the first training this opens a new run; that training uses it and
        leaves it open. After a training this reopens the run, and you must stop it.

        Raises:
            RuntimeError: The training has not begun its first epoch; or the run is offline and
                stopped; or a delivery process has not opened it yet.
            TimeoutError: The run does not open within `open_limit`.
        """
        given = self.tracker.given
        if given is not None and sdk.is_open(given):
            return given
        is_training = self.session is not None and self.session.status is None
        if is_training and not (self.member is not None and self.member.has_started):
            raise RuntimeError("The Neptune run is not open before the first epoch.")
        if is_training and self.options.delivery != "process":
            return self.tracker.wait_for_run(self.options.open_limit)
        run_id = self.state_dict()["run_id"]
        if is_training and run_id is None:
            raise RuntimeError("The delivery process has not opened the Neptune run yet.")
        ours = self._connection
        if ours is None or not sdk.is_open(ours) or run_id not in (None, sdk.id_of(ours)):
            self._connection = self.tracker.connection(run_id)
            if self.session is None:
                self.tracker.given = self._connection
        return self._connection

    @classmethod
    def get_run(cls, trainer: Any) -> Any:
        """Return the `run` of a trainer's callback.

        Raises:
            ValueError: The trainer has no such callback.
        """
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, cls):
                return callback.run
        raise ValueError(f"The trainer has no {cls.__name__}.")

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin to record, and warn if `best` can never apply."""
        if self._keeps_best and state.is_world_process_zero and not _has_a_best(args):
            logger.warning(
                "log_checkpoints is 'best', but metric_for_best_model is not set. No checkpoint is "
                "uploaded."
            )
        super().on_train_begin(args, state, control, model=model, **kwargs)

    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Upload the checkpoint, if `log_checkpoints` selects it."""
        if self._keeps_best:
            saved, best = saved_checkpoint(args, state, checkpoint_dir), state.best_model_checkpoint
            is_best = saved is not None and best is not None and Path(best).name == saved.name
            self.tracker.wants_checkpoint = is_best
        super().on_save(args, state, control, checkpoint_dir=checkpoint_dir, **kwargs)


def _has_a_best(args: CallbackArguments) -> bool:
    return getattr(args, "metric_for_best_model", None) is not None


def _check_process_delivery(tracker: NeptuneTracker) -> None:
    """Refuse settings that do not work in a delivery process.

    Raises:
        ValueError: The message names the setting.
    """
    if tracker.api_token is not None:
        raise ValueError(
            "api_token is never written to a file, so delivery='process' cannot use it. Set "
            "NEPTUNE_API_TOKEN instead."
        )
    if tracker.bound_arguments:
        raise ValueError(
            f"{', '.join(tracker.bound_arguments)} cannot be written to a file, because the value "
            "is not JSON or holds a secret. Choose another delivery than 'process'."
        )
    if captures := [name for name in arguments.CAPTURES if tracker.run_arguments.get(name)]:
        raise ValueError(
            f"{', '.join(captures)} would monitor the delivery process. Choose another delivery "
            "than 'process'."
        )
    if tracker.given is not None and sdk.is_offline(tracker.given):
        raise ValueError(
            "run is offline, so no other process can use it. Choose another delivery than "
            "'process'."
        )
