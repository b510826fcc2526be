"""`TrackerRun`: the run of a training in one tracker, and the file that keeps its progress."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, fields, replace
from enum import Enum, auto
from typing import Any

from callback_core.tracking.batching import MOST_TRIES
from callback_core.tracking.calls import Abandoned, TrackerCalls
from callback_core.tracking.delivery_progress import DeliveryProgress
from callback_core.tracking.hard_links import changed_since
from callback_core.tracking.identity import identity_of
from callback_core.tracking.journal import Record
from callback_core.tracking.limits import fitting_parameters
from callback_core.tracking.run_folder import RunFolder
from callback_core.tracking.scrubbing import scrubbed
from callback_core.tracking.tracker import Opening, Rejected, Status, Tracker, Upload

logger = logging.getLogger(__name__)


class RunState(Enum):
    """Where a run stands in its tracker. `docs/architecture.md` has the diagram."""

    UNOPENED = auto()
    OPEN = auto()
    CLOSED = auto()
    """The training ended and the run is closed. More logs open it again."""
    DONE = auto()
    """The run is closed and the whole journal is delivered."""


class TrackerRun:
    """Opens, fills and closes the run of a training in a tracker.

    Args:
        tracker: The tracker.
        folder: The folder of the training's run.
        name: The tracker's name among those of the run.
        run_id: The tracker's run, if a checkpoint names it or the user opened it. `None` takes the
            one from the run's files.
        adopted: Whether the user opened that run.

    Attributes:
        calls: Calls the tracker. `abandon` ends these calls.
        progress: How much of the journal the tracker has.
        state: Where the run stands.
        begin: The record from which the run is opened; empty before it is read.
        rewind_to: The step to which the run is rewound when it is opened next.
    """

    def __init__(
        self,
        tracker: Tracker,
        folder: RunFolder,
        name: str,
        run_id: str | None = None,
        adopted: bool = False,
    ) -> None:
        self.tracker, self.folder, self.name = tracker, folder, name
        self.calls = TrackerCalls()
        self.progress = DeliveryProgress()
        self.reload()
        if run_id is None and self.progress.run_id is None:
            known = folder.read_tracker(name)  # written before anybody opened the run
            run_id, adopted = known.get("run_id"), known.get("adopted", False)
        self.continue_with(run_id, adopted)
        self.state = RunState.UNOPENED
        self.begin: dict[str, Any] = {}
        self.rewind_to: int | None = None
        self._parameters_are_due = False
        self._failures = 0  # in a row, to log the parameters
        self._warned_of_progress = False

    @property
    def id(self) -> str | None:
        """The tracker's run, whichever process opened it."""
        return self.progress.run_id or self.folder.read_progress(self.name).get("run_id")

    @property
    def url(self) -> str | None:
        """The address of the run's page, whichever process opened it; `None` if it has none."""
        return self.progress.run_url or self.folder.read_progress(self.name).get("run_url")

    def write_identity(self) -> None:
        """Write how to make the tracker and which run it opens, for a delivery elsewhere."""
        run = {"run_id": self.progress.run_id, "adopted": self.progress.adopted}
        self.folder.write_tracker(self.name, {**identity_of(self.tracker), **run})

    def reload(self) -> None:
        """Read the progress that another process may have made."""
        known = {entry.name for entry in fields(DeliveryProgress)} - {"left_out"}
        kept = self.folder.read_progress(self.name)
        self.progress.left_out.update(kept.get("left_out", {}))
        self.progress = replace(self.progress, **{k: v for k, v in kept.items() if k in known})

    def save_failure(self, failure: str | None, refused: bool = False) -> None:
        """Note for the training why this process ends before everything is delivered.

        Args:
            failure: Why.
            refused: Whether the tracker will never open its run.
        """
        self.progress.failure, self.progress.refused = failure, refused
        self.save()

    def continue_with(self, run_id: str | None, adopted: bool) -> None:
        """Continue the run `run_id` if the user opened it, or if the progress names no other.

        A checkpoint may name an older run, which was gone, so that another took its place.
        """
        if run_id is not None and (adopted or self.progress.run_id is None):
            self.progress.run_id, self.progress.adopted = run_id, adopted

    def forget(self) -> None:
        """Forget the run, so that a new one is opened and gets everything."""
        left_out = self.progress.left_out
        left_out.clear()
        self.progress = DeliveryProgress(left_out=left_out, runs_gone=self.progress.runs_gone + 1)
        self.state = RunState.UNOPENED
        self.save()

    def open(self) -> None:
        """Open the run, unless it is open."""
        if self.state is RunState.OPEN:
            return
        progress, begin = self.progress, self.begin
        opening = Opening(
            name=begin.get("run_name"),
            output_dir=self.folder.output_dir,
            folder=self.folder.of_tracker(self.name, progress.runs_gone),
            run_id=progress.run_id,
            adopted=progress.adopted,
            step=begin["step"],
            time=begin["time"],
            rewind_to=self.rewind_to,
            trial_name=begin.get("trial_name"),
            trial_parameters=begin.get("trial_parameters"),
        )
        progress.run_id = self.calls(self.tracker.open, opening)
        progress.run_url = None if self.tracker.run_url is None else scrubbed(self.tracker.run_url)
        self.state, progress.status = RunState.OPEN, None
        self.rewind_to = None
        if opening.rewind_to is not None and opening.rewind_to <= 0:
            progress.parameters = None  # the tracker forgot them too
            self.log_parameters()
        self.save()

    def log_parameters(self) -> None:
        """Log the arguments, the configuration and the hyperparameters, unless the run has them."""
        # A hyperparameter of a search need not be an argument of the training.
        arguments = {**self.begin["arguments"], **(self.begin.get("trial_parameters") or {})}
        parameters, cut = fitting_parameters(
            self.tracker.parameters_of(arguments, self.begin["model_config"]), self.tracker.limits
        )
        self.progress.left_out.update(cut)
        if parameters == self.progress.parameters:
            return
        self._parameters_are_due = True
        try:
            self.calls(self.tracker.log_parameters, parameters)
            self.progress.left_out.pop("parameters", None)
        except Rejected as error:
            self.progress.left_out["parameters"] = f"rejected: {error}"
        except Abandoned:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures < MOST_TRIES:
                raise
            self.progress.left_out["parameters"] = f"failed: {type(error).__name__}: {error}"
            return  # deliver the points first; try these again before the run is closed
        self._parameters_are_due, self.progress.parameters = False, parameters

    def upload(self, record: Record) -> None:
        """Upload the directory that an `upload` record names, then remove its copy."""
        name, path = record.content["name"], self.folder.path / record.content["path"]
        if not path.is_dir():
            self.progress.left_out[name] = "its files are gone"
            return
        if changed := changed_since(path, record.content.get("links", {})):
            self.progress.left_out[name] = f"overwritten after it was saved: {', '.join(changed)}"
            self.remove_kept_copy(record)
            return
        try:
            self.calls(self.tracker.log_files, Upload(path, name, record.step))
        except Rejected as error:
            self.progress.left_out[name] = f"rejected: {error}"
        self.remove_kept_copy(record)

    def remove_kept_copy(self, record: Record) -> None:
        """Remove the copy of a directory that is uploaded, or no longer needed."""
        shutil.rmtree(self.folder.path / record.content["path"], ignore_errors=True)

    def close(self, status: Status, ended_at: float | None) -> None:
        """Close the run. Where it is not open, the tracker has its end already.

        Args:
            status: How the training ended.
            ended_at: When it ended, if that is known.
        """
        if self.state is RunState.OPEN:
            if self._parameters_are_due:
                self.log_parameters()
            self.tracker.ended_at = ended_at
            self.calls(self.tracker.close, None if self.progress.adopted else status)
        self.state, self.progress.status = RunState.CLOSED, status
        self.save()

    def save(self) -> None:
        """Write the progress to its file. If that fails, delivery continues from memory."""
        try:
            self.folder.write_progress(self.name, asdict(self.progress))
        except OSError as error:
            if not self._warned_of_progress:
                self._warned_of_progress = True
                logger.warning(
                    "Could not save the delivery progress of %s: %s. Delivery continues.",
                    self.name,
                    error,
                )
