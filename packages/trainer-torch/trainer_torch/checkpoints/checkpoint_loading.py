"""Loads the parts of a checkpoint, of this Trainer or of transformers'."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import torch

from callback_core import TrainerState
from trainer_torch.checkpoints.transformers_checkpoint import (
    check_scheduler,
    read_precision,
    read_progress,
    read_structure,
    without_empty_groups,
)
from trainer_torch.hardware.seeding import read_generators
from trainer_torch.model.sharded_optimizer import gather_state, shard_state
from trainer_torch.ranks.world import World
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import (
    DATA,
    OPTIMIZER,
    PROGRESS,
    SCHEDULER,
    STATE,
    STRUCTURE,
    count_ranks,
    generators_name,
    is_of_transformers,
    is_sharded_checkpoint,
    manifest_digest,
    read_json,
)
from trainer_torch.storage.values import restored
from trainer_torch.storage.verification import find_fault_together
from trainer_torch.wrapping import is_distributed

logger = logging.getLogger(__name__)

_IMPLEMENTATION: Final = ("fused", "foreach", "capturable", "differentiable", "maximize")
"""The options of an optimizer that change how it computes, but not the result."""


def load_optimizer(run: TrainingRun, checkpoint: Path) -> None:
    """Load the optimizer and the schedule of `run` from `checkpoint`.

    Whether the optimizer is fused is not part of its state, and stays as it is.

    Raises:
        ValueError: The checkpoint is one of transformers and has another kind of schedule.
    """
    schedule = _load(checkpoint / SCHEDULER, run.args.device)
    state = load_optimizer_state(checkpoint, run.args.device, run.optimizer)
    is_other = is_of_transformers(checkpoint)
    if is_other:
        check_scheduler(run.lr_scheduler, schedule)
    groups = getattr(run.optimizer, "param_groups", ())
    for group, own in zip(state.get("param_groups", ()), groups, strict=False):
        names = _IMPLEMENTATION if is_other else ("fused",)
        group |= {name: own[name] for name in names if name in own}
    run.optimizer.load_state_dict(state)
    run.lr_scheduler.load_state_dict(schedule)


def load_optimizer_state(
    checkpoint: Path, device: torch.device, optimizer: Any = None
) -> dict[str, Any]:
    """Return the state of the optimizer in `checkpoint`, with its tensors on `device`.

    Args:
        checkpoint: The checkpoint.
        device: The device.
        optimizer: The optimizer that gets the state, with the same groups. The state is sharded
            like its parameters.
    """
    groups = getattr(optimizer, "param_groups", ())
    is_shared_out = any(is_distributed(one) for group in groups for one in group["params"])
    # Before it is sharded, the whole state may be too large for the device.
    place = torch.device("cpu") if is_shared_out else device
    state: dict[str, Any] = _load(checkpoint / OPTIMIZER, place)
    if is_sharded_checkpoint(checkpoint):
        return gather_state(state, checkpoint, optimizer, device)
    state = without_empty_groups(state) if is_of_transformers(checkpoint) else state
    return shard_state(state, optimizer)


def load_progress(run: TrainingRun, plan: Plan, checkpoint: Path) -> dict[str, Any]:
    """Return the position in the data, the step and the arguments of `checkpoint`."""
    if is_of_transformers(checkpoint):
        return read_progress(run, plan, checkpoint, count_ranks(checkpoint))
    progress: dict[str, Any] = read_json(checkpoint / PROGRESS)
    return progress


def load_precision(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the mixed precision in `checkpoint`."""
    if is_of_transformers(checkpoint):
        return read_precision(checkpoint)
    precision: dict[str, Any] = read_json(checkpoint / PROGRESS)["precision"]
    return precision


def load_arguments(checkpoint: Path) -> dict[str, Any]:
    """Return the arguments that `checkpoint` keeps: none if it is one of transformers."""
    if is_of_transformers(checkpoint):
        return {}
    arguments: dict[str, Any] = read_json(checkpoint / PROGRESS)["arguments"]
    return arguments


def load_structure(run: TrainingRun, checkpoint: Path) -> dict[str, Any]:
    """Return what `trainer_torch.model.structure.describe` returned when `checkpoint` was saved."""
    if is_of_transformers(checkpoint):
        return read_structure(run, load_optimizer_state(checkpoint, run.args.device))
    described: dict[str, Any] = read_json(checkpoint / STRUCTURE)
    return described


def load_state(checkpoint: Path, world: World) -> TrainerState:
    """Return the state of the training in `checkpoint`. Every process must call this.

    It looks for the best checkpoint beside this one first, because the folder may have been moved,
    and then where it was.
    """
    state = world.on_main(lambda: TrainerState.load_from_json(checkpoint / STATE))
    if state.best_model_checkpoint is not None:
        best = world.on_main(lambda: _find_best(checkpoint, str(state.best_model_checkpoint)))
        state.best_model_checkpoint = str(best)
        if find_fault_together(world, best):
            state.best_model_checkpoint = None
            if world.is_main:
                logger.warning(
                    "The best checkpoint so far, %s, is missing or incomplete. Training continues "
                    "without it, so it cannot load that model at its end.",
                    best,
                )
    return state


def _find_best(checkpoint: Path, recorded: str) -> Path:
    """Return where the best checkpoint is now. One of another training may have the same name."""
    progress = checkpoint / PROGRESS
    known = read_json(progress) if progress.is_file() else {}
    digest = known.get("best_manifest", "")
    if digest is None:  # it is this one
        return checkpoint
    beside = checkpoint.parent / Path(recorded).name
    for one in (beside, Path(recorded)):
        if one.is_dir() and digest in ("", manifest_digest(one)):
            return one
    return Path(recorded) if digest else beside


def load_rng_states(checkpoint: Path, world: World) -> tuple[Any, Any] | None:
    """Return the random generators of this rank: at `checkpoint`, and when its epoch began.

    Returns `None` if another number of processes saved it, or if it has none.
    """
    path = checkpoint / generators_name(world.rank, world.size)
    if count_ranks(checkpoint) != world.size or not path.exists():
        return None
    return read_generators(path)


def load_data_state(checkpoint: Path, world: World) -> dict[str, Any] | None:
    """Return the state of this rank's data in `checkpoint`, with its number of workers.

    Returns `None` if there is none, or another number of processes saved it.
    """
    path = checkpoint / DATA.format(world.rank)
    if count_ranks(checkpoint) != world.size or not path.is_file():
        return None
    state: dict[str, Any] = _load(path, torch.device("cpu"))
    return state


def _load(path: Path, device: torch.device) -> Any:
    """Return what `path` holds. Tensors from the CPU stay there; others move to `device`."""

    def place(storage: Any, location: str) -> Any:
        place = "cpu" if location == "cpu" else str(device)
        return torch.serialization.default_restore_location(storage, place)

    return restored(torch.load(path, map_location=place, weights_only=True))
