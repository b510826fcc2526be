"""The device to train on: any accelerator that torch knows, or the CPU; and what it can do."""

from __future__ import annotations

import gc
import warnings
from typing import Any, Final

import torch

_OUT_OF_MEMORY: Final = (
    "out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "MODULE:PT_DEVMEM Allocation failed",
)
"""Parts of the messages with which torch's backends report that memory has run out. cuDNN reports a
size that is too large as one that it does not support. Accelerate looks for most of them too."""


def find_device(use_cpu: bool) -> torch.device:
    """Return the accelerator of this machine, such as CUDA, MPS or XPU; or else the CPU."""
    if use_cpu or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def module_of(device: torch.device) -> Any:
    """Return torch's module for the type of `device`, such as `torch.mps`."""
    return torch.get_device_module(device)


def can_pin_memory(device: torch.device) -> bool:
    """Return whether copies from pinned memory to `device` are faster. MPS shares its memory."""
    return device.type not in ("cpu", "mps")


def wait_for(device: torch.device) -> None:
    """Wait until `device`, an accelerator, has done all work that was given to it."""
    torch.accelerator.synchronize(device)


def can_compute_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether `device` can multiply matrices in `dtype`, and autocast does so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast warns of a type that it does not know
        try:
            ones = torch.ones(2, 2, device=device)
            with torch.autocast(device.type, dtype):
                return (ones @ ones).dtype is dtype
        except (RuntimeError, AssertionError, NotImplementedError):
            return False


def has_tf32(device: torch.device) -> bool:
    """Return whether `device` is a GPU of NVIDIA with TensorFloat-32: Ampere or newer."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return bool(module_of(device).get_device_capability() >= (8, 0))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that a device, or the CPU, has run out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _OUT_OF_MEMORY)


def empty_cache(device: torch.device) -> None:
    """Give back to `device` the memory that torch keeps there without using it."""
    if device.type != "cpu" and hasattr(module_of(device), "empty_cache"):
        module_of(device).empty_cache()


def free_memory(device: torch.device) -> None:
    """Free what nothing refers to any more, and empty the cache of `device`."""
    gc.collect()
    empty_cache(device)
