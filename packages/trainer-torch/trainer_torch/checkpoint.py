"""Checkpoints on disk: their names and files, and whether these are complete and finite."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from numbers import Real
from pathlib import Path
from typing import Any, Final

from trainer_torch.weights import MODEL, weight_files

OPTIMIZER: Final = "optimizer.pt"
SCHEDULER: Final = "scheduler.pt"
RNG: Final = "rng_state.pth"
RNG_OF_RANK: Final = "rng_state_{}.pth"
DATA: Final = "data_state_{}.pt"
PROGRESS: Final = "progress.json"
STRUCTURE: Final = "structure.json"
STATE: Final = "trainer_state.json"
MANIFEST: Final = "manifest.json"


_OWN: Final = (MANIFEST, PROGRESS, STRUCTURE)
"""The files that transformers does not write."""

_NAME: Final = re.compile(r"checkpoint-\d+")


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """Return the path of the checkpoint of `step`."""
    return Path(output_dir) / f"checkpoint-{step}"


def checkpoint_step(checkpoint: str | Path) -> int:
    """Return the step in the name of `checkpoint`."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def find_fault(checkpoint: Path) -> str | None:
    """Return why `checkpoint` is not complete, according to its manifest, or `None` if it is.

    A checkpoint of transformers has no manifest: it is complete if it has all files.
    """
    if not checkpoint.is_dir():
        return "there is no such directory"
    if is_of_transformers(checkpoint):
        return _missing_part(checkpoint)
    listed = _manifest(checkpoint).get("files")
    if not isinstance(listed, dict):
        return f"it has no valid {MANIFEST}, so writing it was not finished"
    for name, entry in listed.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _entry(checkpoint / name) != entry:
            return f"{name} differs from what was written"
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints in `output_dir`, complete or not, the oldest first.

    Time decides, not the step: a new run may write to the directory of an older, longer one.
    """
    paths = Path(output_dir).glob("checkpoint-*")
    found = [path for path in paths if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_written(path), checkpoint_step(path)))


def has_finite_weights(checkpoint: Path) -> bool:
    """Return whether the weights in `checkpoint` are finite, as far as it says so."""
    manifest = _manifest(checkpoint)
    return bool(manifest.get("finite", True)) if manifest else is_of_transformers(checkpoint)


def has_only_model(checkpoint: Path) -> bool:
    """Return whether `checkpoint` was saved with `save_only_model`, so that nothing can resume."""
    files = _manifest(checkpoint).get("files", {})
    return MODEL in files and OPTIMIZER not in files


def is_of_transformers(checkpoint: Path) -> bool:
    """Return whether `checkpoint` has a state as transformers' Trainer writes it, and none of ours.

    transformers writes the state last, or last but for the random generators.
    """
    return (checkpoint / STATE).is_file() and not any((checkpoint / one).exists() for one in _OWN)


def count_ranks(checkpoint: Path) -> int:
    """Return the number of processes that saved `checkpoint`."""
    return len(list(checkpoint.glob(RNG_OF_RANK.format("*")))) or 1


def generators_path(checkpoint: Path, rank: int, ranks: int) -> Path:
    """Return the file of the random generators of `rank` among `ranks` processes."""
    return checkpoint / (RNG if ranks == 1 else RNG_OF_RANK.format(rank))


def write_manifest(directory: Path, finite: bool) -> None:
    """Write which files `directory` has, and flush all of them to the disk.

    Args:
        directory: A directory with all files of a checkpoint.
        finite: Whether its weights are finite.
    """
    entries = {path.name: _entry(path) for path in sorted(directory.iterdir())}
    manifest = {"written": time.time(), "finite": finite, "files": entries}
    write_json(directory / MANIFEST, manifest)
    for path in directory.iterdir():
        _sync(path)


def read_json(path: Path) -> Any:
    """Return the value in the file `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to the file `path`."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _missing_part(checkpoint: Path) -> str | None:
    """Return what resuming needs and a checkpoint of transformers lacks, or `None`."""
    if not weight_files(checkpoint):
        return "it has no weights: neither model.safetensors nor pytorch_model.bin"
    missing = [name for name in (OPTIMIZER, SCHEDULER) if not (checkpoint / name).is_file()]
    if missing:
        return (
            f"it has no {' and no '.join(missing)}, so it can only be the start of another training"
        )
    return None


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of `checkpoint`, or nothing if it has none that is valid."""
    try:
        return dict(read_json(checkpoint / MANIFEST))
    except (OSError, ValueError, TypeError):
        return {}


def _written(checkpoint: Path) -> float:
    """Return the time at which `checkpoint` was written, in seconds since 1970."""
    written = _manifest(checkpoint).get("written")
    return float(written) if isinstance(written, Real) else checkpoint.stat().st_mtime


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _sync(path: Path) -> None:
    """Flush `path` to disk, so that the rename does not publish an incomplete file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
