"""A model's weights in a file: written as safetensors, also where parameters share memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from trainer_torch.messages import listed
from trainer_torch.model.shards import (
    SHARDS,
    Shards,
    empty_like_shard,
    read_shards,
    shapes_of_shards,
    shard_like,
)
from trainer_torch.wrapping import is_distributed, load_plain_state, plain_name, plain_state

MODEL: Final = "model.safetensors"
PICKLED: Final = "pytorch_model.bin"
"""The weights in checkpoints of transformers before 4.35."""


OF_MODEL: Final = "model."
"""The prefix of the names of weights among shards."""


class SafeTensors(NamedTuple):
    """The content of a safetensors file: tensors by name, and texts by name."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def weights_of(model: nn.Module, keeps: bool = True) -> SafeTensors:
    """Return the weights of `model` in a form that a safetensors file can hold.

    Those of a sharded model are gathered in the memory of the CPU, one after the other, so all
    processes must call this. With `keeps=False`, a process only takes part in that.

    A tensor with several names, such as a tied weight, is there once. The metadata maps the other
    names to that one, as `safetensors.torch.save_model` does. Tensors that merely share memory,
    such as the weights of an RNN in cuDNN's buffer, are written separately.
    """
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    storages: set[int] = set()
    for name, value, original in _each_once(model):
        if original is not None:
            aliases[name] = original
            continue
        tensor = _gathered(value.detach()) if is_distributed(value) else value.detach()
        if not keeps:
            continue
        # A lazy conjugate or negation is not in the memory of the tensor, so compute it.
        tensor = tensor.resolve_conj().resolve_neg().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        kept[name] = tensor
    return SafeTensors(kept, {**aliases, "format": "pt"})


def refusal(value: object) -> str | None:
    """Return why a safetensors file cannot hold `value`, as the end of a sentence, or `None`."""
    if not isinstance(value, Tensor):
        return "is not a tensor"
    if value.layout is not torch.strided:
        return "is not a dense tensor"
    if value.is_quantized:
        return "is quantized"
    if value.is_meta:
        return "is on the device meta, so it has no values"
    try:
        save({"": torch.empty(0, dtype=value.dtype)})
    except (KeyError, RuntimeError, SafetensorError, TypeError, ValueError):
        return f"is of the type {value.dtype}"
    return None


def shards_of(model: nn.Module) -> Shards:
    """Return the weights of a sharded `model`. Each process has a part of each."""
    return Shards(
        {
            f"{OF_MODEL}{name}": value.detach()
            for name, value, original in _each_once(model)
            if original is None
        }
    )


def save_model(model: nn.Module, directory: Path, writes: bool = True) -> None:
    """Write the weights of `model` to `directory`, and create it if needed.

    All processes must call this for a sharded model, also those with `writes=False`.
    """
    weights = weights_of(model, writes)
    if not writes:
        return
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights.tensors, str(directory / MODEL), weights.metadata)


def load_model(model: nn.Module, checkpoint: Path, is_complete: bool = True) -> None:
    """Load the weights in `checkpoint` into `model`.

    Args:
        model: The model.
        checkpoint: The directory of the weights.
        is_complete: Whether the model already has all layers that the weights belong to. If it does
            not, callbacks may add layers, and what fits is loaded.

    Raises:
        FileNotFoundError: `checkpoint` has no weights.
        ValueError: They are those of another model. The message names the weights that are missing,
            that the model does not have, or that have another shape.
    """
    own = plain_state(model)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    read = _read_shards if (checkpoint / SHARDS).is_dir() else _read
    saved, aliases = read(checkpoint, device, own)
    saved |= {name: saved[kept] for name, kept in aliases.items() if name in own and kept in saved}
    identities = _identities(model, own)
    names = {identities[name]: name for name in saved if name in own}
    for name in own:  # tied in this model, and not in the file
        if name not in saved and identities[name] in names:
            saved[name] = saved[names[identities[name]]]
    common = own.keys() & saved.keys()
    may_fit = common and all(own[name].shape == saved[name].shape for name in common)
    faults = _differences(own, saved)
    if faults and _loads_by_itself(model):
        with suppress(RuntimeError):  # the message below says more
            load_plain_state(model, saved, strict=False)
        if not (faults := _differences(plain_state(model), saved)):
            return
    if faults and (is_complete or not may_fit):
        raise ValueError(
            f"The weights in {checkpoint} do not fit the model, {type(model).__name__}: "
            f"{'; '.join(faults)}. Pass the model that was saved, with the same layers, or train "
            "without resume_from_checkpoint to start from the beginning. If a callback adds or "
            "replaces layers, let it do so in on_train_begin too."
        )
    # Nothing can be copied into a tensor whose elements share memory, such as an expanded buffer.
    expanded = {name for name in common if _is_expanded(own[name])}
    copied = {name: saved[name] for name in own if name in common and name not in expanded}
    load_plain_state(model, copied, strict=False)
    if expanded:
        assigned = {name: saved[name] for name in expanded}
        load_plain_state(model, assigned, strict=False, assign=True)


