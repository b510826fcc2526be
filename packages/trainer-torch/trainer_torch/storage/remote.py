"""`RemoteDirectory`: checkpoints and other files at an address of fsspec.

A store cannot rename, so a checkpoint counts as published once its manifest is there: the manifest
is uploaded last, and removed first. A checkpoint without a manifest, or with a file of another
size, is not complete.
"""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from callback_core.tracking import Redaction
from trainer_torch.addresses import joined, shown
from trainer_torch.storage.checkpoint import (
    MANIFEST,
    checkpoint_step,
    find_fault,
    is_checkpoint_name,
    manifest_has_only_model,
    manifest_is_finite,
    parse_manifest,
    read_manifest,
)
from trainer_torch.storage.checkpoint_writing import publish

logger = logging.getLogger(__name__)

_TRIES: Final = 3
"""How often a read is attempted before its failure is an error."""

_PAUSE: Final = 1.0
"""The seconds before the second attempt. They double for each further one."""

T = TypeVar("T")


class RemoteDirectory:
    """A directory in a store.

    Args:
        address: Its address.
        progressed: A function that gets the path of a file that is being uploaded, and how many
            bytes of it are.
    """

    def __init__(self, address: str, progressed: Callable[[str, int], None] | None = None) -> None:
        self.address = address.rstrip("/")
        self._progressed = progressed

    def __str__(self) -> str:
        return shown(self.address)

    def list_files(self, under: str = "") -> dict[str, int]:
        """Return the sizes of the files in the directory by their relative paths.

        Args:
            under: The relative path of a directory to which the list is limited.
        """
        fs, root = self._connect()
        fs.invalidate_cache()
        path = f"{root}/{under}" if under else root
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(root) :].lstrip("/"): int(info["size"]) for name, info in found.items()}

    def list_checkpoints(self) -> list[RemoteCheckpoint]:
        """Return the checkpoints, the oldest first. Those without a manifest come before all.

        One whose manifest cannot be read has a `failure`, unless none can be read.
        """
        by_name: dict[str, dict[str, int]] = {}
        for path, size in self.list_files().items():
            name, _, inside = path.partition("/")
            if inside and is_checkpoint_name(name):
                by_name.setdefault(name, {})[inside] = size
        found: list[RemoteCheckpoint] = []
        failed: dict[str, Exception] = {}
        for name, sizes in by_name.items():
            try:
                found.append(self._checkpoint(name, sizes))
            except Exception as error:  # each store has errors of its own
                failed[name] = error
        for name, failure in failed.items():
            if not any(one.content for one in found):
                raise failure
            found.append(self._checkpoint_or_failure(name, by_name[name]))
        return sorted(found, key=lambda one: (one.written, checkpoint_step(one.name)))

    def checkpoint(self, name: str) -> RemoteCheckpoint:
        """Return the checkpoint `name`, which need not exist."""
        sizes = {path[len(name) + 1 :]: size for path, size in self.list_files(name).items()}
        return self._checkpoint(name, sizes)

    def read(self, path: str) -> bytes:
        """Return the content of the file at the relative `path`."""
        fs, root = self._connect()
        return bytes(fs.cat_file(f"{root}/{path}"))

    def download(self, path: str, to: Path) -> None:
        """Write the file at the relative `path` to the local path `to`."""
        fs, root = self._connect()
        to.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(f"{root}/{path}", str(to))

    def upload(self, file: Path, path: str) -> None:
        """Write the local `file` to the relative `path`.

        Directories are made where the store needs them, but never a bucket.
        """
        fs, root = self._connect()
        target = f"{root}/{path}"
        self._put(target, lambda: fs.put_file(str(file), target, callback=self._callback(path)))

    def write(self, path: str, content: bytes) -> None:
        """Write `content` to the relative `path`. Directories are made as by `upload`."""
        fs, root = self._connect()
        target = f"{root}/{path}"
        self._put(target, lambda: fs.pipe_file(target, content))

    def remove_checkpoint(self, name: str) -> None:
        """Remove the checkpoint `name`, its manifest first."""
        fs, root = self._connect()
        paths = [PurePosixPath(path) for path in self.list_files(name)]
        for path in sorted(paths, key=lambda path: path != PurePosixPath(name, MANIFEST)):
            with suppress(FileNotFoundError):  # it was just removed
                fs.rm_file(f"{root}/{path}")  # fs.rm would expand brackets and stars
        folders = {folder for path in paths for folder in path.parents} - {PurePosixPath()}
        if root.startswith("/"):  # buckets have no directories
            for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
                with suppress(OSError):  # without files, it is no checkpoint anyway
                    fs.rmdir(f"{root}/{folder}")

    def _checkpoint(self, name: str, sizes: Mapping[str, int]) -> RemoteCheckpoint:
        content = b""
        if MANIFEST in sizes:
            with suppress(FileNotFoundError):  # it was just removed
                content = self.read(f"{name}/{MANIFEST}")
        return RemoteCheckpoint(self, name, content, sizes)

    def _checkpoint_or_failure(self, name: str, sizes: Mapping[str, int]) -> RemoteCheckpoint:
        try:
            return retried(lambda: self._checkpoint(name, sizes))
        except Exception as error:
            failure = str(Redaction().of(f"{type(error).__name__}: {error}"))
            return RemoteCheckpoint(self, name, b"", sizes, failure)

    def _connect(self) -> tuple[Any, str]:
        """Return this thread's file system, which fsspec caches, and the path in it."""
        from fsspec.core import url_to_fs  # here, because few trainings need it

        fs, root = url_to_fs(self.address)
        return fs, str(root).rstrip("/")

    def _put(self, target: str, put: Callable[[], None]) -> None:
        """Call `put`, and once more if the directory of `target` has to be made first."""
        try:
            put()
        except FileNotFoundError:
            fs, _ = self._connect()
            _make_directory(fs, target.rpartition("/")[0])
            put()

    def _callback(self, path: str) -> Any:
        from fsspec.callbacks import Callback

        progressed = self._progressed

        def report(size: int | None, value: int) -> None:
            if progressed is not None:
                progressed(path, value)

        return Callback(hooks={"progress": report})


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A checkpoint in a store.

    Attributes:
        directory: The directory that it is in.
        name: Its name there.
        content: The content of its manifest; empty if it has none.
        sizes: The sizes of its files in the store.
        failure: Why its manifest could not be read; empty if that did not fail.
    """

    directory: RemoteDirectory
    name: str
    content: bytes = field(repr=False)
    sizes: Mapping[str, int] = field(repr=False)
    failure: str = ""

    def __str__(self) -> str:
        return shown(joined(self.directory.address, self.name))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Its manifest; empty if it has none, or one that is not valid."""
        return parse_manifest(self.content)

    @property
    def written(self) -> float:
        """The time at which it was written, in seconds since 1970; 0 if it is not known."""
        return float(self.manifest.get("written", 0.0))

    @property
    def is_finite(self) -> bool:
        """Whether its weights are finite."""
        return manifest_is_finite(self.manifest)

    @property
    def has_only_model(self) -> bool:
        """Whether it was saved with `save_only_model`."""
        return manifest_has_only_model(self.manifest)

    def find_fault(self) -> str | None:
        """Return why the checkpoint is incomplete, or `None` if all files have the right sizes."""
        if not self.sizes:
            return "there is no such checkpoint"
        if self.failure:
            return f"its {MANIFEST} cannot be read: {self.failure}"
        listed = self.manifest.get("files")
        if not isinstance(listed, dict):
            return f"it has no valid {MANIFEST}, so it was not uploaded completely"
        for name in listed:
            if _leads_outside(name):
                return f"its {MANIFEST} names {name!r}, which is not in the checkpoint"
        return size_fault(listed, self.sizes)

    def download(self, to: Path) -> None:
        """Download the checkpoint to the local path `to`, where it appears complete or not at all.

        Raises:
            OSError: It differs from its manifest, even after it was downloaded again.
        """
        part = to.with_name(f".{to.name}.{socket.gethostname()}.download")
        if part.exists():  # of a process that was killed
            shutil.rmtree(part)
        try:
            part.mkdir(parents=True)
            for attempt in range(1, _TRIES + 1):
                for name in self.manifest["files"]:
                    self._download(name, part / name)
                (part / MANIFEST).write_bytes(self.content)
                if (fault := find_fault(part)) is None:
                    break
                if attempt == _TRIES:
                    raise OSError(
                        f"{self} was downloaded {_TRIES} times, but cannot be used: {fault}. "
                        "Resume from another checkpoint."
                    )
            if read_manifest(to) == self.manifest and find_fault(to) is None:
                return  # another process was faster
            self._download_added(part)
            publish(to, part)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _download_added(self, to: Path) -> None:
        """Download what callbacks added to the checkpoint, as far as that is possible."""
        for name in sorted(self.sizes.keys() - self.manifest["files"].keys() - {MANIFEST}):
            if _leads_outside(name) or name.endswith("/"):  # some stores list directories
                continue
            try:
                self._download(name, to / name)
            except Exception as error:  # each store has errors of its own
                logger.warning(
                    "%s of %s cannot be downloaded: %s. A callback added this file, and may miss "
                    "it. The checkpoint is complete without it.",
                    name,
                    self,
                    Redaction().of(f"{type(error).__name__}: {error}"),
                )

    def _download(self, name: str, to: Path) -> None:
        retried(lambda: self.directory.download(f"{self.name}/{name}", to))


def retried(do: Callable[[], T]) -> T:
    """Return what `do` returns. It is tried three times, with growing pauses."""
    for attempt in range(1, _TRIES):
        try:
            return do()
        except Exception as error:  # each store has errors of its own
            logger.debug("Attempt %d of %d failed: %r", attempt, _TRIES, error)
            time.sleep(_PAUSE * 2 ** (attempt - 1))
    return do()


def size_fault(listed: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """Return which of the `listed` files is missing or has another size, or `None`."""
    for name, entry in listed.items():
        if name not in sizes:
            return f"{name} is missing"
        if sizes[name] != entry["size"]:
            return f"{name} has {sizes[name]} bytes instead of {entry['size']}"
    return None


def _leads_outside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _make_directory(fs: Any, path: str) -> None:
    """Make the directory `path` and those above it, but no bucket.

    In stores with buckets, a path does not begin with a slash, and its first part is the bucket.
    """
    parent = path.rpartition("/")[0]
    try:
        fs.mkdir(path, create_parents=False)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not parent.strip("/") or ("/" not in parent and not path.startswith("/")):
            raise
        _make_directory(fs, parent)
        fs.mkdir(path, create_parents=False)
