"""Writes sharded checkpoints: each process its own files, in one folder. The main one publishes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer_torch.model.shards import METADATA, Shards, write_shards
from trainer_torch.model.staging import Staged
from trainer_torch.ranks.world import World
from trainer_torch.storage.background import Work
from trainer_torch.storage.checkpoint import entries_of, write_manifest_of
from trainer_torch.storage.checkpoint_writing import (
    discard_unpublished,
    publish,
    temporary_path,
    write_file,
)
from trainer_torch.storage.saves import Save


def make_temporary_folder(final: Path, world: World) -> OSError | None:
    """Make the empty folder into which all processes write the checkpoint `final`.

    Returns:
        The error, in each process, if the main process could not make the folder; else `None`.
    """
    error: OSError | None = None
    if world.is_main:
        try:
            discard_unpublished(final)  # left by a process that was killed while saving
            temporary_path(final).mkdir(parents=True)
        except OSError as raised:
            error = raised
    number = world.gather(None if error is None else error.errno)[0]
    return error if error is not None or number is None else OSError(number, str(final))


def write_own_part(save: Save, staged: Staged, world: World, begun: OSError | None) -> bool:
    """Write the files of this process. The main process publishes once all have written theirs.

    Every process must call this. Only the names, places and hashes of files pass between processes.
    If a process fails, what all have written is removed.

    Args:
        save: The save of a checkpoint on a disk that all processes share.
        staged: The values of the files of this process, by name. Every process has the same names
            of `Shards`, and writes its part of these.
        world: The processes.
        begun: What `make_temporary_folder` returned.

    Returns:
        Whether the checkpoint is published. If not, another process raises the error.

    Raises:
        OSError: The disk of this process has failed, or that of another one while it wrote shards.
    """
    if begun is not None:
        raise begun
    own = Work(lambda: _write_own(temporary_path(save.path), staged, world), in_thread=False)
    entries = world.gather_while_saving(own.result)
    have_written = None not in entries
    if have_written and world.is_main:
        own = Work(lambda: _publish(save, entries), in_thread=False)
    is_published: bool = world.gather_while_saving(have_written and own.error is None)[0]
    if not is_published and world.is_main:
        with suppress(OSError):  # the disk has failed already
            discard_unpublished(save.path)
    if own.error is not None:
        raise own.error
    return is_published


def _write_own(part: Path, staged: Staged, world: World) -> dict[str, Any]:
    """Write the files of this process, and return what the manifest says of them."""
    contents = staged.values
    # Shards come first: all processes write them together, so all notice if one of them fails.
    for name, value in contents.items():
        if isinstance(value, Shards):
            write_shards(part / name, value, world.saving_group, world.waiting)
    with staged.written_as_before():
        for name, value in contents.items():
            if not isinstance(value, Shards):
                write_file(part / name, value)
    return entries_of(part, _own_files(part, contents, world))


def _publish(save: Save, entries: list[dict[str, Any]]) -> None:
    """Write the manifest of the files of all processes, and publish the checkpoint."""
    merged = {name: entry for of_rank in entries for name, entry in of_rank.items()}
    write_manifest_of(temporary_path(save.path), merged, save.finite, save.written)
    publish(save.path)


def _own_files(part: Path, contents: dict[str, Any], world: World) -> list[str]:
    """Return the paths in `part` of the files that this process has written."""
    names = []
    for name, value in contents.items():
        if not isinstance(value, Shards):
            names.append(name)
            continue
        files = sorted((part / name).glob(f"__{world.rank}_*"))
        if world.is_main:
            files.append(part / name / METADATA)
        names += [file.relative_to(part).as_posix() for file in files]
    return names
