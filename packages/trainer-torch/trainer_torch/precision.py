"""The clipping of the gradients of an update step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Clip the gradients of `model` to `max_norm`, and return the norm that they had before.

    A `max_norm` of 0 does not clip. This does not wait for the device, unless a gradient is sparse.
    """
    gradients = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    dense = [(p, gradient) for p, gradient in gradients if gradient.layout is torch.strided]
    sparse = [_sparse_values(p, g) for p, g in gradients if g.layout is not torch.strided]
    norm = get_total_norm([*(gradient for _, gradient in dense), *sparse])
    if max_norm > 0:
        clip_grads_with_norm_([p for p, _ in dense], max_norm, norm)
        for values in sparse:
            values.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0).to(values.device))
    return norm


def _sparse_values(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """Return the values of a sparse gradient. Changing them changes the gradient."""
    # A row that several samples use is listed once for each. Only their sum is its gradient.
    parameter.grad = gradient = gradient.coalesce()
    return gradient.values()
