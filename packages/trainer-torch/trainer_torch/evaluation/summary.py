"""The summary of an evaluation or a training: the mean loss and the speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from trainer_torch.ranks.world import World, interleave

METRICS: Final = ("loss", "runtime", "samples_per_second", "steps_per_second")
"""The metrics of an evaluation without `compute_metrics`."""

_LOSSES_ON_DEVICE: Final = 1000
"""The number of batches whose losses are fetched from the device at once."""


@dataclass
class Seen:
    """What one rank notes of its batches."""

    sizes: list[int | None] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)
    has_labels: bool = False
    batch: str = ""
    """What the first batch consists of."""

    def add(self, size: int | None, loss: Any) -> None:
        """Note a batch. Its loss stays on a GPU for a while, so as not to wait for it.

        A loss on a CPU becomes a number at once, because a small tensor that stays there holds up
        the memory of the batch around it.
        """
        self.sizes.append(size)
        is_on_cpu = isinstance(loss, Tensor) and loss.device.type == "cpu"
        self.losses.append(float(loss) if is_on_cpu else loss)
        if len(self.losses) % _LOSSES_ON_DEVICE == 0:
            self.fetch_losses()

    def fetch_losses(self) -> None:
        """Convert the losses that are on a device to numbers."""
        self.losses = [float(loss) if isinstance(loss, Tensor) else loss for loss in self.losses]

    def of_all_ranks(self, world: World) -> tuple[Seen, int]:
        """Return what all ranks noted, in the order of the data, and the most batches of a rank.

        Raises:
            ValueError: There is no batch.
        """
        self.fetch_losses()
        ranks = world.gather(self)
        seen = Seen(
            interleave([rank.sizes for rank in ranks]),
            interleave([rank.losses for rank in ranks]),
            any(rank.has_labels for rank in ranks),
            ranks[0].batch,
        )
        if not seen.sizes:
            raise ValueError("There is nothing to evaluate: the dataset is empty.")
        return seen, max(len(rank.sizes) for rank in ranks)

    def mean_loss(self) -> dict[str, float]:
        """Return the mean loss over all samples as `loss`; nothing if there are no losses.

        Raises:
            ValueError: Some batches have no loss, or an unknown number of samples.
        """
        if all(loss is None for loss in self.losses):
            return {}
        return {"loss": _mean_loss(self.losses, self.sizes, self.batch)}


def _mean_loss(losses: list[float | None], sizes: list[int | None], batch: str) -> float:
    """Return the mean over all samples of `losses`, the means over the samples in each batch."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(losses):
        raise ValueError(
            f"{len(known)} of {len(losses)} batches have a loss, and the others have none, so this "
            "evaluation has no mean loss. Return a loss for each batch or for none."
        )
    if len(known) == 1:
        return known[0]
    weights = [size for size in sizes if size is not None]
    if len(weights) < len(sizes):
        raise unknown_size(batch)
    pairs = [(loss, weight) for loss, weight in zip(known, weights, strict=True) if weight > 0]
    return sum(loss * weight for loss, weight in pairs) / (sum(weights) or math.nan)


def unknown_size(batch: str) -> ValueError:
    """Return the error for losses that cannot be weighted by the samples of their batches.

    Args:
        batch: What the first batch consists of.
    """
    return ValueError(
        "The mean loss of an evaluation cannot be computed, because the number of samples in each "
        f"batch is unknown. The first batch is {batch}. Its tensors have different lengths, and "
        "its data loader does not say. Name the labels in label_names, or override get_batch_size "
        "of the Trainer."
    )


def sum_known(sizes: list[int | None]) -> int | None:
    """Return the sum of `sizes`, or `None` if one of them is unknown."""
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def speed_metrics(
    start_time: float, sizes: list[int | None], steps: int | None, warn: Callable[[str], None]
) -> dict[str, float]:
    """Return the seconds since `start_time`, and the samples and steps per second.

    The samples are the sum of `sizes`. If one of these is unknown, their rate is left out, with a
    warning. Without `steps`, the rate of steps is left out, without a warning.
    """
    samples = sum_known(sizes)
    if samples is None:
        warn(
            "samples_per_second is left out, because the number of samples in a batch is unknown: "
            "its tensors have different lengths, and its data loader does not say. Override "
            "get_batch_size of the Trainer."
        )
    runtime = time.perf_counter() - start_time
    metrics = {"runtime": round(runtime, 4)}
    if samples is not None:
        metrics["samples_per_second"] = round(samples / runtime, 3)
    if steps is not None:
        metrics["steps_per_second"] = round(steps / runtime, 3)
    return metrics
