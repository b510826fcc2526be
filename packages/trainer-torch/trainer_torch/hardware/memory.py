"""The memory that a training takes: of its device, and of its process."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far: of `device`, and on Linux of the process."""
    module = _module(device)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats()
    with suppress(OSError):  # proc(5): 5 resets the peak of the resident set
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that were allocated on `device` since the last reset.

    On the CPU, return the peak of the process. Returns `None` if neither is known. Reading it does
    not wait for the device.
    """
    module = _module(device)
    if module is None:
        return peak_of_process()
    return module.max_memory_allocated() if hasattr(module, "max_memory_allocated") else None


def peak_of_process() -> int | None:
    """Return the most bytes of memory that this process had, or `None` if that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class MemoryMetrics:
    """The metrics of transformers' `skip_memory_metrics=False` for a training, in bytes.

    `train_mem_gpu_alloc_delta` and `train_mem_cpu_alloc_delta` are what the training has allocated
    and not released. The peaks above that are in `train_mem_gpu_peaked_delta` and
    `train_mem_cpu_peaked_delta`. `gpu` is whatever accelerator trains, and `cpu` the memory of the
    process. Unlike in transformers, no thread watches the memory: the system keeps the peak.

    Args:
        device: The device of the training, which begins now.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        reset_peak(device)
        self._before = self._used()

    def collect(self) -> dict[str, int]:
        """Return the metrics, as far as the system tells them."""
        used, metrics = self._used(), {}
        peaks = {"gpu": peak_memory(self._device), "cpu": peak_of_process()}
        for kind, before in self._before.items():
            metrics[f"train_mem_{kind}_alloc_delta"] = used[kind] - before
            if (peak := peaks[kind]) is not None:
                metrics[f"train_mem_{kind}_peaked_delta"] = max(0, peak - used[kind])
        return metrics

    def _used(self) -> dict[str, int]:
        used: dict[str, int] = {}
        module = _module(self._device)
        if hasattr(module, "memory_allocated"):
            used["gpu"] = module.memory_allocated()
        with suppress(OSError, ValueError, IndexError):  # another system than Linux
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            used["cpu"] = pages * _page_size()
        return used


def _page_size() -> int:
    import resource

    return resource.getpagesize()


def _module(device: torch.device) -> Any:
    """Return the module of torch for the kind of `device`, such as `torch.cuda`."""
    return None if device.type == "cpu" else torch.get_device_module(device)