def weight_files(checkpoint: Path) -> list[Path]:
    """Return the files that hold the weights in `checkpoint`: ours, or those of transformers."""
    for name in (MODEL, PICKLED):
        if (checkpoint / name).is_file():
            return [checkpoint / name]
        if (index := checkpoint / f"{name}.index.json").is_file():
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return [checkpoint / part for part in sorted(parts)]
    return []


def _read(
    checkpoint: Path, device: torch.device, own: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights in `checkpoint`, and the names that stand for others.

    For tensors that are sharded in `own`, the result has the parts of this process.

    Raises:
        FileNotFoundError: There are none.
    """
    saved: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for path in weight_files(checkpoint) or [checkpoint / MODEL]:
        if path.suffix == ".bin":
            whole = torch.load(path, map_location=device, weights_only=True)
            saved |= {name: shard_like(tensor, own.get(name)) for name, tensor in whole.items()}
            continue
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118
                saved[name] = shard_like(file.get_tensor(name), own.get(name))
            aliases |= file.metadata() or {}
    return saved, aliases


def _read_shards(
    checkpoint: Path, device: torch.device, own: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the result of `_read` for a sharded checkpoint, which has no names for other names."""
    saved = {
        name: empty_like_shard(shape, own.get(name.removeprefix(OF_MODEL)), device)
        for name, shape in shapes_of_shards(checkpoint / SHARDS).items()
        if name.startswith(OF_MODEL)
    }
    read_shards(checkpoint / SHARDS, saved)
    return {name.removeprefix(OF_MODEL): tensor for name, tensor in saved.items()}, {}


def _gathered(tensor: Any) -> Tensor:
    """Return all of a DTensor, in the memory of the CPU."""
    whole: Tensor = tensor.full_tensor()
    return whole.cpu()


def _each_once(model: nn.Module) -> Iterator[tuple[str, Tensor, str | None]]:
    """Yield the weights of `model` by name. For a weight that was yielded, yield its first name."""
    state = plain_state(model)
    names: dict[Any, str] = {}
    for name, identity in _identities(model, state).items():
        yield name, state[name], None if identity is None else names.get(identity)
        if identity is not None:
            names.setdefault(identity, name)


def _identities(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return a value for each name that is equal only if two names are the same tensor.

    It is `None` for tensors without memory. All processes must come to the same result, but one may
    have no part of a DTensor, so the parameter decides there.
    """
    parameters = {
        plain_name(name): id(one) for name, one in model.named_parameters(remove_duplicate=False)
    }
    return {
        name: parameters.get(name) if is_distributed(value) else _identity(value)
        for name, value in state.items()
    }


def _identity(tensor: Tensor) -> Any:
    """Return what is equal for two names of one tensor only; `None` for a tensor without memory."""
    if tensor.numel() == 0:
        return None
    computed = tensor.is_conj(), tensor.is_neg()
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, computed


def _loads_by_itself(model: nn.Module) -> bool:
    """Return whether code of the model takes part in loading its state, and may make it fit."""
    return any(
        getattr(module, "_load_state_dict_pre_hooks", None)
        or any(
            not getattr(type(module), name).__module__.startswith("torch.")
            for name in ("load_state_dict", "_load_from_state_dict")
        )
        for module in model.modules()
    )


def _is_expanded(tensor: Tensor) -> bool:
    sizes = zip(tensor.stride(), tensor.shape, strict=True)
    return any(stride == 0 and size > 1 for stride, size in sizes)


def _differences(own: dict[str, Tensor], saved: dict[str, Tensor]) -> list[str]:
    """Return how `saved` differs from the weights of a model, as parts of a sentence."""
    shapes = [
        f"{name} {tuple(saved[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in saved and saved[name].shape != value.shape
    ]
    kinds = {
        "these are missing:": [name for name in own if name not in saved],
        "the model does not have": [name for name in saved if name not in own],
        "these have another shape:": shapes,
    }
    return [f"{kind} {listed(names)}" for kind, names in kinds.items() if names]
