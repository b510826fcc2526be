"""`ThroughputCallback`: logs how fast a training is, and what slows it down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Final

import torch

from callback_core import TrainerControl, TrainerState
from trainer_torch.callbacks.loop_callback import Interval, LoopCallback
from trainer_torch.model.operations import OperationCounter

logger = logging.getLogger(__name__)

PEAK_TFLOPS: Final = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI300X": 1307.0,
    "MI250X": 191.5,
}
"""The most TFLOPs of devices whose names contain a key, with dense matrices of bfloat16, or of
float16 where there is no bfloat16, by the data sheets of their makers. Longer names come first. The
MI250X has two devices."""

_GIB: Final = 2**30


class ThroughputCallback(LoopCallback):
    """Adds to each log of training how fast it was since the last one.

    The time of evaluations and checkpoints does not count. Nothing waits for the device. Values of
    several processes are joined as stated here. What is not known is left out.

    - `samples_per_second` and `tokens_per_second`, of all processes. Tokens are the elements of the
      model's input, as in `include_num_input_tokens_seen`.
    - `tflops`: 10^12 floating point operations per second, of each device, forward and backward.
      `state.total_flos` is their sum so far. They are what `Trainer.floating_point_ops` returns.
      By default, torch's `FlopCounterMode` counts the first step of each shape of batch.
    - `mfu`: the share of the device's peak that is used, from 0 to 1 (model FLOPs utilization,
      arXiv:2204.02311). Activation checkpointing raises it, because what is repeated counts too.
    - `peak_memory_gib`: the most memory that was allocated on a device since the training began;
      on the CPU, the most memory of a process.
    - `data_wait_seconds`: how long the process that waited longest waited for batches.

    Args:
        peak_tflops: The most TFLOPs of a device, in the precision of the training. By default,
            those of `PEAK_TFLOPS`. There are none for CPUs.
        counts_operations: Whether to count operations. A step that is counted is slow.

    Raises:
        ValueError: `peak_tflops` is not a number above 0.
    """

    def __init__(self, peak_tflops: float | None = None, *, counts_operations: bool = True) -> None:
        is_number = isinstance(peak_tflops, Real) and not isinstance(peak_tflops, bool)
        if peak_tflops is not None and not (is_number and peak_tflops > 0):
            raise ValueError(
                f"peak_tflops is {peak_tflops!r}, but must be a number above 0, or None."
            )
        self.peak_tflops = peak_tflops
        self.operation_counter = OperationCounter() if counts_operations else None
        self._peak: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the operations that were counted, so that they are not counted again."""
        return {} if self.operation_counter is None else self.operation_counter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.operation_counter is not None and state:
            self.operation_counter.load_state_dict(state)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the peak of the device. A training that does not resume counts operations again."""
        if state.global_step == 0 and self.operation_counter is not None:
            self.operation_counter.clear()
        self._peak = self.peak_tflops
        device = getattr(args, "device", torch.device("cpu"))
        if self._peak is None and self.operation_counter is not None and device.type != "cpu":
            name = _name_of(device)
            self._peak = peak_of(name)
            if self._peak is None and state.is_world_process_zero:
                logger.warning(
                    "mfu is not logged, because the peak of %r is unknown. Pass "
                    "ThroughputCallback(peak_tflops=...).",
                    name,
                )

    def interval_logs(self, ranks: Sequence[Interval]) -> dict[str, float]:
        """Return the values since the last log."""
        seconds = max(max(one.seconds for one in ranks), 1e-9)
        logs: dict[str, float] = {}
        for name in ("samples", "tokens"):
            counts = [getattr(one, name) for one in ranks]
            if None not in counts:
                logs[f"{name}_per_second"] = sum(counts) / seconds
        if operations := sum(one.operations for one in ranks):
            logs["tflops"] = operations / seconds / len(ranks) / 1e12
            if self._peak is not None:
                logs["mfu"] = logs["tflops"] / self._peak
        if peaks := [one.peak_memory for one in ranks if one.peak_memory is not None]:
            logs["peak_memory_gib"] = max(peaks) / _GIB
        logs["data_wait_seconds"] = max(one.waited for one in ranks)
        return logs


def peak_of(device_name: str) -> float | None:
    """Return the most TFLOPs of the device with this name, if they are known."""
    return next((peak for key, peak in PEAK_TFLOPS.items() if key in device_name), None)


def _name_of(device: torch.device) -> str:
    module = torch.get_device_module(device)
    get_name: Callable[[Any], str] | None = getattr(module, "get_device_name", None)
    return device.type if get_name is None else get_name(device)
