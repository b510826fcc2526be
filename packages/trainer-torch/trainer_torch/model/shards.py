"""Sharded tensors on disk, in the format of `torch.distributed.checkpoint`.

Each process writes its part. Any number of processes can read them: each reads what it needs.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from trainer_torch.wrapping import is_distributed

SHARDS: Final = "shards"
"""The folder of a checkpoint that holds the weights and the state of the optimizer."""

METADATA: Final = ".metadata"
"""The file, in such a folder, that says what the others hold."""

_FORMAT: Final = "torch.distributed.checkpoint."
_OF_METADATA: Final = {
    **{
        f"{_FORMAT}metadata": (
            *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata"),
            *("ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"),
        ),
        f"{_FORMAT}filesystem": ("_StorageInfo",),
        "pathlib": ("Path", "PosixPath", "PurePosixPath", "WindowsPath"),
        "pathlib._local": ("Path", "PosixPath", "PurePosixPath", "WindowsPath"),
        "torch": ("Size",),
        "torch.serialization": ("_get_layout",),
        "collections": ("OrderedDict",),
    },
}
"""The names that the metadata of shards may use, besides the dtypes of torch: by module."""


class Shards(NamedTuple):
    """The content of a folder of shards: tensors by name. Each process has a part of each.

    A tensor that is not sharded is that of the main process.
    """

    tensors: dict[str, Tensor]


def write_shards(
    folder: Path,
    shards: Shards,
    group: Any,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Write the part of this process. All processes of `group` must call this together.

    Args:
        folder: The folder.
        shards: Its content.
        group: The processes. Without it, this process is the only one.
        waiting: Returns a context that is entered while this process waits for the others, and
            again within it while it writes.

    Raises:
        OSError: The disk of a process has failed. All processes raise this.
        RuntimeError: A process has failed for another reason. All processes raise this.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    class Writer(FileSystemWriter):
        """Raises the error of the disk, and not what torch's writer then makes of it."""

        def write_data(self, *args: Any, **kwargs: Any) -> Any:
            try:
                with waiting():
                    return super().write_data(*args, **kwargs)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    options = {"process_group": group, "no_dist": group is None}
    is_main = group is None or group.rank() == 0
    # If several processes have a tensor, torch chooses one of them, and their buffers differ.
    own = {name: one for name, one in shards.tensors.items() if is_main or is_distributed(one)}
    with _quiet(), waiting():
        try:
            save(own, storage_writer=Writer(folder), **options)
        except CheckpointException as error:  # it derives from BaseException only
            rank, (failure, _) = next(iter(error.failures.items()))
            message = f"Rank {rank} could not write its part of {folder}: {failure!r}"
            if isinstance(failure, OSError) and failure.errno is not None:
                raise OSError(failure.errno, message) from failure
            raise RuntimeError(message) from failure


def shapes_of_shards(folder: Path) -> dict[str, Tensor]:
    """Return tensors without memory that have the names, shapes and types of those in `folder`.

    Raises:
        ValueError: Its metadata is damaged, or has objects that metadata never has.
    """
    described = _reader(folder).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in described.items()
        if hasattr(one, "properties")
    }


def read_shards(folder: Path, wanted: Mapping[str, Tensor]) -> None:
    """Set the tensors in `wanted` to those with their names in `folder`.

    They may be on other devices than when they were saved, and sharded over another number of
    processes. A process reads only what it needs.
    """
    from torch.distributed.checkpoint.state_dict_loader import load

    with _quiet():
        # The processes need not agree on anything: each reads for itself.
        load(dict(wanted), storage_reader=_reader(folder), no_dist=True)


def empty_like_shard(shape_of: Tensor, like: Tensor | None, device: torch.device) -> Tensor:
    """Return a tensor to read into, sharded like `like` if that is sharded and has the same shape.

    Args:
        shape_of: A tensor with the shape and the dtype.
        like: A weight, or `None`.
        device: The device of the tensor, if it is not sharded.
    """
    if like is None or not is_distributed(like) or like.shape != shape_of.shape:
        return torch.empty(shape_of.shape, dtype=shape_of.dtype, device=device)
    return torch.empty_like(like, dtype=shape_of.dtype)


def shard_like(whole: Tensor, like: Tensor | None) -> Tensor:
    """Return `whole`, sharded like `like` if that is sharded and has the same shape."""
    if like is None or not is_distributed(like) or like.shape != whole.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    own: Any = like
    whole = whole.to(own.to_local().device)
    options: dict[str, Any] = {}
    if "src_data_rank" in signature(distribute_tensor).parameters:  # from torch 2.7 on
        options["src_data_rank"] = None  # nothing is sent: each process has read all of it
    return distribute_tensor(whole, own.device_mesh, own.placements, **options)


class _Unpickler(pickle.Unpickler):
    """Reads metadata, and refuses all other objects, because a pickle may run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object `name` of `module`, if metadata may have it."""
        if name in _OF_METADATA.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which metadata never does")


def _reader(folder: Path) -> Any:
    """Return a reader of `folder` that does not unpickle what could run code."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    class Reader(FileSystemReader):
        """Reads the metadata by an unpickler that refuses other objects."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            try:
                with (folder / METADATA).open("rb") as file:
                    metadata = _Unpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
                raise ValueError(f"{folder / METADATA} is damaged: {error}.") from error
            metadata.storage_meta = None
            return metadata

    return Reader(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore torch's warnings that one process reads alone, and that its format may change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed")
        yield
