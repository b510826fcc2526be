"""Which checkpoint a training resumes from, and which ones are kept."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from trainer_torch.checkpoint import (
    find_fault,
    has_finite_weights,
    has_only_model,
    list_checkpoints,
)
from trainer_torch.run import TrainingRun

logger = logging.getLogger(__name__)


def choose_checkpoint(run: TrainingRun, resume_from: str | Path | bool | None) -> Path | None:
    """Return the checkpoint to resume from, or `None` to start from the beginning.

    Args:
        run: The training.
        resume_from: What `train` got. `None` means what the arguments say.

    Raises:
        FileNotFoundError: The checkpoint that `resume_from` names is not there or not complete.
    """
    output_dir = run.args.output_dir
    if resume_from is None:
        resume_from = run.args.resume_from_checkpoint
    if resume_from:
        return run.world.on_main(lambda: find_checkpoint(resume_from, output_dir))
    if run.world.is_main and (found := list_checkpoints(output_dir)):
        logger.info(
            "Training starts from the beginning, although there are checkpoints of an earlier "
            "training. The newest is %s.",
            found[-1],
        )
    return None


def find_checkpoint(resume_from: str | Path | bool, output_dir: str | Path) -> Path:
    """Return the complete checkpoint that `resume_from` names.

    In a directory, this is the newest complete one with finite weights, or without one of these,
    the newest complete one. Warnings name the newer ones, and weights that are not finite.

    Args:
        resume_from: A checkpoint; or a directory of checkpoints; or `True` for `output_dir`.
        output_dir: The directory of this run's checkpoints.

    Raises:
        FileNotFoundError: There is no complete checkpoint. The message says what is wrong.
        ValueError: It was saved with `save_only_model`.
    """
    directory = Path(output_dir if resume_from is True else str(resume_from)).expanduser()
    found = list_checkpoints(directory)
    if resume_from is not True and not found:
        return _named(directory)
    not_finite = only_model = None
    for checkpoint in reversed(found):
        if fault := find_fault(checkpoint):
            logger.warning("Skipped the incomplete checkpoint %s: %s.", checkpoint, fault)
        elif has_only_model(checkpoint):
            logger.warning("Skipped the checkpoint %s: %s.", checkpoint, _ONLY_MODEL)
            only_model = only_model or checkpoint
        elif has_finite_weights(checkpoint):
            return checkpoint
        else:
            logger.warning("The weights in %s are not finite.", checkpoint)
            not_finite = not_finite or checkpoint
    if not_finite is not None:
        logger.warning("No older checkpoint is finite, so training resumes from %s.", not_finite)
        return not_finite
    if only_model is not None:
        return _named(only_model)
    raise FileNotFoundError(
        f"Cannot resume: there is no complete checkpoint in {directory.absolute()}. Train "
        "without resume_from_checkpoint to start from the beginning."
    )


_ONLY_MODEL = "it was saved with save_only_model, without the optimizer"


def _named(checkpoint: Path) -> Path:
    if fault := find_fault(checkpoint):
        raise FileNotFoundError(f"Cannot resume from {checkpoint}: {fault}.")
    if has_only_model(checkpoint):
        raise ValueError(
            f"Cannot resume from {checkpoint}: {_ONLY_MODEL}. Load its weights into the model, and "
            "train without resume_from_checkpoint."
        )
    if not has_finite_weights(checkpoint):
        logger.warning("Training resumes from %s, but its weights are not finite.", checkpoint)
    return checkpoint


def rotate_checkpoints(run: TrainingRun, *keep: Path) -> None:
    """Delete the oldest checkpoints over `save_total_limit`, but neither `keep` nor the best.

    The newest one with finite weights is not deleted either. At the end of a training, without
    `keep`, the best one takes its place.
    """
    limit, best = run.args.save_total_limit, run.state.best_model_checkpoint
    if limit is None:
        return
    kept = {checkpoint.name for checkpoint in keep}
    if best is not None:
        kept.add(Path(best).name)
    keeps_finite = bool(keep) or best is None
    run.on_writers(lambda: _delete_oldest(run.args.output_dir, limit, kept, keeps_finite))


def _delete_oldest(output_dir: str | Path, limit: int, kept: set[str], keeps_finite: bool) -> None:
    found = list_checkpoints(output_dir)
    if keeps_finite:
        newest = next((one for one in reversed(found) if has_finite_weights(one)), None)
        kept |= {newest.name} if newest else set()
    surplus = max(0, len(found) - limit)
    for checkpoint in [checkpoint for checkpoint in found if checkpoint.name not in kept][:surplus]:
        shutil.rmtree(checkpoint)
