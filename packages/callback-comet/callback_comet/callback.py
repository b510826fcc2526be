"""`CometCallback`: logs a training to Comet."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from callback_comet.tracker import CometTracker
from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import DeliveryKind, TrackerCallback

logger = logging.getLogger(__name__)


class CometCallback(TrackerCallback):
    """Sends parameters, metrics, texts and checkpoints to Comet, in the background.

    The callback uses the experiment that is open in this process, and leaves it open. Otherwise it
    opens an experiment for each training, and ends it with the training. Each setting defaults to
    the environment variable named with it. Comet's own settings, such as `COMET_API_KEY`, apply
    too.

    Args:
        mode: `ONLINE`, `OFFLINE` or `DISABLED`; or which experiment to use: `create` a new one,
            `get` the one of `experiment_key`, or `get_or_create` it; `COMET_MODE`.
        project_name: The project; `COMET_PROJECT_NAME`, else Comet's default.
        workspace: The workspace; `COMET_WORKSPACE`, else Comet's default.
        experiment_key: The experiment of every training of this callback, except the trials of a
            search; `COMET_EXPERIMENT_KEY`.
        offline_directory: The directory of offline experiments; `COMET_OFFLINE_DIRECTORY`, else
            Comet's default.
        log_assets: Upload each checkpoint, and TensorBoard's event files in `<output_dir>/runs`;
            `COMET_LOG_ASSETS`, else `True`.
        delivery: `thread`, `process` or `inline`; see `TrackerCallback`.
        open_limit: Seconds that opening the experiment may take before a warning.
        flush_limit: Seconds that the end of training waits for undelivered data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid.
    """

    tracker: CometTracker

    def __init__(
        self,
        *,
        mode: str | None = None,
        project_name: str | None = None,
        workspace: str | None = None,
        experiment_key: str | None = None,
        offline_directory: str | None = None,
        log_assets: bool | None = None,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        tracker = CometTracker(
            mode=mode,
            project_name=project_name,
            workspace=workspace,
            experiment_key=experiment_key,
            offline_directory=offline_directory,
            log_assets=log_assets,
        )
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin to record. The text form of the model becomes Comet's graph definition."""
        if state.is_world_process_zero and not self.tracker.disabled:
            self.tracker.model_graph = _graph_of(model)
        super().on_train_begin(args, state, control, model=model, **kwargs)


def _graph_of(model: Any) -> str | None:
    """Return the layers of a torch module as text; `None` for any other object."""
    if not hasattr(model, "named_modules"):
        return None
    try:
        return repr(model)
    except Exception:
        logger.warning(
            "Comet gets no graph of %s: repr() failed.", type(model).__name__, exc_info=True
        )
        return None
