"""`Staging`: copies of tensors in the memory of the CPU, in buffers that are reused."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from trainer_torch.hardware.devices import can_pin_memory, wait_for
from trainer_torch.wrapping import is_distributed

_of_thread: Final = threading.local()


class Staged(NamedTuple):
    """A copy of values, and the devices that its tensors came from.

    Attributes:
        values: The copy. Its tensors are in the memory of the CPU.
        places: The device of each original storage, as `torch.save` names it, by the address of the
            copy of that storage.
    """

    values: Any
    places: dict[int, str]

    @contextmanager
    def written_as_before(self) -> Iterator[None]:
        """Return a context in which `torch.save` writes the original devices of the tensors."""
        _of_thread.places = self.places
        try:
            yield
        finally:
            _of_thread.places = {}


class Staging:
    """Copies values with their tensors, and keeps the buffers of the copies.

    Tensors that share memory share it in the copy too, and each tensor keeps its strides. Of a
    DTensor, the part of this process is copied. Values that are neither tensors nor containers are
    copied by `deepcopy`.

    The next copy reuses the memory, so a copy is valid until then. Memory is pinned where that
    makes copying faster.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, bool], list[torch.UntypedStorage]] = {}

    def copy(self, values: Any) -> Staged:
        """Return a copy of `values`, once all of it has been copied."""
        copying = _Copying(self._buffers)
        copied = copying.of(values)
        for device in copying.devices:
            wait_for(device)
        self._buffers = copying.used  # buffers that were not used again are freed
        return Staged(copied, copying.places)

    def clear(self) -> None:
        """Free the buffers."""
        self._buffers = {}


class _Copying:
    """One copy of several values.

    Args:
        free: The buffers that may be reused, by their size in bytes and whether they are pinned.

    Attributes:
        used: The buffers that the copy uses.
        devices: The accelerators from which tensors are copied.
        places: As in `Staged`.
    """

    def __init__(self, free: dict[tuple[int, bool], list[torch.UntypedStorage]]) -> None:
        self._free = free
        self._storages: dict[tuple[torch.device, int, int], torch.UntypedStorage] = {}
        self.used: dict[tuple[int, bool], list[torch.UntypedStorage]] = {}
        self.devices: set[torch.device] = set()
        self.places: dict[int, str] = {}

    def of(self, value: Any) -> Any:
        """Return the copy of `value`."""
        if type(value) in (Tensor, nn.Parameter) and _has_plain_memory(value):
            return self._of_tensor(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.of, value))
        if type(value) in (list, tuple):
            return type(value)(map(self.of, value))
        if isinstance(value, dict) and not _has_attributes(value):
            copied = copy.copy(value)  # keeps the class, and its default factory
            for key, item in value.items():
                copied[key] = self.of(item)
            return copied
        if is_distributed(value):
            return self._of_part(value)
        if isinstance(value, Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad)
        return copy.deepcopy(value)

    def _of_tensor(self, value: Tensor) -> Tensor:
        copied = torch.empty(0, dtype=value.dtype)
        storage = self._of_storage(value.untyped_storage())
        copied.set_(storage, value.storage_offset(), value.shape, value.stride())
        if type(value) is nn.Parameter:
            return nn.Parameter(copied, value.requires_grad)
        return copied.requires_grad_(value.requires_grad)

    def _of_part(self, value: Any) -> Tensor:
        # This is the protocol of tensors that wrap others. `from_local` would move the copy to the
        # device of the mesh.
        names, rest = value.__tensor_flatten__()
        inner = {name: getattr(value, name) for name in names}
        copied = {
            name: self.of(one) if isinstance(one, Tensor) else one for name, one in inner.items()
        }
        rebuilt: Tensor = value.__tensor_unflatten__(copied, rest, value.shape, value.stride())
        return rebuilt

    def _of_storage(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        device, size = storage.device, storage.nbytes()
        key = device, storage.data_ptr(), size
        if size == 0 or key not in self._storages:
            self._storages[key] = self._buffer(size, can_pin_memory(device) and size > 0)
            self._storages[key].copy_(storage, non_blocking=device.type != "cpu")
            if device.type != "cpu":
                self.devices.add(device)
                self.places[self._storages[key].data_ptr()] = str(device)
        return self._storages[key]

    def _buffer(self, size: int, is_pinned: bool) -> torch.UntypedStorage:
        kind = size, is_pinned
        if self._free.get(kind):
            buffer = self._free[kind].pop()
        else:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned).untyped_storage()
        self.used.setdefault(kind, []).append(buffer)
        return buffer


def _has_plain_memory(value: Tensor) -> bool:
    """Return whether `value` is described by its memory and strides alone."""
    return not (
        value.layout is not torch.strided
        or value.is_meta
        or value.is_quantized
        or value.is_conj()
        or value.is_neg()
        or _has_attributes(value)
    )


def _has_attributes(value: Any) -> bool:
    return bool(getattr(value, "__dict__", None))


def _tag(storage: Any) -> str | None:
    places: Mapping[int, str] = getattr(_of_thread, "places", {})
    return places.get(storage.data_ptr()) if places else None


def _restore(storage: Any, location: str) -> None:
    """Do nothing: torch itself restores what it loads."""


# torch calls these before its own functions, whose priorities begin at 10.
torch.serialization.register_package(0, _tag, _restore)
