"""Keeps models as versions of an artifact."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from callback_core.tracking import Rejected, Upload
from callback_wandb.rows import begun_values
from callback_wandb.sdk import import_wandb

logger = logging.getLogger(__name__)

FINAL_MODEL: Final = "final_model"
"""The name of the upload with the final model."""

_MOST_METADATA: Final = 100
"""The entries that the SDK accepts as an artifact's metadata."""

_told_of: Final[WeakSet[Any]] = WeakSet()
"""The runs whose versions lack metadata, and for which that was logged."""


def log_version(run: Any, name: str, upload: Upload) -> None:
    """Add a version of the model `name` to `run`, and wait until the server has it.

    The numbers that were logged last become its metadata.
    """
    is_final = upload.name == FINAL_MODEL
    metadata = _metadata(run, _MOST_METADATA - is_final)
    aliases = [upload.name]
    if is_final:
        metadata[FINAL_MODEL] = True
    else:
        aliases.append(f"checkpoint_global_step_{upload.step}")
        epoch = _epoch_of(upload.path)
        aliases += [] if epoch is None else [f"epoch_{round(epoch, 2)}"]
    artifact = import_wandb().Artifact(fitting(name), "model", metadata=metadata)
    # Offline, the files must last until they are synced, but the directory is deleted.
    artifact.add_dir(str(upload.path), policy="mutable" if run.offline else "immutable")
    logged = run.log_artifact(artifact, aliases=aliases)
    if not run.offline:
        try:
            logged.wait()
        except ValueError as error:  # the server refused the artifact
            raise Rejected(str(error)) from error


def fitting(name: str) -> str:
    """Return `name` in a form that W&B accepts as an artifact's name or a run's id."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]


def _metadata(run: Any, most: int) -> dict[str, Any]:
    """Return the numbers that were logged last, at most `most`, and those of evaluations first."""
    latest = {**dict(run.summary), **begun_values(run)}
    names = [name for name, value in latest.items() if _is_number(name, value)]
    names.sort(key=lambda name: not name.startswith("eval/"))
    if len(names) > most and run not in _told_of:
        _told_of.add(run)
        logger.warning(
            "W&B takes at most %d entries of metadata for a version of a model. %d metrics, such "
            "as %s, are only in the run.",
            _MOST_METADATA,
            len(names) - most,
            names[-1],
        )
    return {name: latest[name] for name in names[:most]}


def _is_number(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and not name.startswith("_")


def _epoch_of(checkpoint: Path) -> float | None:
    """Return the number of epochs in a checkpoint's state; `None` if it is unknown."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        return float(state["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
