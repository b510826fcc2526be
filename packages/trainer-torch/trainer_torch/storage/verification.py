"""Checks that a checkpoint is complete, and the same one, wherever a process sees it."""

from __future__ import annotations

from pathlib import Path

from trainer_torch.ranks.world import World
from trainer_torch.storage.checkpoint import MANIFEST, find_fault, written_in


def find_fault_together(world: World, checkpoint: Path, of_main: bool = False) -> str | None:
    """Return what `find_fault` does, or that not all processes see the same checkpoint.

    Processes that see the same files check a part of them each. If machines have a disk each, all
    files on each disk are checked. Every process must call this, and gets the same answer.

    Args:
        world: The processes.
        checkpoint: The checkpoint.
        of_main: Whether only the disk of the main process counts.
    """
    seen = world.gather((file_id(checkpoint / MANIFEST), written_in(checkpoint)))
    for rank, (_, written) in enumerate(seen):
        if written != seen[0][1] and not of_main:
            return f"rank {rank} sees another one under this name, or none that is complete"
    files = [file for file, _ in seen]
    peers = [rank for rank, file in enumerate(files) if file == files[world.rank]]
    checks = not of_main or 0 in peers
    found = find_fault(checkpoint, peers.index(world.rank), len(peers)) if checks else None
    faults = world.gather(found)
    for rank, fault in enumerate(faults):
        if fault is not None:
            return fault if files[rank] == files[0] else f"{fault}, on the disk of rank {rank}"
    return None


def file_id(path: Path) -> tuple[int, int] | None:
    """Return what two processes get alike only if they see the same file, on a common disk.

    A copy has another time of change. The number of a disk differs between machines.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns
