"""The random number generators: seeding, and their state in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


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
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state that `rng_state` returned."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.random.set_rng_state(state["cpu"])
    # The states of GPUs are listed by index: they only fit the same number of GPUs.
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the generators on exit."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
