"""Completes the archive of an offline experiment whose process was killed.

Comet writes an offline experiment to a temporary directory, and packs that into an archive when the
experiment ends. If the process is killed, Comet never packs the directory.
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
    """Note the directories of an open offline experiment.

    Args:
        folder: The tracker's directory; the note is a file in it.
        experiment: The experiment.
    """
    content = {
        "directory": experiment.tmpdir,
        "archives": experiment.offline_directory,
        "key": experiment.get_key(),
        "project_name": experiment.project_name,
        "workspace": experiment.workspace,
        "start_time": int(time.time() * 1000),
    }
    (folder / _NOTE).write_text(json.dumps(content), "utf-8")


def forget(folder: Path) -> None:
    """Delete the note, because the experiment has ended and has its archive."""
    (folder / _NOTE).unlink(missing_ok=True)


def complete(folder: Path) -> Path | None:
    """Make the archive of the noted experiment.

    Returns:
        The path of the new archive; `None` if there is no note, or nothing to archive.
    """
    try:
        noted = json.loads((folder / _NOTE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    directory = Path(noted["directory"])
    archive = None
    if (directory / _MESSAGES).is_file():
        archive = _make_archive(directory, noted)
        shutil.rmtree(directory, ignore_errors=True)
        _remove_empty(Path(noted["archives"]) / f"{noted['key']}.zip")
    forget(folder)
    return archive


def _make_archive(directory: Path, noted: dict[str, Any]) -> Path:
    """Pack `directory` in Comet's format, and return the path of the archive."""
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
    partial = archive.with_suffix(".part")
    lines = messages.read_bytes().rpartition(b"\n")[0] + b"\n"  # the last line may be incomplete
    with ZipFile(partial, "w", ZIP_DEFLATED, allowZip64=True) as zip_file:
        zip_file.writestr("experiment.json", json.dumps(experiment))
        zip_file.writestr(_MESSAGES, lines)
        for file in sorted(directory.iterdir()):
            if file.is_file() and file.name not in (_MESSAGES, "experiment.json"):
                zip_file.write(file, file.name)
    os.replace(partial, archive)
    return archive


def _remove_empty(archive: Path) -> None:
    """Remove the empty archive that Comet creates when an experiment begins."""
    try:
        with ZipFile(archive) as zip_file:
            is_empty = not zip_file.namelist()
        if is_empty:
            archive.unlink()
    except OSError:  # it has another name, or does not exist
        return
