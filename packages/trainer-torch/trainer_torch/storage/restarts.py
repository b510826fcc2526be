"""Finds the checkpoints that earlier attempts of `torchrun --max-restarts` have saved."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from trainer_torch.storage.checkpoint import (
    MANIFEST,
    STATE,
    list_checkpoints,
    read_json,
    write_json,
)

_FILE: Final = ".launch.json"

_begun: set[str] = set()
"""The directories in which this process has begun a training."""

_to_write: dict[str, dict[str, Any]] = {}
"""The content of the file of a directory, until a training saves a checkpoint there."""


def restart_count() -> int:
    """Return how often `torchrun` has started this process again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def saved_by_earlier_attempts(output_dir: str | Path, is_restart: bool) -> list[Path]:
    """Return the checkpoints of this training that earlier attempts have saved, the oldest first.

    Only the main process may call this, once for each training, because it notes that a training
    has begun in `output_dir`.

    Checkpoints from before this launch of `torchrun` belong to another training. So do those of a
    second training that the script makes in the same directory; it starts over in each attempt.
    To tell them apart, a file lists the checkpoints that were there when each training began. It is
    written before a training saves its first checkpoint.

    Args:
        output_dir: The directory of the checkpoints.
        is_restart: Whether this is not the first attempt.
    """
    directory = Path(output_dir).expanduser().absolute()
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    found = {one: _identity(one) for one in list_checkpoints(directory)}
    identities = {one.name: identity for one, identity in found.items()}
    is_second = str(directory) in _begun
    _begun.add(str(directory))
    noted = _read(directory / _FILE, launch) if is_restart or is_second else {}
    if is_second or not noted:
        first = noted or {"before": identities}
        after = {"after": identities} if is_second else {}
        _to_write[str(directory)] = {**first, **after, "launch": launch}
        return []
    return [
        one
        for one, identity in found.items()
        if noted["before"].get(one.name) != identity
        and noted.get("after", identities).get(one.name) == identity
    ]


def note_save(output_dir: str | Path) -> None:
    """Note, before the first checkpoint of a training, which ones were there when it began."""
    directory = Path(output_dir).expanduser().absolute()
    if (content := _to_write.get(str(directory))) is not None:
        with suppress(OSError):  # then the checkpoint will probably fail too
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / _FILE, content)
            del _to_write[str(directory)]


def _read(path: Path, launch: str | None) -> dict[str, Any]:
    """Return what the file says about this launch; nothing if no training has begun in it."""
    try:
        content = dict(read_json(path))
    except (OSError, ValueError, TypeError):  # there is no file, or a kill has cut it off
        return {}
    return content if content.get("launch") == launch and "before" in content else {}


def _identity(checkpoint: Path) -> int:
    """Return a number that changes if a checkpoint is written again."""
    for name in (MANIFEST, STATE):
        if (checkpoint / name).is_file():
            return (checkpoint / name).stat().st_mtime_ns
    return 0
