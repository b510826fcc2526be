"""Checkpoints: written beside their name, published in one rename, verified when found."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import load_model as load_safetensors
from safetensors.torch import save_model as save_safetensors
from torch import nn

from callback_core import TrainerState
from trainer_torch.seeding import rng_state

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer

logger = logging.getLogger(__name__)

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"
SCHEDULER: Final = "scheduler.pt"
RNG: Final = "rng_state.pth"
RUNNING_LOSS: Final = "running_loss.pt"
STATE: Final = "trainer_state.json"
MANIFEST: Final = "manifest.json"

_NAME: Final = re.compile(r"checkpoint-(\d+)")


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """Return where the checkpoint of `step` is published."""
    return Path(output_dir) / f"checkpoint-{step}"


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
    """Write all that resuming needs; the checkpoint is there as a whole or not at all."""
    final = checkpoint_path(trainer.args.output_dir, trainer.state.global_step)
    beside = final.with_name(f".{final.name}.part")
    if beside.exists():
        shutil.rmtree(beside)
    save_model(trainer.model, beside)
    torch.save(trainer.optimizer.state_dict(), beside / OPTIMIZER)
    torch.save(trainer.lr_scheduler.state_dict(), beside / SCHEDULER)
    torch.save(rng_state(), beside / RNG)
    torch.save(trainer.running_loss.state_dict(), beside / RUNNING_LOSS)
    trainer.state.save_to_json(beside / STATE)
    _write_manifest(beside)
    replaced = final.with_name(f".{final.name}.replaced")
    if final.exists():
        final.rename(replaced)
    beside.rename(final)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def load_checkpoint(trainer: Trainer, checkpoint: Path) -> None:
    """Load weights, optimizer, schedule and running loss from `checkpoint` into `trainer`'s."""
    load_model(trainer.model, checkpoint)
    trainer.optimizer.load_state_dict(_load(checkpoint / OPTIMIZER, trainer.args.device))
    trainer.lr_scheduler.load_state_dict(_load(checkpoint / SCHEDULER, trainer.args.device))
    trainer.running_loss.load_state_dict(_load(checkpoint / RUNNING_LOSS, trainer.args.device))


def load_state(checkpoint: Path) -> TrainerState:
    """Return the state of the training in `checkpoint`."""
    return TrainerState.load_from_json(checkpoint / STATE)


def load_rng_state(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the random generators in `checkpoint`."""
    return _load(checkpoint / RNG, torch.device("cpu"))


def find_checkpoint(resume_from: str | Path | bool, output_dir: str | Path) -> Path:
    """Return the complete checkpoint that `resume_from` names.

    Args:
        resume_from: A checkpoint, or `True` for the newest complete one in `output_dir`.
        output_dir: Where the checkpoints of the run are.

    Raises:
        FileNotFoundError: There is none; the message says what was found instead.
    """
    if resume_from is not True:
        checkpoint = Path(str(resume_from))
        if fault := find_fault(checkpoint):
            raise FileNotFoundError(f"Cannot resume from {checkpoint}: {fault}.")
        return checkpoint
    for checkpoint in reversed(list_checkpoints(output_dir)):
        if not (fault := find_fault(checkpoint)):
            return checkpoint
        logger.warning("Passed over the checkpoint %s: %s.", checkpoint, fault)
    raise FileNotFoundError(
        f"Cannot resume: there is no complete checkpoint in {Path(output_dir).absolute()}. Train "
        "without resume_from_checkpoint to begin anew."
    )


def find_fault(checkpoint: Path) -> str | None:
    """Return what keeps `checkpoint` from being complete, by its manifest; `None` if nothing."""
    if not checkpoint.is_dir():
        return "there is no such directory"
    if not (checkpoint / MANIFEST).is_file():
        return f"it has no {MANIFEST}, so it was not written to its end"
    for name, listed in json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8")).items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _entry(checkpoint / name) != listed:
            return f"{name} is not what was written"
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints in `output_dir`, complete or not, by their step."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


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
    for name in entries:
        _to_disk(directory / name)
    (directory / MANIFEST).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    _to_disk(directory / MANIFEST)


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
