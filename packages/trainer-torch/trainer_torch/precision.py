"""The backward pass and the gradient clipping of an update step, without mixed precision."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def backward(loss: Tensor, batches_in_step: int) -> None:
    """Add the gradients of a batch, one of `batches_in_step` in its update step."""
    (loss / batches_in_step).backward()


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Clip the gradients of `model` to `max_norm`, and return the norm that they had before.

    A `max_norm` of 0 does not clip. This does not wait for the device.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    if max_norm > 0:
        clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return norm
