"""`Place`: where the checkpoints of a run are, on this machine or in a store."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from callback_core.tracking import Redaction
from trainer_torch.addresses import check_address, is_address, local_copy, parent_and_name
from trainer_torch.ranks.world import World
from trainer_torch.storage.checkpoint import (
    MANIFEST,
    STATE,
    best_named_in,
    find_fault,
    has_all_files,
    has_finite_weights,
    has_only_model,
    is_checkpoint_name,
    list_checkpoints,
    written_at,
    written_in,
)
from trainer_torch.storage.remote import RemoteCheckpoint, RemoteDirectory, retried
from trainer_torch.storage.remote_files import download_files
from trainer_torch.storage.verification import file_id, find_fault_together

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where the checkpoints of a run are.

    Attributes:
        directory: The directory on this machine, to which checkpoints are downloaded.
        remote: The directory in the store, if there is one.
        name: The name of the checkpoint to resume from, if the user has named one.
        is_own: Whether the training writes there, so that files of trackers are downloaded too.
    """

    directory: Path
    remote: RemoteDirectory | None = None
    name: str | None = None
    is_own: bool = False

    def __str__(self) -> str:
        local = str(self.directory.absolute())
        return local if self.remote is None else f"{self.remote}, with its copy {local},"

    def make_local(self, world: World) -> Path:
        """Return the directory on this machine to look in, or the path of the named checkpoint.

        If the newest checkpoint is in the store, it is downloaded first, once for each machine. So
        is one that is damaged on a machine. Every process must call this.

        Raises:
            ConnectionError: The store cannot be read, and there is no checkpoint on this machine.
            FileNotFoundError: The named checkpoint is neither in the store nor on this machine.
        """
        if self.remote is not None:
            if not self.is_own and self.name is None and world.on_main(self._is_checkpoint):
                return self._as_named().make_local(world)
            sound, faults = self._check_local(world)
            name = world.on_main(lambda: self._download_to_main(sound))
            if name in faults and world.is_main:
                logger.warning(
                    "The local %s was damaged, so it was downloaded again: %s.", name, faults[name]
                )
            if name is not None:
                local = self.directory / name
                seen = world.gather((file_id(local / MANIFEST), written_in(local)))
                is_same, written = seen[world.rank] == seen[0], seen[0][1]
                world.on_each_node(
                    lambda: None if is_same else self._download_to_other(name, written)
                )
        return self.directory if self.name is None else self.directory / self.name

    def _is_checkpoint(self) -> bool:
        """Return whether the address is that of a checkpoint, and not of a directory of them."""
        assert self.remote is not None
        remote, named = self.remote, self._as_named()
        if has_all_files(named.directory / str(named.name)):  # it was downloaded before
            return True
        try:
            return MANIFEST in retried(remote.list_files)
        except Exception:  # as told when the checkpoints are listed
            return False

    def _as_named(self) -> Place:
        """Return the place of the checkpoint at the address, whatever its name is."""
        parent, name = parent_and_name(str(self.remote and self.remote.address))
        return Place(local_copy(parent), RemoteDirectory(parent), name)

    def _check_local(self, world: World) -> tuple[list[str], dict[str, str]]:
        """Return the local checkpoints that may be resumed from, and the faults of others.

        Only the newest are checked, up to one without a fault whose weights are finite. It is the
        first of the result. Each process that sees the disk of the main one checks a part.
        """
        usable = world.on_main(
            lambda: [
                (one.name, has_finite_weights(one))
                for one in self._list_local()
                if has_all_files(one) and not has_only_model(one)
            ]
        )
        sound: list[str] = []
        faults: dict[str, str] = {}
        for name, is_finite in reversed(usable):
            if fault := find_fault_together(world, self.directory / name, of_main=True):
                faults[name] = fault
                continue
            sound.insert(0, name)
            if is_finite:
                break
        return sound, faults

    def _download_to_main(self, sound: list[str]) -> str | None:
        """Download the checkpoint to resume from, unless it is here already, and return its name.

        Other machines need the name even then, because they may lack the checkpoint.

        Args:
            sound: The names of the local checkpoints that may be resumed from, the oldest first.
        """
        assert self.remote is not None
        local = [self.directory / name for name in sound]
        found = self._list_remote(self.remote, bool(local))
        for one in (one for one in found if one.failure):
            logger.warning("Skipped the checkpoint %s: %s.", one, one.find_fault())
        found = [one for one in found if not one.failure]
        best = _newest([one for one in found if one.find_fault() is None])
        if best is None:
            if not local and self.name is not None:
                raise FileNotFoundError(
                    f"Cannot resume: {self} has no complete checkpoint {self.name}. Name another "
                    "one, or the directory, for its newest one."
                )
            return local[-1].name if local else None
        finite = [one for one in local if has_finite_weights(one) or not best.is_finite]
        if finite and written_at(finite[-1]) >= best.written:
            return finite[-1].name
        for one in found:
            if one.written > best.written or one.find_fault() is not None:
                logger.warning(
                    "Skipped the checkpoint %s: %s.",
                    one,
                    one.find_fault() or "its weights are not finite",
                )
        if self.is_own:
            download_files(self.remote, self.directory)
        self.download(best)
        return best.name

    def _download_to_other(self, name: str, written: float | None) -> None:
        """Download the checkpoint `name` to a machine other than the main one, if it lacks it.

        It may have a damaged one, or one of an earlier training, which was `written` at another
        time.
        """
        assert self.remote is not None
        remote, local = self.remote, self.directory / name
        if find_fault(local) is not None or written_in(local) != written:
            checkpoint = retried(lambda: remote.checkpoint(name))
            if checkpoint.find_fault() is None and checkpoint.written == written:
                self.download(checkpoint)

    def _list_local(self) -> list[Path]:
        if self.name is None:
            return list_checkpoints(self.directory)
        return [self.directory / self.name]

    def download(self, checkpoint: RemoteCheckpoint) -> Path:
        """Download `checkpoint` and the best one that it refers to. Return the local path."""
        state = json.loads(retried(lambda: checkpoint.directory.read(f"{checkpoint.name}/{STATE}")))
        best_name = best_named_in(state)
        if best_name not in (None, checkpoint.name):
            best = retried(lambda: checkpoint.directory.checkpoint(str(best_name)))
            local, fault = self.directory / str(best_name), best.find_fault()
            is_here = has_all_files(local)
            if fault is None and not (is_here and written_in(local) == best.written):
                self._download(best)
            elif fault is not None and not is_here:
                logger.warning(
                    "The best checkpoint so far, %s, cannot be downloaded: %s. Training resumes "
                    "without it, so it cannot load that model at its end.",
                    best,
                    fault,
                )
        return self._download(checkpoint)

    def _download(self, checkpoint: RemoteCheckpoint) -> Path:
        to = self.directory / checkpoint.name
        size = sum(checkpoint.sizes.values()) / 1e6
        logger.info("Downloading %s (%.1f MB) to %s.", checkpoint, size, to)
        checkpoint.download(to)
        return to

    def _list_remote(self, remote: RemoteDirectory, has_local: bool) -> list[RemoteCheckpoint]:
        name = self.name
        try:
            if name is None:
                return retried(remote.list_checkpoints)
            checkpoint = retried(lambda: remote.checkpoint(name))
            return [checkpoint] if checkpoint.sizes else []
        except Exception as error:  # each store has errors of its own
            failure = Redaction().of(f"{type(error).__name__}: {error}")
            if not has_local:
                raise ConnectionError(
                    f"Cannot resume: {remote} cannot be read: {failure}. There is no complete "
                    f"checkpoint in {self.directory} either. Check the network and the credentials."
                ) from error
            logger.warning(
                "%s cannot be read: %s. Training resumes from a checkpoint in %s, which may be "
                "older. If that is not what you want, stop it, and check the network and the "
                "credentials.",
                remote,
                failure,
                self.directory,
            )
            return []


