"""The random number generators: seeding, and their state in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer_torch.hardware.devices import find_device, module_of


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


def generators_file(now: dict[str, Any], epoch_begin: dict[str, Any]) -> dict[str, Any]:
    """Return what the file of a process's generators holds, in a form that transformers reads too.

    Args:
        now: Their state.
        epoch_begin: Their state before the first batch of the epoch.
    """
    kind, states = now["accelerator"]["type"], now["accelerator"]["states"]
    # transformers looks for the type of the accelerator, and for a tensor if there is one.
    as_there = {kind: states[0] if len(states) == 1 else states} if states else {}
    return {**now, **as_there, "epoch_begin": epoch_begin}


def read_generators(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two states in a file of ours or of transformers, which has only the first."""
    # What a pickled array of numpy refers to: it cannot run code.
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    of_numpy: list[Any] = [reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    with torch.serialization.safe_globals(of_numpy):
        now = torch.load(path, map_location="cpu", weights_only=True)
    epoch_begin = now.pop("epoch_begin", now)
    return _as_ours(now), _as_ours(epoch_begin)


def _as_ours(state: dict[str, Any]) -> dict[str, Any]:
    kind, keys, *rest = state["numpy"]
    others = state.get("cuda", [])
    of_transformers = {
        "type": "cuda" if "cuda" in state else "cpu",
        "states": [others] if isinstance(others, Tensor) else list(others),
    }
    return {
        "accelerator": of_transformers,
        **state,
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
    }


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
