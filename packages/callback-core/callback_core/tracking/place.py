"""Where a training is recorded: which folder, what else is in there, and what stands in its way."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import Journal
from callback_core.tracking.lock import Held

logger = logging.getLogger(__name__)


def folder_of_run(output_dir: Path, run: str | None, resumed: bool) -> RunFolder:
    """Return the folder of the run that goes on, or of a new one."""
    output_dir = output_dir.absolute()  # the training may change its working directory
    if not resumed:
        return RunFolder.new(output_dir)
    if run is not None:
        return RunFolder.of(output_dir, run)
    known = RunFolder.all(output_dir)  # the trainer did not keep which: the newest
    return known[-1] if known else RunFolder.new(output_dir)


def opened_journal(folder: RunFolder) -> tuple[Journal, RunFolder]:
    """Return the journal in `folder`, or in another where that cannot be had, and where it is.

    Raises:
        OSError: There is no place at all that can be written to.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        return Journal(folder.journal), folder
    except Held:
        other = RunFolder.new(folder.output_dir)
        logger.warning(
            "Another training writes to %s: this one is kept in %s.", folder.path, other.path
        )
        other.path.mkdir(parents=True)
        return Journal(other.journal), other
    except OSError as error:
        other = RunFolder.of(Path(tempfile.mkdtemp(prefix="tracking-")), folder.run)
        logger.warning(
            "What trackers are sent cannot be kept in %s: %s. It is kept in %s.",
            folder.path,
            error,
            other.path,
        )
        other.path.mkdir(parents=True)
        return Journal(other.journal), other


def say_what_is_pending(output_dir: Path, but: RunFolder) -> None:
    """Say in a line which runs in `output_dir`, `but` one, trackers have not got in full."""
    pending = [
        folder.run
        for folder in RunFolder.all(output_dir)
        if folder.path != but.path and not folder.is_recorded() and folder.is_pending()
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
