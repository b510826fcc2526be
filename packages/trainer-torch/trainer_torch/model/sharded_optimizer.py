"""The state of an optimizer in shards: its tensors by name, and the rest."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainer_torch.model.shards import (
    SHARDS,
    empty_like_shard,
    read_shards,
    shapes_of_shards,
    shard_like,
)

_OF_OPTIMIZER: Final = "optimizer."


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the `state` of an optimizer without its tensors, and these by name.

    A name consists of the number of the parameter, which is its place in the groups, and of the key
    of the value, such as `exp_avg`.
    """
    rest: dict[Any, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for number, values in state["state"].items():
        rest[number] = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{_OF_OPTIMIZER}{number}.{key}"] = value.detach()
            else:
                rest[number][key] = value
    return {**state, "state": rest}, tensors


def gather_state(
    rest: dict[str, Any], checkpoint: Path, optimizer: Any, device: torch.device
) -> dict[str, Any]:
    """Return the state that `split_state` has split, with the tensors in the shards.

    The tensors are sharded like the parameters of `optimizer`, whose groups must be those saved.
    """
    parameters = dict(_numbered(rest, optimizer))
    folder, wanted = checkpoint / SHARDS, {}
    state = {number: dict(values) for number, values in rest["state"].items()}
    for name, shape in shapes_of_shards(folder).items():
        if name.startswith(_OF_OPTIMIZER):
            number, _, key = name.removeprefix(_OF_OPTIMIZER).partition(".")
            like = parameters.get(int(number))
            place = torch.device("cpu") if shape.ndim == 0 or like is None else device
            wanted[name] = state[int(number)][key] = empty_like_shard(shape, like, place)
    read_shards(folder, wanted)
    return {**rest, "state": state}


def shard_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return `state`, with the tensors sharded that belong to sharded parameters."""
    parameters = dict(_numbered(state, optimizer))
    return {
        **state,
        "state": {
            number: {
                key: shard_like(value, parameters.get(number)) if _is_tensor(value) else value
                for key, value in values.items()
            }
            for number, values in state["state"].items()
        },
    }


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _numbered(state: dict[str, Any], optimizer: Any) -> zip[tuple[Any, Any]]:
    """Return the parameters of `optimizer` with their numbers in `state`, by their order."""
    numbers = chain.from_iterable(group["params"] for group in state["param_groups"])
    groups = getattr(optimizer, "param_groups", ())
    parameters = chain.from_iterable(group["params"] for group in groups)
    return zip(numbers, parameters, strict=False)
