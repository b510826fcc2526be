"""The random number generators: seeding, and their state in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trainer_torch.devices import find_device, module_of


def set_seed(seed: int) -> None:
    """Seed the generators of Python, numpy and torch; those of torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy accepts 32 bits only
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of the generators, in types that `torch.load(weights_only=True)` reads."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (
            kind,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            position,
            has_gauss,
            gauss,
        ),
        "cpu": torch.random.get_rng_state(),
        "accelerator": _accelerator_state(),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state that `rng_state` returned.

    The generators of accelerators are restored if there are as many of the same type.
    """
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.random.set_rng_state(state["cpu"])
    _set_accelerator_state(state["accelerator"])


def has_accelerator_of(state: dict[str, Any]) -> bool:
    """Return whether this machine has as many accelerators as in `state`, and of the same type."""
    saved, now = state["accelerator"], _accelerator_state()
    return (saved["type"], len(saved["states"])) == (now["type"], len(now["states"]))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the generators on exit."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _accelerator_state() -> dict[str, Any]:
    """Return the type of the accelerator, and the states of its generators by index."""
    device = find_device(use_cpu=False)
    if device.type == "cpu":
        return {"type": device.type, "states": []}
    module = module_of(device)
    if hasattr(module, "get_rng_state_all"):
        return {"type": device.type, "states": list(module.get_rng_state_all())}
    states = [module.get_rng_state()] if hasattr(module, "get_rng_state") else []
    return {"type": device.type, "states": states}  # such as MPS, which is one device


def _set_accelerator_state(saved: dict[str, Any]) -> None:
    module = module_of(find_device(use_cpu=False))
    if not saved["states"] or not has_accelerator_of({"accelerator": saved}):
        return
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(saved["states"])
    else:
        module.set_rng_state(saved["states"][0])