def _newest(complete: list[RemoteCheckpoint]) -> RemoteCheckpoint | None:
    """Return the newest checkpoint that can be resumed from, if possible with finite weights."""
    usable = [one for one in complete if not one.has_only_model] or complete
    finite = [one for one in usable if one.is_finite]
    return next(reversed(finite or usable), None)


def find_place(
    resume_from: str | Path | bool, output_dir: str | Path, remote_output_dir: str | None
) -> Place:
    """Return where to look for the checkpoint that `resume_from` names.

    Args:
        resume_from: A checkpoint; or a directory of checkpoints; or `True` for `output_dir`. The
            first two may be addresses.
        output_dir: The directory of this run's checkpoints.
        remote_output_dir: The address of this run's checkpoints, if they have one.

    Raises:
        ModuleNotFoundError: A package for the address is missing.
        ValueError: The address has an unknown protocol.
    """
    own = Path(output_dir)
    if resume_from is True:
        remote = None if remote_output_dir is None else RemoteDirectory(remote_output_dir)
        return Place(own, remote, is_own=True)
    path = Path(str(resume_from)).expanduser()
    if is_address(resume_from):
        address, name = str(resume_from).rstrip("/"), None
        check_address("resume_from_checkpoint", address)
        if is_checkpoint_name(parent_and_name(address)[1]):
            address, name = parent_and_name(address)
        is_own = address == remote_output_dir
        return Place(own if is_own else local_copy(address), RemoteDirectory(address), name, is_own)
    is_in_own = is_checkpoint_name(path.name) and path.parent.absolute() == own.absolute()
    if remote_output_dir is not None and is_in_own:
        return Place(own, RemoteDirectory(remote_output_dir), path.name, is_own=True)
    return Place(path)
