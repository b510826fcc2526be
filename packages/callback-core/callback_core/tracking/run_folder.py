"""`RunFolder`: the folder of one run, with its journal and a few files for each tracker."""

from __future__ import annotations

import json
import logging
import re
import secrets
import tempfile
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from callback_core._json import write_atomically
from callback_core.tracking.journal import Journal, saved_at, whole_size
from callback_core.tracking.lock import FileLock, Held

logger = logging.getLogger(__name__)

JOURNAL: Final = "journal.jsonl"
_TRACKER: Final = ".tracker.json"
_PROGRESS: Final = ".progress.json"


class RunOfCheckpoint(NamedTuple):
    """The run to which a checkpoint belongs, as far as the checkpoint says.

    Attributes:
        run: The id of the run.
        output_dir: The directory to which its training wrote.
        run_id: The id of the run in the tracker.
    """

    run: str | None = None
    output_dir: str | None = None
    run_id: str | None = None


NO_CHECKPOINT: Final = RunOfCheckpoint()
"""What is known of the run if no state was loaded."""


class RunFolder:
    """The folder `<output_dir>/tracking/<id>` of one run.

    Attributes:
        path: The folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, output_dir: Path) -> RunFolder:
        """Return the folder of a run that begins now, without making it."""
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        return cls.of(output_dir, name)

    @classmethod
    def of(cls, output_dir: Path, run: str) -> RunFolder:
        """Return the folder of the run with that id."""
        return cls(output_dir / "tracking" / run)

    @classmethod
    def of_training(
        cls, output_dir: Path, checkpoint: RunOfCheckpoint, step: int | None
    ) -> RunFolder:
        """Return the folder of a training that begins or resumes, without making it.

        A training that branches off the checkpoint of another one, which is still there in another
        directory, gets a new folder. If that directory is gone, it was moved, or the checkpoint was
        copied to another machine, so that the training continues its run.

        Args:
            output_dir: The directory that the training writes to. Its path is absolute, because the
                training may change its working directory.
            checkpoint: What the checkpoint says about its run. If it names none, a training that
                resumes continues the newest run in `output_dir` that saved a checkpoint at `step`.
            step: The update step at which the training resumes; `None` if it begins.
        """
        if step is None:
            return cls.new(output_dir)
        if checkpoint.run is None:
            known = (one for one in reversed(cls.all(output_dir)) if saved_at(one.journal, step))
            return next(known, None) or cls.new(output_dir)
        here = cls.of(output_dir, checkpoint.run)
        origin = cls.of(Path(checkpoint.output_dir or output_dir), checkpoint.run)
        if here.journal.exists() or not origin.journal.exists():
            return here
        logger.warning(
            "The checkpoint at step %d belongs to the run in %s. This training writes to another "
            "directory, so it gets a run of its own. To continue that run, train in %s.",
            step,
            origin.path,
            origin.output_dir,
        )
        return cls.new(output_dir)

    @classmethod
    def all(cls, output_dir: Path) -> list[RunFolder]:
        """Return the folders of all runs in `output_dir`, oldest first."""
        journals = output_dir.glob(f"tracking/*/{JOURNAL}")
        return [cls(journal.parent) for journal in sorted(journals)]

    @property
    def run(self) -> str:
        """The id of the run: the name of the folder."""
        return self.path.name

    @property
    def output_dir(self) -> Path:
        """The directory that the training writes to."""
        return self.path.parent.parent

    @property
    def journal(self) -> Path:
        """The journal of the run."""
        return self.path / JOURNAL

    def trackers(self) -> list[str]:
        """Return the names of the trackers that get this run."""
        return sorted(path.name[: -len(_TRACKER)] for path in self.path.glob(f"*{_TRACKER}"))

    def is_pending(self) -> bool:
        """Return whether a tracker lacks a part of the run, or has not closed it."""
        size = whole_size(self.journal)
        progress = [self.read_progress(name) for name in self.trackers()]
        return any(p.get("status") is None or p.get("offset", 0) < size for p in progress)

    def is_recorded(self) -> bool:
        """Return whether a training writes the journal now."""
        try:
            FileLock(self.lock).release()
        except OSError:
            return True
        return False

    @property
    def lock(self) -> Path:
        """The lock of the training that writes the journal."""
        return self.journal.with_suffix(".lock")

    def of_tracker(self, name: str, runs_gone: int = 0) -> Path:
        """Return the tracker's own folder, without making it.

        Args:
            name: The tracker.
            runs_gone: How many of its runs are gone. The next one gets a folder of its own.
        """
        return self.path / (_file_name(name) + (f".{runs_gone + 1}" if runs_gone else ""))

    def lock_of(self, name: str) -> Path:
        """Return the lock of the delivery to that tracker."""
        return self.path / f"{_file_name(name)}.lock"

    def log_of(self, name: str) -> Path:
        """Return the log file of a process that delivers to that tracker."""
        return self.path / f"{_file_name(name)}.log"

    def read_tracker(self, name: str) -> dict[str, Any]:
        """Return what `write_tracker` wrote; an empty dict if there is no complete file."""
        return _read(self.path / (_file_name(name) + _TRACKER))

    def write_tracker(self, name: str, known: dict[str, Any]) -> None:
        """Write what another process must know to deliver to that tracker.

        Args:
            name: The tracker.
            known: Its identity, and, if known, `run_id` and `adopted` of the run to open.
        """
        write_atomically(self.path / (_file_name(name) + _TRACKER), _json_of(known))

    def read_progress(self, name: str) -> dict[str, Any]:
        """Return the progress of that tracker as it was written last."""
        return _read(self.path / (_file_name(name) + _PROGRESS))

    def write_progress(self, name: str, progress: dict[str, Any]) -> None:
        """Write the progress of that tracker.

        This happens after each batch, so it does not wait for the disk. After a loss of power, an
        older progress only means that points are sent again.
        """
        path = self.path / (_file_name(name) + _PROGRESS)
        write_atomically(path, _json_of(progress), sync=False)


def open_journal(folder: RunFolder) -> tuple[Journal, RunFolder]:
    """Return the journal in `folder`, and `folder`; or those of another place if need be.

    Raises:
        OSError: No folder for the run can be written to.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        return Journal(folder.journal), folder
    except Held:
        other = RunFolder.new(folder.output_dir)
        logger.warning(
            "Another training writes to %s. This one is recorded in %s.", folder.path, other.path
        )
    except OSError as error:
        other = RunFolder.of(Path(tempfile.mkdtemp(prefix="tracking-")), folder.run)
        logger.warning(
            "%s cannot be written: %s. The run is recorded in %s.", folder.path, error, other.path
        )
    other.path.mkdir(parents=True)
    return Journal(other.journal), other


def warn_of_pending_runs(output_dir: Path, but: Collection[Path]) -> None:
    """Log one warning of the runs in `output_dir` that some tracker does not have in full.

    Args:
        output_dir: The directory of the trainings.
        but: The folders of runs that this process delivers.
    """
    pending = [
        folder.run
        for folder in RunFolder.all(output_dir)
        if folder.path not in but and not folder.is_recorded() and folder.is_pending()
    ]
    if pending:
        logger.warning(
            "Trackers have not got all of %d earlier run%s: python -m "
            "callback_core.tracking.replay '%s' delivers %s.",
            len(pending),
            "s" if len(pending) > 1 else f" ({pending[0]})",
            output_dir,
            "them" if len(pending) > 1 else "it",
        )


def _read(path: Path) -> dict[str, Any]:
    """Return the object in the file; an empty dict where it is missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json_of(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, default=str)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
