"""Places a model: on the device or sharded over processes, and compiled."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.model.sharding import is_sharding_requested, shard
from trainer_torch.ranks.world import World
from trainer_torch.wrapping import compile_in_place, is_sharded


def place_model(
    model: nn.Module, args: TrainingArguments, world: World, optimizer: Any = None
) -> nn.Module:
    """Return `model` on the device, compiled if the arguments ask for that.

    It stays where it is if `place_model_on_device` is false. If the arguments ask for it, the
    model is sharded. Then each process has its part only.
    """
    if is_sharding_requested(args, world):
        shard(model, args, world, optimizer)
    elif args.place_model_on_device is not False and not is_sharded(model):
        model = model.to(args.device)
    compile_in_place(model, args)
    return model
