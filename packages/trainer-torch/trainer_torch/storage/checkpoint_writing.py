"""Writes checkpoints under a temporary name, and publishes them in one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, cast

import torch
from safetensors.torch import save_file

from callback_core import TrainerState
from trainer_torch.storage.checkpoint import sync, write_json, write_manifest

_BLOCK: Final = 1 << 20
"""The bytes that are written at once. Between two blocks, other threads can run."""


def write_unpublished(
    final: Path, contents: Mapping[str, Any], finite: bool, written: float
) -> None:
    """Write a complete checkpoint with its manifest, under a temporary name beside `final`.

    If this fails, it removes what it has written.

    Args:
        final: The path that `publish` will give it.
        contents: The values of its files, by name.
        finite: Whether its weights are finite.
        written: The time to write into its manifest, in seconds since 1970.
    """
    discard_unpublished(final)  # left by a process that was killed while saving
    part = temporary_path(final)
    try:
        part.mkdir(parents=True)
        for name, value in contents.items():
            write_file(part / name, value)
        write_manifest(part, finite, written)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def publish(final: Path, part: Path | None = None) -> None:
    """Give a checkpoint its final name. An older one of that name is replaced.

    Args:
        final: The path to give it.
        part: Its present path; by default that of `write_unpublished`.
    """
    part = temporary_path(final) if part is None else part
    replaced = final.with_name(f".{final.name}.replaced")
    if os.path.lexists(replaced):  # left by a process that was killed while saving
        remove(replaced)
    if os.path.lexists(final):
        final.rename(replaced)
    try:
        part.rename(final)
    except OSError:
        if os.path.lexists(replaced):
            replaced.rename(final)
        raise
    sync(final.parent)
    if os.path.lexists(replaced):
        with suppress(OSError):
            remove(replaced)


def remove(path: Path) -> None:
    """Delete a directory, a file, or a link but not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def clear_leftovers(output_dir: Path) -> None:
    """Put right what processes that were killed while they saved have left in `output_dir`.

    Unfinished downloads may be those of other machines.

    A checkpoint that was about to be replaced gets its name again. What was not finished is
    deleted, as far as the disk allows.
    """
    for replaced in output_dir.glob(".checkpoint-*.replaced"):
        final = replaced.with_name(replaced.stem.removeprefix("."))
        with suppress(OSError):
            if not final.exists():
                replaced.rename(final)
    for kind in ("part", "replaced", "deleted", "download"):
        for leftover in output_dir.glob(f".checkpoint-*.{kind}"):
            with suppress(OSError):
                remove(leftover)


def discard_unpublished(final: Path) -> None:
    """Delete what was written for `final` under its temporary name, if anything."""
    if temporary_path(final).exists():
        shutil.rmtree(temporary_path(final))


def temporary_path(final: Path) -> Path:
    """Return the path under which the checkpoint `final` is written."""
    return final.with_name(f".{final.name}.part")


def write_file(path: Path, value: Any) -> None:
    """Write `value` in the format that the suffix of `path` names."""
    if isinstance(value, TrainerState):
        value.save_to_json(path)
    elif path.suffix == ".json":
        write_json(path, value)
    elif path.suffix == ".safetensors":
        save_file(value.tensors, str(path), value.metadata)
    else:
        with path.open("wb", buffering=0) as opened:
            file = _File(opened.fileno())
            torch.save(value, cast("IO[bytes]", file))
            file.check()


class _File:
    """A file for `torch.save` that keeps the error of the operating system.

    If torch opens a path itself, its error does not say what has failed. Its writer is C++, so
    errors are not raised within it: `check` raises them afterwards.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        """Write `content`, unless an earlier write has failed."""
        view = memoryview(content)
        done = 0
        while done < len(view) and self._error is None:
            try:
                done += os.write(self._number, view[done : done + _BLOCK])
            except OSError as error:
                self._error = error
        return len(view)

    def flush(self) -> None:
        """Do nothing, because nothing is buffered here."""

    def check(self) -> None:
        """Raise the error of the first write that failed, if one did."""
        if self._error is not None:
            raise self._error
