"""Finds the model inside the modules that wrap it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel

# The attribute of a compiled module. Importing its class would take half a second.
_COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside any DistributedDataParallel and `torch.compile`."""
    return list(_layers(model))[-1]


def distributed_part(model: nn.Module) -> DistributedDataParallel | None:
    """Return the DistributedDataParallel that `model` is, or that it wraps, or `None`."""
    layers = (layer for layer in _layers(model) if isinstance(layer, DistributedDataParallel))
    return next(layers, None)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model`, what it wraps, and so on down to the model itself."""
    inner: object = model
    while isinstance(inner, nn.Module):
        yield inner
        is_distributed = isinstance(inner, DistributedDataParallel)
        inner = inner.module if is_distributed else getattr(inner, _COMPILED, None)
