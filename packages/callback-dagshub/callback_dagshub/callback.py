"""`DagsHubCallback`: logs a training to DagsHub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import Member, Session, Status
from callback_dagshub.tracker import MODEL, DagsHubTracker
from callback_mlflow import MLflowCallback, MLflowTracker

logger = logging.getLogger(__name__)


class DagsHubCallback(MLflowCallback):
    """Logs a training to the MLflow of a DagsHub repository, and commits its model.

    Each setting defaults to the environment variable named with it. The token comes from
    `DAGSHUB_USER_TOKEN` or from `dagshub login`. The callback does not change MLflow's variables.

    Args:
        repository: `owner/name`, or the repository's address. The default is the repository of
            `MLFLOW_TRACKING_URI`, else that of the first git remote at DagsHub.
        branch: The branch for the model; `BRANCH`, else the repository's default.
        model_name: The model's directory in `artifacts/` of the repository;
            `HF_DAGSHUB_MODEL_NAME`, else `main`.
        upload_model: Commit the model when training has finished: the best checkpoint if it is
            known, else the last; `HF_DAGSHUB_LOG_ARTIFACTS`.
        options: Other arguments of `MLflowCallback`, except `tracking_uri`. `log_artifacts` copies
            each checkpoint to the MLflow run.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid.
        TypeError: `tracking_uri` was passed.
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
            raise TypeError("DagsHubCallback takes repository instead of tracking_uri.")
        self._settings: dict[str, Any] = {
            "repository": repository,
            "branch": branch,
            "model_name": model_name,
            "upload_model": upload_model,
        }
        self._prepared: Session | None = None
        super().__init__(**options)
        self._uploads_model = self.tracker.upload_model

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy."""
        return super().__getstate__() | {"_prepared": None}

    def make_tracker(self, **settings: Any) -> MLflowTracker:
        """Return DagsHub's tracker, which finds its tracking URI itself."""
        del settings["tracking_uri"]
        return DagsHubTracker(**self._settings, **settings)

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prepare to keep the model, now that all trackers have joined the session."""
        super().on_epoch_begin(args, state, control, **kwargs)
        session, member = self.session, self.member
        if session is None or member is None or session is self._prepared:
            return
        self._prepared = session
        self._warn_of_duplicates(session)
        if self._uploads_model and not state.is_hyper_param_search:
            session.before_end(lambda status: self._keep_model(session, member, state, status))

    def _keep_model(
        self, session: Session, member: Member, state: TrainerState, status: Status
    ) -> None:
        """Keep the best or the last checkpoint, for the tracker to commit."""
        if status != "finished":
            return
        best = state.best_model_checkpoint
        directory = self.checkpoint if best is None or not Path(best).is_dir() else Path(best)
        if directory is None:
            logger.warning(
                "DagsHub gets no model: the training saved no checkpoint. Choose a save_strategy "
                "other than 'no'."
            )
            return
        session.keep(member, directory, state.global_step, MODEL)

    def _warn_of_duplicates(self, session: Session) -> None:
        """Warn about another tracker that logs the same training to the same MLflow."""
        for member in session.members.values():
            tracker = member.tracker
            if tracker is self.tracker or not isinstance(tracker, MLflowTracker):
                continue
            uri = tracker.tracking_uri or (tracker.settings() or {}).get("tracking_uri")
            if uri == self.tracker.tracking_uri:
                logger.warning(
                    "%s logs this training to %s too, so it appears there twice. DagsHubCallback "
                    "includes MLflowCallback: pass DagsHubCallback only.",
                    member.name,
                    self.tracker.repository.url,
                )
