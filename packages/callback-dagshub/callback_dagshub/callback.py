"""`DagsHubCallback`: sends a training to DagsHub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import Recording
from callback_dagshub.tracker import MODEL, DagsHubTracker
from callback_mlflow import MLflowCallback, MLflowTracker

logger = logging.getLogger(__name__)


class DagsHubCallback(MLflowCallback):
    """Sends a training to the MLflow of a DagsHub repository, and its model to the repository.

    A setting that is not given comes from the environment variable that is named with it. The token
    is `DAGSHUB_USER_TOKEN` or that of `dagshub login`; MLflow's variables are left as they are.

    Args:
        repository: `owner/name`, or the repository's address; else that of `MLFLOW_TRACKING_URI`,
            else the first git remote at DagsHub.
        branch: The branch to which the model is committed; `BRANCH`, else the repository's default.
        model_name: The model's directory in `artifacts/` there; `HF_DAGSHUB_MODEL_NAME`, else
            `main`.
        upload_model: Commit the model to the repository when training has finished: its best
            checkpoint, or the last where none is known to be best; `HF_DAGSHUB_LOG_ARTIFACTS`.
        options: The other arguments of `MLflowCallback`, but for `tracking_uri`. Of them,
            `log_artifacts` copies each checkpoint to the run in MLflow.

    Raises:
        ValueError: A setting is wrong.
        NotConfigured: There is no repository.
    """

    tracker: DagsHubTracker

    def __init__(
        self,
        repository: str | None = None,
        *,
        branch: str | None = None,
        model_name: str | None = None,
        upload_model: bool | None = None,
        **options: Any,
    ) -> None:
        if "tracking_uri" in options:
            raise TypeError("DagsHubCallback takes repository in place of tracking_uri.")
        self._settings: dict[str, Any] = {
            "repository": repository,
            "branch": branch,
            "model_name": model_name,
            "upload_model": upload_model,
        }
        self._saved: Path | None = None
        self._told_by: Recording | None = None
        super().__init__(**options)
        self._uploads_model = self.tracker.upload_model

    def make_tracker(self, **settings: Any) -> MLflowTracker:
        """Return DagsHub's tracker, which knows where its MLflow is."""
        del settings["tracking_uri"]
        return DagsHubTracker(**self._settings, **settings)

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask to be told before the trackers close their runs, whichever callback comes first."""
        super().on_epoch_begin(args, state, control, **kwargs)
        recording = Recording.of(state)
        if recording is None or recording is self._told_by or not self._takes_part_in(recording):
            return
        self._told_by, self._saved = recording, None
        self._say_who_else_sends_there(recording)
        if self._uploads_model and not state.is_hyper_param_search:
            recording.before_end(lambda: self._hand_over_model(recording, state))

    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the checkpoint, which may be the last."""
        super().on_save(args, state, control, checkpoint_dir=checkpoint_dir, **kwargs)
        self._saved = Path(checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}")

    def _takes_part_in(self, recording: Recording) -> bool:
        return any(member is self for member in recording.members.values())

    def _hand_over_model(self, recording: Recording, state: TrainerState) -> None:
        """Keep the best checkpoint, or the last, for the tracker to commit."""
        if recording.ending != "finished":
            return
        best = state.best_model_checkpoint
        directory = self._saved if best is None or not Path(best).is_dir() else Path(best)
        if directory is None:
            logger.warning(
                "DagsHub gets no model: the training has saved no checkpoint. Choose another "
                "save_strategy than 'no'."
            )
            return
        names = (name for name, member in recording.members.items() if member is self)
        recording.upload(directory, state.global_step, next(names), MODEL)

    def _say_who_else_sends_there(self, recording: Recording) -> None:
        """Warn of another callback that sends the same training to the same MLflow."""
        for member in recording.members.values():
            tracker = member.tracker
            if member is self or not isinstance(tracker, MLflowTracker):
                continue
            uri = tracker.tracking_uri or (tracker.settings() or {}).get("tracking_uri")
            if uri == self.tracker.tracking_uri:
                logger.warning(
                    "%s sends this training to %s too, where it is logged twice. DagsHubCallback "
                    "does all that MLflowCallback does: pass only that.",
                    type(member).__name__,
                    self.tracker.repository.url,
                )
