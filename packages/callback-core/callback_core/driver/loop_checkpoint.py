"""Checkpoints of a `Loop`: `<output_dir>/checkpoint-<step>`, complete or absent."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from callback_core.state import TrainerState

STATE: Final = "trainer_state.json"


def checkpoint_path(output_dir: str, step: int) -> Path:
    """Return the absolute path of the checkpoint of `step`."""
    return Path(os.path.abspath(os.path.expanduser(output_dir))) / f"checkpoint-{step}"


def get_last_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Return the newest complete checkpoint in `folder`, or `None` if there is none.

    A checkpoint is complete if it has its `trainer_state.json`, which is written last.

    Raises:
        ValueError: `folder` is an address such as `s3://bucket/run`.
    """
    if "://" in str(folder):
        raise ValueError(
            f"get_last_checkpoint looks in directories, but {folder} is an address. For a trainer "
            'that takes addresses, pass resume_from_checkpoint="auto".'
        )
    found = {
        int(match[1]): path
        for path in Path(folder).expanduser().glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (path / STATE).is_file()
    }
    return str(found[max(found)]) if found else None


def find_checkpoint(resume_from: Any, output_dir: str) -> Path | None:
    """Return the checkpoint that `resume_from_checkpoint` names, if it names one.

    Args:
        resume_from: A checkpoint; `True` for the newest one in `output_dir`; or `"auto"` for the
            newest one if there is one.
        output_dir: The directory of checkpoints.

    Raises:
        FileNotFoundError: There is no such checkpoint, or it is not complete.
    """
    if not resume_from:
        return None
    found: str | None = str(resume_from)
    if resume_from in (True, "auto"):
        found = get_last_checkpoint(output_dir)
    if found is None and resume_from == "auto":
        return None
    if found is None:
        raise FileNotFoundError(
            f"resume_from_checkpoint is True, but {output_dir} has no complete checkpoint. "
            "To begin a new training then, pass 'auto'."
        )
    if not (Path(found) / STATE).is_file():
        raise FileNotFoundError(f"{found} is not a complete checkpoint: it has no {STATE}.")
    return Path(os.path.abspath(os.path.expanduser(found)))


def write_checkpoint(path: Path, save: Callable[[Path], object], state: TrainerState) -> None:
    """Write a checkpoint beside its place, and move it there when all of it is on the disk.

    Args:
        path: The checkpoint. One that is there already is replaced.
        save: Writes the files of the program into a directory.
        state: The state of the training.
    """
    part, before = (path.with_name(f".{path.name}.{end}") for end in ("part", "before"))
    shutil.rmtree(part, ignore_errors=True)  # of a training that was killed
    part.mkdir(parents=True)
    try:
        save(part)
        state.save_to_json(part / STATE)
        _sync(part)
        if path.exists():
            shutil.rmtree(before, ignore_errors=True)
            os.replace(path, before)
        os.replace(part, path)
        _sync_directory(path.parent)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _sync(directory: Path) -> None:
    """Flush the files of the program to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(Path(folder) / name, "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(folder))


def _sync_directory(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
