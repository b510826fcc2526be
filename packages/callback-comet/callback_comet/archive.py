"""Completing the archive of an offline experiment whose process was killed.

Comet writes what an offline experiment is given to a temporary directory, and makes an archive of
that when the experiment ends. What a process leaves there that is killed, Comet never looks at.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile

_NOTE: Final = "offline.json"
_MESSAGES: Final = "messages.json"


def note(folder: Path, experiment: Any) -> None:
    """Write down where an offline experiment that is open keeps what it is given."""
    written = {
        "directory": experiment.tmpdir,
        "archives": experiment.offline_directory,
        "key": experiment.get_key(),
        "project_name": experiment.project_name,
        "workspace": experiment.workspace,
        "start_time": int(time.time() * 1000),
    }
    (folder / _NOTE).write_text(json.dumps(written), "utf-8")


def forget(folder: Path) -> None:
    """Be told that the experiment has ended, and has its archive."""
    (folder / _NOTE).unlink(missing_ok=True)


def complete(folder: Path) -> Path | None:
    """Make the archive of the experiment that was noted, if it has none, and return its path."""
    try:
        noted = json.loads((folder / _NOTE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    directory = Path(noted["directory"])
    archive = None
    if (directory / _MESSAGES).is_file():
        archive = _archived(directory, noted)
        shutil.rmtree(directory, ignore_errors=True)
        _remove_empty(Path(noted["archives"]) / f"{noted['key']}.zip")
    forget(folder)
    return archive


def _archived(directory: Path, noted: dict[str, Any]) -> Path:
    """Return a new archive of what is in `directory`, in Comet's format."""
    messages = directory / _MESSAGES
    experiment = {
        "offline_id": noted["key"],
        "project_name": noted["project_name"],
        "workspace": noted["workspace"],
        "start_time": noted["start_time"],
        "stop_time": int(messages.stat().st_mtime * 1000),
        "tags": [],
        "resume_strategy": "get_or_create",
        "customer_error_reported": True,
        "customer_error_message": "The process was killed.",
        "user_provided_experiment_key": True,
        "comet_start_sourced": True,
    }
    archives = Path(noted["archives"])
    archive = archives / f"{noted['key']}-{noted['start_time']}.zip"
    beside = archive.with_suffix(".part")
    whole = messages.read_bytes().rpartition(b"\n")[0] + b"\n"  # the last line may be torn
    with ZipFile(beside, "w", ZIP_DEFLATED, allowZip64=True) as writing:
        writing.writestr("experiment.json", json.dumps(experiment))
        writing.writestr(_MESSAGES, whole)
        for file in sorted(directory.iterdir()):
            if file.is_file() and file.name not in (_MESSAGES, "experiment.json"):
                writing.write(file, file.name)
    os.replace(beside, archive)
    return archive


def _remove_empty(archive: Path) -> None:
    """Remove the archive without any content that Comet makes when an experiment begins."""
    try:
        with ZipFile(archive) as reading:
            empty = not reading.namelist()
        if empty:
            archive.unlink()
    except OSError:  # it has another name, or is not there
        return
