"""`DagsHubCallback`: sends a training to DagsHub."""

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
        self._prepared: Session | None = None
        super().__init__(**options)
        self._uploads_model = self.tracker.upload_model

    def make_tracker(self, **settings: Any) -> MLflowTracker:
        """Return DagsHub's tracker, which knows where its MLflow is."""
        del settings["tracking_uri"]
        return DagsHubTracker(**self._settings, **settings)

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prepare to hand the model over, now that all trackers have joined the session."""
        super().on_epoch_begin(args, state, control, **kwargs)
        session, member = self.session, self.member
        if session is None or member is None or session is self._prepared:
            return
        self._prepared, self._saved = session, None
        self._warn_of_duplicates(session)
        if self._uploads_model and not state.is_hyper_param_search:
            session.before_end(lambda status: self._hand_over_model(session, member, state, status))

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

    def _hand_over_model(
        self, session: Session, member: Member, state: TrainerState, status: Status
    ) -> None:
        """Keep the best checkpoint, or the last, for the tracker to commit."""
        if status != "finished":
            return
        best = state.best_model_checkpoint
        directory = self._saved if best is None or not Path(best).is_dir() else Path(best)
        if directory is None:
            logger.warning(
                "DagsHub gets no model: the training has saved no checkpoint. Choose another "
                "save_strategy than 'no'."
            )
            return
        session.keep(member, directory, state.global_step, MODEL)

    def _warn_of_duplicates(self, session: Session) -> None:
        """Warn of another tracker that logs the same training to the same MLflow."""
        for member in session.members.values():
            tracker = member.tracker
            if tracker is self.tracker or not isinstance(tracker, MLflowTracker):
                continue
            uri = tracker.tracking_uri or (tracker.settings() or {}).get("tracking_uri")
            if uri == self.tracker.tracking_uri:
                logger.warning(
                    "%s logs this training to %s too, so it is there twice. DagsHubCallback does "
                    "all that MLflowCallback does: pass only that.",
                    member.name,
                    self.tracker.repository.url,
                )
