"""Keeping models as versions of an artifact."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Rejected, Upload
from callback_wandb.sdk import imported_wandb

FINAL_MODEL: Final = "final_model"
"""The name under which the model is kept that a training ends with."""


def log_version(run: Any, name: str, upload: Upload) -> None:
    """Add a version of the model `name` to `run`, and wait until the server has it.

    What the run's summary holds by then is kept with it.
    """
    metadata = {key: value for key, value in dict(run.summary).items() if _is_number(key, value)}
    aliases = [upload.name]
    if upload.name == FINAL_MODEL:
        metadata[FINAL_MODEL] = True
    else:
        aliases.append(f"checkpoint_global_step_{upload.step}")
        epoch = _epoch_of(upload.path)
        aliases += [] if epoch is None else [f"epoch_{round(epoch, 2)}"]
    artifact = imported_wandb().Artifact(fitting(name), "model", metadata=metadata)
    # Offline its files have to last until they are synced, and the directory is deleted.
    artifact.add_dir(str(upload.path), policy="mutable" if run.offline else "immutable")
    logged = run.log_artifact(artifact, aliases=aliases)
    if not run.offline:
        try:
            logged.wait()
        except ValueError as error:  # what the server says of one that it does not take
            raise Rejected(str(error)) from error


def fitting(name: str) -> str:
    """Return `name` as one that W&B takes of an artifact, or as a run's id."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]


def _is_number(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and not name.startswith("_")


def _epoch_of(checkpoint: Path) -> float | None:
    """Return the epochs that were done, as a checkpoint says it."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        return float(state["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
