"""Inputs and outputs of a model: finds the loss, the predictions, the labels and the batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from callback_core import scalar

ComputeLoss = Callable[[nn.Module, Any], Any]
"""Takes the model and a batch on its device. Returns the loss, or the loss and predictions."""


def forward(model: nn.Module, batch: Any) -> Any:
    """Call `model` with `batch`: a mapping by keyword, a tuple or list by position."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def split_output(output: Any) -> tuple[Tensor | None, Any]:
    """Return the loss and the predictions in what a model or a `compute_loss` returned.

    The loss is the output itself, its first item, `output["loss"]` or `output.loss`, if that is a
    tensor without dimensions. The predictions are the rest, or `None` if there is no rest.
    """
    if isinstance(output, Mapping):
        named = {name: value for name, value in output.items() if name != "loss"}
        only = next(iter(named.values())) if len(named) == 1 else named or None
        return _loss(output.get("loss")), only
    if hasattr(output, "loss"):
        return _loss(output.loss), getattr(output, "logits", None)
    parts = tuple(output) if isinstance(output, (tuple, list)) else (output,)
    loss = _loss(parts[0]) if parts else None
    rest = parts if loss is None else parts[1:]
    return loss, rest[0] if len(rest) == 1 else rest or None


def labels_of(batch: Any) -> Any:
    """Return `batch["labels"]`, or the last item of a tuple or list of two or more."""
    if isinstance(batch, Mapping):
        return batch.get("labels")
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[-1]
    return None


def batch_size_of(batch: Any) -> int:
    """Return the length of the first tensor in `batch`, or 1 if there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        return batch_size_of(list(batch.values()))
    if isinstance(batch, (tuple, list)):
        for value in batch:
            if isinstance(value, (Tensor, Mapping, tuple, list)):
                return batch_size_of(value)
    return 1


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return `value` with `function` applied to each tensor in its mappings, tuples and lists."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(function, item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a namedtuple
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def to_device(batch: Any, device: torch.device) -> Any:
    """Return `batch` on `device`. Copies from pinned memory are asynchronous."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def require_loss(loss: Tensor | None, returned_by: str) -> Tensor:
    """Return `loss`, after checking that it can be trained on.

    Args:
        loss: The loss of a training batch.
        returned_by: The name of the model or function that returned it, for the message.

    Raises:
        ValueError: There is no loss, or it has no gradient.
    """
    if loss is None:
        raise ValueError(
            f"{returned_by} returned no loss for a training batch. Return a scalar tensor: as the "
            "first item of a tuple, as ['loss'] or as .loss. Or pass compute_loss to the Trainer, "
            "a function of the model and a batch."
        )
    if not loss.requires_grad:
        raise ValueError(
            f"The loss that {returned_by} returned has no gradient: it was detached, or computed "
            "under torch.no_grad()."
        )
    return loss


def plain_number(name: str, value: Any) -> Any:
    """Return the Python number in `value`, if it is an array or tensor of one number.

    Args:
        name: The name that the value is logged under, for the message.
        value: Anything. Values without an `item` method are returned as they are.

    Raises:
        TypeError: `value` holds several numbers or none.
    """
    if not hasattr(value, "item"):
        return value
    try:
        return scalar(value)
    except TypeError as error:
        raise TypeError(
            f"{name} is not a single number, and only these are logged: {error}."
        ) from None


def _loss(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) and value.ndim == 0 else None
