"""Keeps models as versions of an artifact."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Rejected, Upload
from callback_wandb.rows import begun_values
from callback_wandb.sdk import import_wandb

FINAL_MODEL: Final = "final_model"
"""The name of the upload with the final model."""


def log_version(run: Any, name: str, upload: Upload) -> None:
    """Add a version of the model `name` to `run`, and wait until the server has it.

    The numbers that were logged last become its metadata.
    """
    latest = {**dict(run.summary), **begun_values(run)}
    metadata = {key: value for key, value in latest.items() if _is_number(key, value)}
    aliases = [upload.name]
    if upload.name == FINAL_MODEL:
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


def _is_number(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and not name.startswith("_")


def _epoch_of(checkpoint: Path) -> float | None:
    """Return the number of epochs in a checkpoint's state; `None` if it is unknown."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        return float(state["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
