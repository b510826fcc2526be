"""Checkpoints: written beside their name, published in one rename, verified when found."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import load_model as load_safetensors
from safetensors.torch import save_model as save_safetensors
from torch import nn

from callback_core import TrainerState, export_states
from trainer_torch.seeding import rng_state
from trainer_torch.world import World

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer

logger = logging.getLogger(__name__)

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"
SCHEDULER: Final = "scheduler.pt"
RNG: Final = "rng_state.pth"
RNG_OF_RANK: Final = "rng_state_{}.pth"
PROGRESS: Final = "progress.json"
STATE: Final = "trainer_state.json"
MANIFEST: Final = "manifest.json"

_NAME: Final = re.compile(r"checkpoint-\d+")


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """Return where the checkpoint of `step` is published."""
    return Path(output_dir) / f"checkpoint-{step}"


def checkpoint_step(checkpoint: str | Path) -> int:
    """Return the step of the checkpoint at that path."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def save_model(model: nn.Module, directory: Path) -> None:
    """Write the weights of `model` to `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    save_safetensors(model, str(directory / MODEL))


def load_model(model: nn.Module, checkpoint: Path) -> None:
    """Load the weights in `checkpoint` into `model`.

    Raises:
        RuntimeError: Names of the weights are missing or unknown; the message lists them.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    load_safetensors(model, str(checkpoint / MODEL), device=str(device))


def save_checkpoint(trainer: Trainer) -> Path:
    """Write all that resuming needs; the checkpoint is there as a whole or not at all.

    The main process writes, with what each rank has of its own, while the others wait.
    """
    progress, rng_states = trainer.progress.state_dict(), trainer.world.gather(rng_state())
    return trainer.world.on_main(lambda: _write_checkpoint(trainer, progress, rng_states))


def _write_checkpoint(
    trainer: Trainer, progress: dict[str, Any], rng_states: list[dict[str, Any]]
) -> Path:
    final = checkpoint_path(trainer.args.output_dir, trainer.state.global_step)
    beside, replaced = (final.with_name(f".{final.name}.{kind}") for kind in ("part", "replaced"))
    for leftover in (beside, replaced):
        if leftover.exists():
            shutil.rmtree(leftover)
    save_model(trainer.model, beside)
    torch.save(trainer.optimizer.state_dict(), beside / OPTIMIZER)
    torch.save(trainer.lr_scheduler.state_dict(), beside / SCHEDULER)
    for rank, state in enumerate(rng_states):
        torch.save(state, beside / (RNG if len(rng_states) == 1 else RNG_OF_RANK.format(rank)))
    _write_json(beside / PROGRESS, progress)
    trainer.state.stateful_callbacks = export_states(
        [*trainer.callback_handler.callbacks, trainer.control], trainer.state.stateful_callbacks
    )
    trainer.state.save_to_json(beside / STATE)
    _write_manifest(beside)
    if final.exists():
        final.rename(replaced)
    beside.rename(final)
    if replaced.exists():
        shutil.rmtree(replaced)
    return final


def load_checkpoint(trainer: Trainer, checkpoint: Path) -> None:
    """Load weights, optimizer, schedule and progress from `checkpoint` into `trainer`'s."""
    load_model(trainer.model, checkpoint)
    trainer.optimizer.load_state_dict(_load(checkpoint / OPTIMIZER, trainer.args.device))
    trainer.lr_scheduler.load_state_dict(_load(checkpoint / SCHEDULER, trainer.args.device))
    trainer.progress.load_state_dict(_read_json(checkpoint / PROGRESS))


def load_state(checkpoint: Path) -> TrainerState:
    """Return the state of the training in `checkpoint`, its best checkpoint where it is now."""
    state = TrainerState.load_from_json(checkpoint / STATE)
    if state.best_model_checkpoint is not None:
        best = checkpoint.parent / Path(state.best_model_checkpoint).name
        state.best_model_checkpoint = str(best)
        if find_fault(best):  # which reads all of it
            state.best_model_checkpoint = None
            logger.warning(
                "The best checkpoint so far, %s, is gone: it is no longer the best.", best
            )
    return state


def count_ranks(checkpoint: Path) -> int:
    """Return how many processes trained together when `checkpoint` was saved."""
    return len(list(checkpoint.glob(RNG_OF_RANK.format("*")))) or 1


def load_rng_state(checkpoint: Path, world: World) -> dict[str, Any] | None:
    """Return the state of this rank's random generators in `checkpoint`.

    It is `None` where the checkpoint is that of another number of ranks.
    """
    if count_ranks(checkpoint) != world.size:
        return None
    name = RNG if world.size == 1 else RNG_OF_RANK.format(world.rank)
    return _load(checkpoint / name, torch.device("cpu"))


def find_checkpoint(resume_from: str | Path | bool, output_dir: str | Path) -> Path:
    """Return the complete checkpoint that `resume_from` names.

    Args:
        resume_from: A checkpoint; a directory of checkpoints, for the newest complete one in it; or
            `True` for that in `output_dir`.
        output_dir: Where the checkpoints of the run are.

    Raises:
        FileNotFoundError: There is none; the message says what was found instead.
    """
    directory = Path(output_dir if resume_from is True else str(resume_from))
    found = list_checkpoints(directory)
    if resume_from is not True and not found:
        if fault := find_fault(directory):
            raise FileNotFoundError(f"Cannot resume from {directory}: {fault}.")
        return directory
    for checkpoint in reversed(found):
        if not (fault := find_fault(checkpoint)):
            return checkpoint
        logger.warning("Passed over the checkpoint %s: %s.", checkpoint, fault)
    raise FileNotFoundError(
        f"Cannot resume: there is no complete checkpoint in {directory.absolute()}. Train "
        "without resume_from_checkpoint to begin anew."
    )


def find_fault(checkpoint: Path) -> str | None:
    """Return what keeps `checkpoint` from being complete, by its manifest; `None` if nothing."""
    if not checkpoint.is_dir():
        return "there is no such directory"
    try:
        listed = dict(_read_json(checkpoint / MANIFEST)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no whole {MANIFEST}, so it was not written to its end"
    for name, entry in listed.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _entry(checkpoint / name) != entry:
            return f"{name} is not what was written"
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints in `output_dir`, complete or not, in the order they were written in.

    That is not the order of their steps where a run was started anew in the directory of a longer
    one.
    """
    found = [path for path in Path(output_dir).glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_written(path), checkpoint_step(path)))


def rotate_checkpoints(output_dir: str | Path, limit: int, keep: Iterable[Path]) -> None:
    """Delete the oldest checkpoints until `limit` are left, but none of `keep`."""
    kept = {checkpoint.name for checkpoint in keep}
    found = list_checkpoints(output_dir)
    surplus = max(0, len(found) - limit)
    for checkpoint in [checkpoint for checkpoint in found if checkpoint.name not in kept][:surplus]:
        shutil.rmtree(checkpoint)


def _load(path: Path, device: torch.device) -> Any:
    return torch.load(path, map_location=device, weights_only=True)


def _write_manifest(directory: Path) -> None:
    entries = {path.name: _entry(path) for path in sorted(directory.iterdir())}
    _write_json(directory / MANIFEST, {"written": time.time(), "files": entries})
    for path in directory.iterdir():
        _to_disk(path)


def _written(checkpoint: Path) -> float:
    """Return when `checkpoint` was written, in seconds since 1970."""
    try:
        return float(_read_json(checkpoint / MANIFEST)["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return checkpoint.stat().st_mtime


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _to_disk(path: Path) -> None:
    """Make `path` survive a power cut: the rename must not publish what is not there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
