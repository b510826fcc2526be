"""`continue_runs`: lets a script that resumes by `load_state` continue its run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from callback_accelerate.run import LOADED, Checkpoint, Run, Stage
from callback_accelerate.tracker import CallbackTracker

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

_FILE: Final = "callback_runs.json"
"""The file in a checkpoint that says which runs it belongs to."""


def continue_runs(accelerator: Accelerator) -> None:
    """Let `save_state` store which run a checkpoint belongs to, and `load_state` continue that run.

    Without this call, a script that resumes gets a new run. Checkpoints that were saved without it
    can still be loaded.

    Args:
        accelerator: The accelerator. Call this at any time before `save_state` and `load_state`.
    """

    def save(models: Any, weights: Any, output_dir: str) -> None:
        if accelerator.is_main_process:
            try:
                _save(accelerator, Path(output_dir, _FILE))
            except Exception as error:
                logger.warning("%s does not store its run.", output_dir, exc_info=error)

    def load(models: Any, input_dir: str) -> None:
        if accelerator.is_main_process:
            try:
                _load(accelerator, Path(input_dir, _FILE))
            except Exception as error:
                logger.warning("%s does not say which run to continue.", input_dir, exc_info=error)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _save(accelerator: Accelerator, path: Path) -> None:
    """Write which runs the checkpoint belongs to, if the accelerator has our trackers."""
    if runs := _runs_of(accelerator):
        content = [run.checkpoint()._asdict() for run in runs]
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _load(accelerator: Accelerator, path: Path) -> None:
    """Let the runs of the checkpoint be continued, unless the trackers have begun others."""
    if not path.is_file():
        return
    content, directory = json.loads(path.read_text(encoding="utf-8")), str(path.parent)
    checkpoints = [Checkpoint(**{**one, "directory": directory}) for one in content]
    begun = [run for run in _runs_of(accelerator) if run.stage is not Stage.STARTED]
    if not begun:
        LOADED[accelerator] = checkpoints
    elif any(not run.is_of(one) for run in begun for one in checkpoints):
        logger.warning(
            "%s belongs to another run, which is not continued, because a log came before "
            "load_state.",
            directory,
        )


def _runs_of(accelerator: Accelerator) -> list[Run]:
    """Return the runs of the accelerator's trackers, each once."""
    trackers = [one for one in accelerator.trackers if isinstance(one, CallbackTracker)]
    return list(dict.fromkeys(one.run for one in trackers))
