"""Shards a model over the processes with torch's FSDP2, each block as one unit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from trainer_torch.messages import listed
from trainer_torch.model.activations import kinds_in_longest_list, kinds_named, outermost
from trainer_torch.ranks.world import World
from trainer_torch.wrapping import (
    distributed_part,
    is_distributed,
    is_sharded,
    sharded_modules,
    unwrap,
)

logger = logging.getLogger(__name__)


def is_sharding_requested(args: Any, world: World) -> bool:
    """Return whether `args` ask for a sharded model, and there are several processes."""
    return bool(args.fsdp) and world.size > 1


def shard(model: nn.Module, args: Any, world: World, optimizer: Any = None) -> None:
    """Shard `model` in place and move it to the device, unless it is sharded already.

    Its parameters become new ones, so an optimizer must be made after this. All processes begin
    with the weights and buffers of the main process.

    Args:
        model: The model.
        args: The arguments, with `fsdp`.
        world: The processes.
        optimizer: The optimizer that the user has given, if any.

    Raises:
        ValueError: The model is in a DistributedDataParallel; the optimizer has parameters that are
            not sharded; a class that is named is not in the model; or two units share a weight.
    """
    if is_sharded(model):
        return
    if distributed_part(model) is not None:
        raise ValueError(
            "fsdp is set, but the model is already in a DistributedDataParallel, which FSDP2 "
            "cannot shard. Pass the model itself."
        )
    if optimizer is not None:
        raise ValueError(
            "fsdp is set, but the optimizer in optimizers was made before the model was sharded, "
            "so it would not train the sharded parameters. Override create_optimizer, pass "
            "optimizer_cls_and_kwargs, or call fully_shard on the model before you make the "
            "optimizer."
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # here, because importing it takes a second

    model = unwrap(model)
    units = _units(model, args.fsdp_config)
    _refuse_shared_weights(model, units)
    world.share_weights(model)
    options = {"mesh": init_device_mesh(args.device.type, (world.size,)), **_options(args)}
    for _, unit in units:
        fully_shard(
            unit, reshard_after_forward=args.fsdp_config["reshard_after_forward"], **options
        )
    # The backward pass needs the rest of the model first, so torch does not reshard it before.
    fully_shard(model, **options)
    names = listed(dict.fromkeys(type(unit).__name__.removeprefix("FSDP") for _, unit in units))
    if units:
        logger.info(
            "FSDP2 shards %d modules of the model: %s. The rest is one unit.", len(units), names
        )


def tell_of_sharding(args: Any, world: World, warn: Callable[[str], None]) -> None:
    """Warn if the arguments ask for a sharded model, but there is only one process."""
    if args.fsdp and world.size == 1:
        warn(
            "fsdp has no effect, because there is only one process. It keeps the whole model. To "
            "shard the model, start several processes with torchrun."
        )


def check_shards(model: nn.Module, world: World, warn: Callable[[str], None]) -> None:
    """Check a model that the user may have sharded.

    Warns if it is sharded in another way than by FSDP2, so that processes may need the same data.

    Raises:
        ValueError: Only a part of the model is sharded. The processes would not average the
            gradients of the rest.
    """
    parameters: list[Any] = list(model.parameters())
    modules = sharded_modules(model)
    left_out = [
        name
        for name, one in model.named_parameters()
        if one.requires_grad and not is_distributed(one)
    ]
    if modules and modules[0] is not model and left_out:
        raise ValueError(
            "Only a part of the model is sharded: fully_shard was called for modules in it, but "
            "not for the model itself. So the processes would not average the gradients of "
            f"{listed(left_out)}. Call fully_shard(model) too, after the modules."
        )
    meshes = {one.device_mesh for one in parameters if is_distributed(one)}
    if not meshes or (modules and all(one.ndim == 1 for one in meshes)):
        return
    warn(
        f"The model is sharded over meshes of {sorted(one.shape for one in meshes)} processes. The "
        f"Trainer divides the data among all {world.size} processes, as FSDP requires. With tensor "
        "parallelism, some processes need the same data, and would now train on different data. In "
        "that case, override get_train_dataloader and get_eval_dataloader, and divide data there."
    )


def _units(model: nn.Module, config: dict[str, Any]) -> list[tuple[str, nn.Module]]:
    """Return the modules to shard as one unit each, by name, children before their parents.

    Raises:
        ValueError: The model has none of the classes that are named.
    """
    policy, classes = config["auto_wrap_policy"], config["transformer_layer_cls_to_wrap"]
    inner = [(name, module) for name, module in model.named_modules() if module is not model]
    inner = [pair for pair in reversed(inner) if not isinstance(pair[1], _CONTAINERS)]
    if callable(policy):
        return [(name, module) for name, module in inner if policy(name, module)]
    if policy == "NO_WRAP":
        return []
    if policy == "SIZE_BASED_WRAP":
        return list(_of_size(inner, config["min_num_params"]))
    if classes is None:
        kinds = kinds_in_longest_list(model)
        if not kinds:
            logger.warning(
                "fsdp finds no blocks in %s, because it has no ModuleList or Sequential of "
                "modules of one class with parameters. In each step, every process therefore "
                "gathers all weights at once, and needs memory for all of them. To avoid this, "
                "name the classes of the blocks in fsdp_config: "
                "{'transformer_layer_cls_to_wrap': ['Block']}.",
                type(model).__name__,
            )
    else:
        kinds = kinds_named(model, classes, "transformer_layer_cls_to_wrap")
    chosen = {id(module) for module in outermost(model, kinds)}
    return [(name, module) for name, module in inner if id(module) in chosen]


_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
"""Modules that nobody calls, so FSDP2 would never gather their weights."""


def _of_size(inner: list[tuple[str, nn.Module]], least: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that have at least `least` elements that no other unit has."""
    taken: set[int] = set()
    for name, module in inner:
        own = {id(one): one.numel() for one in module.parameters() if id(one) not in taken}
        if own and sum(own.values()) >= least:
            taken |= own.keys()
            yield name, module


