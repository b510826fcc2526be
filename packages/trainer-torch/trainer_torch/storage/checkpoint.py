"""Checkpoints on disk: their names and files, and whether these are complete and finite."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final

from trainer_torch.model.shards import METADATA, SHARDS
from trainer_torch.model.weights import MODEL, weight_files

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

_DIGEST: Final = "sha256"
"""The manifest's key for its own digest, which covers all its other keys."""

_NAME: Final = re.compile(r"checkpoint-\d+")


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """Return the path of the checkpoint of `step`."""
    return Path(output_dir) / f"checkpoint-{step}"


def checkpoint_step(checkpoint: str | Path) -> int:
    """Return the step in the name of `checkpoint`."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def is_checkpoint_name(name: str) -> bool:
    """Return whether `name` is that of a checkpoint."""
    return _NAME.fullmatch(name) is not None


def find_fault(checkpoint: Path, part: int = 0, parts: int = 1) -> str | None:
    """Return why `checkpoint` is not complete according to its manifest, or `None` if it is.

    A checkpoint of transformers has no manifest: it is complete if it has all files.

    Args:
        checkpoint: The checkpoint.
        part: The number of the part of its files to check, from 0.
        parts: The number of parts, if several processes check one each.
    """
    if not checkpoint.is_dir():
        return "there is no such directory"
    if not os.access(checkpoint, os.R_OK | os.X_OK):
        return "this user may not read it"
    if is_of_transformers(checkpoint):
        return _missing_part(checkpoint)
    listed = read_manifest(checkpoint).get("files")
    if not isinstance(listed, dict):
        return f"it has no valid {MANIFEST}, so it was not written completely"
    for name, entry in list(listed.items())[part::parts]:
        try:
            if file_entry(checkpoint / name) != entry:
                return f"{name} differs from what was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error}"
    return None


def has_all_files(checkpoint: Path) -> bool:
    """Return whether `checkpoint` has all files in the right sizes, without reading them."""
    if is_of_transformers(checkpoint):
        return _missing_part(checkpoint) is None
    listed = read_manifest(checkpoint).get("files")
    if not isinstance(listed, dict):
        return False
    try:
        return all(
            (checkpoint / name).stat().st_size == entry["size"] for name, entry in listed.items()
        )
    except (OSError, KeyError, TypeError):
        return False


def is_sharded_checkpoint(checkpoint: Path) -> bool:
    """Return whether each process has written its part of the weights in `checkpoint`."""
    return (checkpoint / SHARDS).is_dir()


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints in `output_dir`, complete or not, the oldest first.

    Time decides, not the step: a new run may write to the directory of an older, longer one.
    """
    paths = Path(output_dir).glob("checkpoint-*")
    found = [path for path in paths if is_checkpoint_name(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (written_at(path), checkpoint_step(path)))


def has_finite_weights(checkpoint: Path) -> bool:
    """Return whether the weights in `checkpoint` are finite according to its manifest."""
    manifest = read_manifest(checkpoint)
    return manifest_is_finite(manifest) if manifest else is_of_transformers(checkpoint)


def manifest_is_finite(manifest: Mapping[str, Any]) -> bool:
    """Return whether the weights of the checkpoint with this manifest are finite."""
    return bool(manifest.get("finite", True))


def has_only_model(checkpoint: Path) -> bool:
    """Return whether `checkpoint` was saved with `save_only_model`. Nothing resumes from it."""
    return manifest_has_only_model(read_manifest(checkpoint))


def manifest_has_only_model(manifest: Mapping[str, Any]) -> bool:
    """Return whether the checkpoint with this manifest was saved with `save_only_model`."""
    files = manifest.get("files", {})
    has_weights = MODEL in files or f"{SHARDS}/{METADATA}" in files
    return has_weights and OPTIMIZER not in files


def best_named_in(state: Mapping[str, Any]) -> str | None:
    """Return the name of the best checkpoint in the content of a `STATE` file, if any."""
    best = state.get("best_model_checkpoint")
    return None if best is None else Path(best).name


def surplus(
    complete: Sequence[tuple[str, bool]],
    limit: int,
    kept: Collection[str | None],
    keeps_newest: bool = True,
) -> list[str]:
    """Return the names of the checkpoints that may be deleted because they are over `limit`.

    Args:
        complete: The name of each checkpoint, and whether its weights are finite; the oldest first.
        limit: The number of checkpoints to keep.
        kept: The names of checkpoints to keep anyway.
        keeps_newest: Whether to keep the newest one, and the newest one with finite weights, too.
    """
    kept = set(kept)
    if keeps_newest:
        kept |= {name for name, _ in complete[-1:]}
        kept |= set([name for name, is_finite in complete if is_finite][-1:])
    return [name for name, _ in complete if name not in kept][: max(0, len(complete) - limit)]


def is_of_transformers(checkpoint: Path) -> bool:
    """Return whether transformers' Trainer wrote `checkpoint`: none of its files is only ours.

    transformers writes the state last, or last but for the random generators.
    """
    own = [os.path.exists(checkpoint / one) for one in _OWN]
    return os.path.isfile(checkpoint / STATE) and not any(own)


def count_ranks(checkpoint: Path) -> int:
    """Return the number of processes that saved `checkpoint`."""
    return len(list(checkpoint.glob(RNG_OF_RANK.format("*")))) or 1


def generators_name(rank: int, ranks: int) -> str:
    """Return the name of the file of the random generators of `rank` among `ranks` processes."""
    return RNG if ranks == 1 else RNG_OF_RANK.format(rank)


def write_manifest(directory: Path, finite: bool, written: float) -> None:
    """Write which files `directory` has, and flush all of them to the disk.

    Args:
        directory: A directory with all files of a checkpoint.
        finite: Whether its weights are finite.
        written: The time at which it is written, in seconds since 1970. If several machines write
            the checkpoint, theirs is the same.
    """
    entries = entries_of(directory, sorted(path.name for path in directory.iterdir()))
    write_manifest_of(directory, entries, finite, written)


def entries_of(directory: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the entries of files for a manifest, and flush the files to the disk.

    Args:
        directory: The directory.
        names: The paths of the files in it.
    """
    entries = {}
    for name in names:
        entries[name] = file_entry(directory / name)
        sync(directory / name)
    return entries


def write_manifest_of(
    directory: Path, entries: Mapping[str, Any], finite: bool, written: float
) -> None:
    """Write a manifest of files that are already flushed to the disk.

    Args:
        directory: The directory of the checkpoint.
        entries: The entry of each file, from `entries_of`.
        finite: Whether its weights are finite.
        written: The time at which it is written, in seconds since 1970.
    """
    manifest = {"written": written, "finite": finite, "files": dict(entries)}
    write_json(directory / MANIFEST, {**manifest, _DIGEST: _digest(manifest)})
    folders = {(directory / name).parent for name in entries} | {directory}
    for path in (directory / MANIFEST, *folders):
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # directories cannot be opened there
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot do that
            raise
    finally:
        os.close(number)


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of `checkpoint`; an empty one if it is missing or damaged."""
    try:
        return parse_manifest((checkpoint / MANIFEST).read_bytes())
    except OSError:
        return {}


def manifest_digest(checkpoint: Path) -> str | None:
    """Return the digest of a manifest, which identifies `checkpoint`; `None` without a manifest."""
    manifest = read_manifest(checkpoint)
    return _digest(manifest) if manifest else None


def parse_manifest(content: bytes) -> dict[str, Any]:
    """Return the manifest in the `content` of a file; an empty one if it is damaged."""
    try:
        text = content.decode()
        manifest = dict(json.loads(text))
    except (ValueError, TypeError):
        return {}
    if manifest.keys() == {"written", "finite", "files"}:  # from before it had a digest
        return manifest
    digest = manifest.pop(_DIGEST, None)
    is_as_written = text == _as_text({**manifest, _DIGEST: digest})
    return manifest if is_as_written and digest == _digest(manifest) else {}


def written_at(checkpoint: Path) -> float:
    """Return the time at which `checkpoint` was written, in seconds since 1970."""
    written = written_in(checkpoint)
    return checkpoint.stat().st_mtime if written is None else written


def written_in(checkpoint: Path) -> float | None:
    """Return the time in the manifest of `checkpoint`, by which copies of one are recognized."""
    written = read_manifest(checkpoint).get("written")
    return float(written) if isinstance(written, Real) else None


def read_json(path: Path) -> Any:
    """Return the value in the file `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to the file `path`."""
    path.write_text(_as_text(value), encoding="utf-8")


def _missing_part(checkpoint: Path) -> str | None:
    """Return what resuming needs and a checkpoint of transformers lacks, or `None`."""
    if not weight_files(checkpoint):
        return "it has no weights: neither model.safetensors nor pytorch_model.bin"
    missing = [name for name in (OPTIMIZER, SCHEDULER) if not (checkpoint / name).is_file()]
    if missing:
        return f"it has no {' and no '.join(missing)}, so training cannot resume from it"
    return None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_as_text(manifest).encode()).hexdigest()


def _as_text(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def file_entry(path: Path) -> dict[str, Any]:
    """Return the size and the hash of the file `path`."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
