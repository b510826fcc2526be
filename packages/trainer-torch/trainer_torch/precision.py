"""The arithmetic of an update step around the model: backward pass and clipping, in float32."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def backward(loss: Tensor, batches_in_step: int) -> None:
    """Add the gradients of a batch, one of `batches_in_step` in its update step."""
    (loss / batches_in_step).backward()


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Clip the gradients of `model` to `max_norm`, and return their norm before.

    A `max_norm` of 0 does not clip. The device is not synchronised.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    if max_norm > 0:
        clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return norm