def _refuse_shared_weights(model: nn.Module, units: list[tuple[str, nn.Module]]) -> None:
    """Refuse a weight that two units would gather and free at different times."""
    unit_of: dict[int, str] = {}  # the unit of each module
    for unit_name, unit in units:
        for module in unit.modules():
            unit_of.setdefault(id(module), unit_name)
    users: dict[int, dict[str, str]] = {}  # the names of each parameter, by unit
    for module_name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            user = unit_of.get(id(module), "the rest of the model")
            users.setdefault(id(parameter), {})[user] = f"{module_name}.{own}".lstrip(".")
    for by_unit in users.values():
        if len(by_unit) > 1:
            raise ValueError(
                f"{' and '.join(by_unit.values())} are the same weight, but fsdp would shard them "
                f"in different units: {', '.join(by_unit)}. Set auto_wrap_policy in fsdp_config to "
                "a function of the name of a module and the module, so that one unit has all of "
                "them."
            )


def _options(args: Any) -> dict[str, Any]:
    """Return the options of `fully_shard` that the arguments describe."""
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

    options: dict[str, Any] = {}
    if policy := args.fsdp_config["mixed_precision_policy"]:
        options["mp_policy"] = MixedPrecisionPolicy(
            **{
                key: getattr(torch, value) if isinstance(value, str) else value
                for key, value in policy.items()
            }
        )
    if args.fsdp_config["cpu_offload"] and args.device.type != "cpu":
        options["offload_policy"] = CPUOffloadPolicy()
    return options


def reshard(model: nn.Module) -> None:
    """Free the gathered weights of `model`, so that its parameters are its shards again.

    After a call outside of a training step, the root of the model still has gathered weights. An
    optimizer or a checkpoint that is made then would be wrong.
    """
    if modules := sharded_modules(model):
        for module in modules:
            module.reshard()
        model.state_dict()  # its hooks reshard what an error has left in the middle of a call


def forget_call(model: nn.Module) -> None:
    """Drop what an interrupted call of `model`, or a step that stopped between batches, has left.

    Such a step leaves gradients in the units of FSDP2. The parameters get them when they are
    averaged, so it is not enough to clear the gradients of the parameters. After an error in a
    backward pass, a unit is still in the middle of it, and would not average the next gradients.
    """
    for module in sharded_modules(model):
        state = module._get_fsdp_state()  # noqa: SLF001 - see _drop_pending_gradients
        # Torch knows the root after the first call, and refuses to reset other modules.
        if hasattr(module, "reset_iter_state") and getattr(state, "_is_root", False):
            module.reset_iter_state()
        _drop_pending_gradients(state)
    reshard(model)


def _drop_pending_gradients(state: Any) -> None:
    """Drop the gradients of a unit that are not averaged yet.

    `reset_iter_state` of torch 2.13 does not drop them, contrary to its documentation, and only
    private attributes have them: those of all processes, while the parameters are shards. A version
    of torch without these attributes keeps what it has.
    """
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # of an earlier torch, in which a unit has at most one group
        groups = [group] if (group := getattr(state, "_fsdp_param_group", None)) else []
    for group in groups:
        for parameter in getattr(group, "fsdp_params", ()):
            if (gathered := getattr(parameter, "_unsharded_param", None)) is not None:
                gathered.grad = None
            if hasattr(parameter, "unsharded_accumulated_grad"):
                parameter.unsharded_accumulated_grad = None
