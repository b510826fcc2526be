"""Where a run keeps its journal, and what its trackers remember of it."""

from __future__ import annotations

import json
import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from callback_core.tracking.journal import whole_size
from callback_core.tracking.lock import FileLock

JOURNAL: Final = "journal.jsonl"
_TRACKER: Final = ".tracker.json"
_PROGRESS: Final = ".progress.json"


class RunFolder:
    """The folder `<output_dir>/tracking/<id>` of one run.

    Attributes:
        path: The folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, output_dir: Path) -> RunFolder:
        """Return the folder of a run that begins now. It is not made yet."""
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        return cls.of(output_dir, name)

    @classmethod
    def of(cls, output_dir: Path, run: str) -> RunFolder:
        """Return the folder of the run with that id."""
        return cls(output_dir / "tracking" / run)

    @classmethod
    def all(cls, output_dir: Path) -> list[RunFolder]:
        """Return the folders of all runs in `output_dir`, oldest first."""
        journals = output_dir.glob(f"tracking/*/{JOURNAL}")
        return [cls(journal.parent) for journal in sorted(journals)]

    @property
    def run(self) -> str:
        """The id of the run."""
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
        """Return the names of the trackers that this run is, or was to be, delivered to."""
        return sorted(path.name[: -len(_TRACKER)] for path in self.path.glob(f"*{_TRACKER}"))

    def is_pending(self) -> bool:
        """Return whether a tracker has not got all of it, or its run is not closed there."""
        size = whole_size(self.journal)
        progress = [self.read_progress(name) for name in self.trackers()]
        return any(p.get("status") is None or p.get("offset", 0) < size for p in progress)

    def is_recorded(self) -> bool:
        """Return whether a training is writing its journal now."""
        try:
            FileLock(self.lock).release()
        except OSError:
            return True
        return False

    @property
    def lock(self) -> Path:
        """The lock of the training that writes the journal."""
        return self.journal.with_suffix(".lock")

    def of_tracker(self, name: str) -> Path:
        """Return a folder of the tracker's own. It is not made."""
        return self.path / _file_name(name)

    def lock_of(self, name: str) -> Path:
        """Return the lock of whoever delivers to that tracker."""
        return self.path / f"{_file_name(name)}.lock"

    def log_of(self, name: str) -> Path:
        """Return where a process that delivers to that tracker writes what it has to say."""
        return self.path / f"{_file_name(name)}.log"

    def read_tracker(self, name: str) -> dict[str, Any]:
        """Return what `write_tracker` has written; nothing if there is nothing whole."""
        return _read(self.path / (_file_name(name) + _TRACKER))

    def write_tracker(self, name: str, known: dict[str, Any]) -> None:
        """Write what another process must know to deliver to that tracker.

        Args:
            name: The tracker.
            known: `made_by` and `settings`, by which it can be made; `run_id` and `adopted`, the
                run to open, if that is known.
        """
        _write(self.path / (_file_name(name) + _TRACKER), known)

    def read_progress(self, name: str) -> dict[str, Any]:
        """Return how far that tracker has come, as it was written last."""
        return _read(self.path / (_file_name(name) + _PROGRESS))

    def write_progress(self, name: str, progress: dict[str, Any]) -> None:
        """Write how far that tracker has come."""
        _write(self.path / (_file_name(name) + _PROGRESS), progress)


def _read(path: Path) -> dict[str, Any]:
    """Return what is in `path`; nothing where that is nothing whole."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    """Write `values`; the file holds the old or the new at any time."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(values, indent=1, default=str), "utf-8")
    os.replace(beside, path)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
