"""Accumulation: weights the losses of the batches in an update step like those of one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from trainer_torch.data.batches import describe, labels_of, map_leaves
from trainer_torch.overrides import parameters_of
from trainer_torch.ranks.world import World

IGNORED_LABEL: Final = -100
"""The label that losses leave out: the default `ignore_index` of torch's cross-entropy."""

_NUM_ITEMS: Final = "num_items_in_batch"


class Shares(NamedTuple):
    """How the losses of the batches in an update step are put together.

    Attributes:
        num_items: The number of items in the whole step, such as tokens, by which losses are
            divided; `None` if the losses are means.
        divisors: By what the loss of each batch is divided before it is added to the others.
        are_known: Whether the number of items in each batch is known.
    """

    num_items: int | None
    divisors: list[float]
    are_known: bool = True


def count_items(
    batch: Any,
    size: int | None,
    label_names: Sequence[str] | None,
    *,
    shifts_labels: bool = False,
    warn: Callable[[str, str], None] | None = None,
) -> int | None:
    """Return the number of items over which a mean loss of `batch` is usually taken.

    With labels that are whole numbers, these are the labels that are not -100: tokens or classes.
    Otherwise, they are the samples.

    Args:
        batch: A batch.
        size: The number of samples in it, if known.
        label_names: The names of the labels instead of `labels`.
        shifts_labels: Whether the first label of each sequence is no target, as in causal language
            models that shift the labels themselves.
        warn: Called with a warning, and with what it is about, if the samples are counted, although
            the batch may have labels of another name for each of its tokens.
    """
    shifted = batch.get("shift_labels") if isinstance(batch, Mapping) else None
    labels = labels_of(batch, label_names) if shifted is None else shifted
    counts: list[int | None] = []

    def count(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.is_floating_point() or value.ndim == 0:
            counts.append(None)
            return value
        if shifts_labels and shifted is None:
            value = value[..., 1:]
        counts.append(int((value != IGNORED_LABEL).sum()))
        return value

    if labels is not None:
        map_leaves(count, labels)
    elif warn is not None and has_tokens(batch):
        warn(
            "Losses are weighted by the samples in their batches, because these have no labels: "
            f"the first one is {describe(batch)}. If the loss is a mean over tokens, name the "
            "labels in label_names, or override count_items of the Trainer.",
            "the weights of batches without labels",
        )
    known = [one for one in counts if one is not None]
    return sum(known) if known and len(known) == len(counts) else size


def has_tokens(batch: Any) -> bool:
    """Return whether `batch` has whole numbers in two or more dimensions, such as tokens."""
    found: list[bool] = []

    def look(value: Any) -> Any:
        kinds = (torch.int16, torch.int32, torch.int64)
        found.append(isinstance(value, Tensor) and value.ndim >= 2 and value.dtype in kinds)
        return value

    map_leaves(look, batch, is_leaf=lambda value: isinstance(value, Tensor))
    return any(found)


def share_out(
    items: Sequence[int | None], world: World, across_devices: bool, scales_loss: bool
) -> Shares:
    """Return how to put the losses of the batches in an update step together.

    The gradient is then that of one batch with all of their items. If a number is unknown, the
    losses have to be means, and all batches count alike.

    Args:
        items: The number of items in each batch of this process.
        world: The processes. Their gradients are averaged.
        across_devices: Whether an item counts alike in all processes. Otherwise, each process
            counts alike.
        scales_loss: Whether losses are sums that are divided by the number of items. Otherwise,
            they are means.
    """
    own = [one for one in items if one is not None]
    shared = world.size if across_devices else 1
    total, unknown = sum(own), len(items) - len(own)
    if shared > 1:
        total, unknown = world.add([total, unknown])
    if unknown:
        return Shares(None, [float(len(items))] * len(items), are_known=False)
    if scales_loss:
        return Shares(max(1, total), [1 / shared] * len(items))
    return Shares(None, [total / (one * shared) if one else math.inf for one in own])


def takes_num_items(function: Callable[..., Any] | None) -> bool:
    """Return whether `function` has a parameter `num_items_in_batch`."""
    return function is not None and _NUM_ITEMS in parameters_of(function).names


def accepts_loss_kwargs(model: nn.Module) -> bool:
    """Return whether `model` divides its loss by a `num_items_in_batch` that `forward` receives.

    It says so by an attribute `accepts_loss_kwargs`, as in transformers, or has a parameter of that
    name. Models of transformers with `**kwargs` pass it to their `loss_function`. Other models with
    `**kwargs` might ignore it.
    """
    said = getattr(model, "accepts_loss_kwargs", None)
    if said is not None:
        return bool(said)
    if takes_num_items(model.forward):
        return True
    passes_on = parameters_of(model.forward).takes_any
    return passes_on and callable(getattr(model, "loss_function", None))


def shifts_labels(model: nn.Module) -> bool:
    """Return whether `model` shifts labels, as causal language models of transformers do."""
    is_decoder = not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return getattr(model, "loss_type", None) == "ForCausalLM" and is_decoder


def part_of_step(loss: Tensor, divisor: float) -> Tensor:
    """Return what the `loss` of a batch adds to the loss of its update step.

    A batch without items, whose mean is NaN, adds 0.
    """
    if divisor == math.inf:
        return torch.nan_to_num(loss) * 0.0
    return loss if divisor == 1 else loss / divisor
