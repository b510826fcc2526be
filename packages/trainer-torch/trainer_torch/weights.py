"""A model's weights in a file: written as safetensors, also where parameters share memory."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer_torch.messages import listed
from trainer_torch.wrapping import load_plain_state, plain_state

MODEL: Final = "model.safetensors"
PICKLED: Final = "pytorch_model.bin"
"""The weights in checkpoints of transformers before 4.35."""


def save_model(model: nn.Module, directory: Path) -> None:
    """Write the weights of `model` to `directory`, and create it if needed.

    A tensor with several names, such as a tied weight, is written once. The metadata of the file
    maps the other names to that one, as `safetensors.torch.save_model` does. Tensors that merely
    share memory, such as the weights of an RNN in cuDNN's buffer, are written separately.
    """
    written: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[Any, str] = {}
    storages: set[int] = set()
    for name, value in plain_state(model).items():
        identity = _identity(value)
        if identity in names:
            aliases[name] = names[identity]
            continue
        if identity is not None:
            names[identity] = name
        tensor = value.detach().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        written[name] = tensor
    directory.mkdir(parents=True, exist_ok=True)
    save_file(written, str(directory / MODEL), {**aliases, "format": "pt"})


def load_model(model: nn.Module, checkpoint: Path, is_complete: bool = True) -> None:
    """Load the weights in `checkpoint` into `model`.

    Args:
        model: The model.
        checkpoint: The directory of the weights.
        is_complete: Whether the model already has all layers that the weights are of. If it does
            not, callbacks may add layers, and what fits is loaded.

    Raises:
        ValueError: They are those of another model. The message names the weights that are missing,
            that the model does not have, or that have another shape.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    saved, aliases = _read(checkpoint, device)
    own = plain_state(model)
    saved |= {name: saved[kept] for name, kept in aliases.items() if name in own and kept in saved}
    names = {_identity(own[name]): name for name in saved if name in own}
    for name, value in own.items():  # tied in this model, and not in the file
        if name not in saved and _identity(value) in names:
            saved[name] = saved[names[_identity(value)]]
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


def _read(checkpoint: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights in `checkpoint`, and the names that stand for others.

    Raises:
        FileNotFoundError: There are none.
    """
    saved: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for path in weight_files(checkpoint) or [checkpoint / MODEL]:
        if path.suffix == ".bin":
            saved |= torch.load(path, map_location=device, weights_only=True)
            continue
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            saved |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            aliases |= file.metadata() or {}
    return saved, aliases


def _identity(tensor: Tensor) -> Any:
    """Return what is equal for two names of one tensor only; `None` for a tensor without memory."""
    if tensor.numel() == 0:
        return None
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


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
        "missing are": [name for name in own if name not in saved],
        "the model does not have": [name for name in saved if name not in own],
        "of another shape are": shapes,
    }
    return [f"{kind} {listed(names)}" for kind, names in kinds.items() if names]
