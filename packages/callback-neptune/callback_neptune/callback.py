"""`NeptuneCallback`: sends a training to Neptune."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import DeliveryKind, TrackerCallback
from callback_neptune import arguments, sdk
from callback_neptune.tracker import INTEGRATION_VERSION_KEY, CheckpointKind, NeptuneTracker

logger = logging.getLogger(__name__)


class NeptuneCallback(TrackerCallback):
    """Sends parameters, metrics, texts and checkpoints to Neptune, beside the training.

    A run that is given is used and not stopped. Otherwise a run is opened for each training, and
    stopped with it.

    Args:
        api_token: The API token; `NEPTUNE_API_TOKEN`, which is the better place for it.
        project: The project, `workspace-name/project-name`; `NEPTUNE_PROJECT`.
        name: The run's name, else that of the training, `args.run_name`.
        base_namespace: Where in the run everything goes.
        run: A run of your own, from `neptune.init_run`.
        log_parameters: Keep the arguments of the training and the configuration of the model.
        log_checkpoints: Upload checkpoints: `same` all that are saved, `last` keeps the newest one,
            `best` the best one of those that are saved. `None` uploads none.
        delivery: `thread`, `process` or `inline`, as `TrackerCallback` has it.
        open_limit: Seconds that opening the run may take before this is said.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.
        neptune_run_kwargs: Arguments of `neptune.init_run` for new runs, such as `tags`, `mode`
            (`NEPTUNE_MODE`), `custom_run_id` (`NEPTUNE_CUSTOM_RUN_ID`), `with_id`, or
            `capture_hardware_metrics`.

    Attributes:
        integration_version_key: Where in a run the version of this package is.

    Raises:
        TypeError: `neptune.init_run` has no such argument.
        ValueError: A setting is wrong, or cannot be told to another process by which `delivery` is
            to be done.
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
            _check_made_elsewhere(tracker)
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )
        self._keeps_best = tracker.log_checkpoints == "best"
        self._connection: Any = None

    @property
    def run(self) -> Any:
        """The `neptune.Run` of the training, for what you want to add to it.

        During a training it is the one to which the callback delivers: what you add is sent with
        the next points. Before the first training it is a new one, which that training uses and
        leaves open. After a training it is opened again, and yours to stop.

        Raises:
            RuntimeError: The training has not begun its first epoch, or the run is offline and
                closed, or another process has it.
            TimeoutError: The run does not open within `open_limit`.
        """
        given = self.tracker.given
        if given is not None and sdk.is_open(given):
            return given
        is_training = self.session is not None and self.session.status is None
        if is_training and not (self.member is not None and self.member.has_started):
            raise RuntimeError("The Neptune run is opened when the first epoch begins.")
        if is_training and self.options.delivery != "process":
            return self.tracker.wait_for_run(self.options.open_limit)
        run_id = self.state_dict()["run_id"]
        if is_training and run_id is None:
            raise RuntimeError("The Neptune run is not open yet, in the process that delivers.")
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
            ValueError: It has none.
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
        """Begin to record."""
        if self._keeps_best and state.is_world_process_zero and not _has_a_best(args):
            logger.warning(
                "log_checkpoints is 'best', but no metric_for_best_model says which checkpoint "
                "that is: none is uploaded."
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
        """Upload the checkpoint, if it is one of those that are asked for."""
        if self._keeps_best:
            saved = Path(checkpoint_dir or f"checkpoint-{state.global_step}").name
            best = state.best_model_checkpoint
            self.tracker.wants_checkpoint = best is not None and Path(best).name == saved
        super().on_save(args, state, control, checkpoint_dir=checkpoint_dir, **kwargs)


def _has_a_best(args: CallbackArguments) -> bool:
    return getattr(args, "metric_for_best_model", None) is not None


def _check_made_elsewhere(tracker: NeptuneTracker) -> None:
    """Refuse what a process of its own could not be told, or would do wrong.

    Raises:
        ValueError: It says what.
    """
    if tracker.api_token is not None:
        raise ValueError(
            "api_token is an argument, which goes to no file. For delivery='process', set "
            "NEPTUNE_API_TOKEN."
        )
    if tracker.bound_arguments:
        raise ValueError(
            f"{', '.join(tracker.bound_arguments)} cannot be written to a file: it is not plain, "
            "or holds a secret. Choose another delivery than 'process'."
        )
    if watching := [name for name in arguments.CAPTURES if tracker.run_arguments.get(name)]:
        raise ValueError(
            f"{', '.join(watching)} would watch the process that delivers. Choose another delivery "
            "than 'process'."
        )
    if tracker.given is not None and sdk.is_offline(tracker.given):
        raise ValueError(
            "run is offline, and so bound to this process. Choose another delivery than 'process'."
        )
