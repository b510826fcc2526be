"""The arguments `fsdp` and `fsdp_config`: their forms, and what each key means for FSDP2."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from callback_core import is_number, nearest_name
from trainer_torch.ranks.processes import rank

logger = logging.getLogger(__name__)

POLICIES: Final = ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP")
"""The ways to choose the modules that FSDP2 shards as one unit each."""

_DEFAULTS: Final[dict[str, Any]] = {
    "version": 2,
    "reshard_after_forward": True,
    "cpu_offload": False,
    "auto_wrap_policy": POLICIES[0],
    "transformer_layer_cls_to_wrap": None,
    "min_num_params": 0,
    "state_dict_type": "SHARDED_STATE_DICT",
    "activation_checkpointing": False,
    "mixed_precision_policy": None,
}
"""The keys of `fsdp_config`, with their defaults."""

_OTHER_NAMES: Final = {"offload_params": "cpu_offload"}

_FLAGS: Final = ("reshard_after_forward", "cpu_offload", "activation_checkpointing")

_IGNORED: Final = {
    "backward_prefetch": "FSDP2 prefetches by itself",
    "forward_prefetch": "FSDP2 prefetches by itself",
    "limit_all_gathers": "FSDP2 always limits them",
    "use_orig_params": "FSDP2 always keeps the original parameters",
    "sync_module_states": "the weights of the main process are always copied to all others",
    "cpu_ram_efficient_loading": "it is for models that transformers loads",
    "xla_fsdp_grad_ckpt": "it is for TPUs",
    "xla_fsdp_settings": "it is for TPUs",
}
"""Keys of transformers that have no effect here, with the reason."""

_STRATEGIES: Final = {"FULL_SHARD": True, "SHARD_GRAD_OP": False}
"""The strategies of FSDP1 that FSDP2 has, with the value of `reshard_after_forward`."""

_POLICY_KEYS: Final = ("param_dtype", "reduce_dtype", "output_dtype", "cast_forward_inputs")
_DTYPES: Final = {
    **{"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"},
    **{name: name for name in ("bfloat16", "float16", "float32")},
}


def normalize_sharding(args: Any) -> None:
    """Check `fsdp` and `fsdp_config`, and bring both into one form: a flag, and a dict or `None`.

    For keys that have no effect, the main process logs a warning.

    Raises:
        ValueError: A value has no meaning in FSDP2, or does not go with another argument. The
            message says what to write instead.
    """
    config = _read(args.fsdp_config)
    by_text = _of_text(args.fsdp)
    args.fsdp = by_text is not None
    if by_text is None:
        args.fsdp_config = None
        if config:
            raise ValueError(
                "fsdp_config is set, but fsdp is not, so the model would not be sharded. Set "
                "fsdp=True too, or leave fsdp_config out."
            )
        return
    args.fsdp_config = _settled({**by_text, **config})
    _check_combinations(args)
    if args.fsdp_config["activation_checkpointing"]:
        args.activation_checkpointing = True


def _of_text(fsdp: Any) -> dict[str, Any] | None:
    """Return what `fsdp` says about `fsdp_config`, or `None` if it turns sharding off."""
    if fsdp is None or fsdp is False or fsdp == "" or fsdp == []:
        return None
    if fsdp is True:
        return {}
    words = fsdp.split() if isinstance(fsdp, str) else fsdp
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"fsdp is {fsdp!r}, but must be True, False or None.")
    words = [str(getattr(word, "value", word)).lower() for word in words]
    if words in (["true"], ["false"]):
        return {} if words == ["true"] else None
    said: dict[str, Any] = {}
    for word in words:
        if word.upper() in _STRATEGIES:
            said["reshard_after_forward"] = _STRATEGIES[word.upper()]
        elif word == "offload":
            said["cpu_offload"] = True
        elif word in ("hybrid_shard", "hybrid_shard_zero2", "no_shard"):
            raise ValueError(
                f"fsdp is {fsdp!r}, but only FSDP1 has {word}. To shard the model over all "
                "processes, set fsdp=True. To train without sharding, leave fsdp out. To shard "
                "over a mesh of your own, call fully_shard on the model before you pass it."
            )
        elif word != "auto_wrap":  # which FSDP2 does anyway
            raise ValueError(
                f"fsdp is {fsdp!r}, but {word!r} is not an option. Set fsdp=True, and write "
                "options into fsdp_config."
            )
    return said


def _read(config: Any) -> dict[str, Any]:
    """Return `config`, which may be a dict, JSON, or the path of a JSON file."""
    given = config
    if config is None or config == "":
        return {}
    try:
        if isinstance(config, (str, Path)):
            is_json = str(config).lstrip().startswith("{")
            config = json.loads(
                str(config) if is_json else Path(config).expanduser().read_text(encoding="utf-8")
            )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"fsdp_config is {given!r}, but must be a dict, JSON, or the path of a JSON file: "
            f"{error}."
        ) from None
    if not isinstance(config, Mapping):
        raise ValueError(f"fsdp_config is {given!r}, but must be a dict, or JSON of one.")
    return {str(key).removeprefix("fsdp_"): value for key, value in config.items()}


def _settled(given: dict[str, Any]) -> dict[str, Any]:
    """Return all keys of `fsdp_config`, with the values that were `given` checked."""
    settled = dict(_DEFAULTS)
    for key, value in given.items():
        name = _OTHER_NAMES.get(key, key)
        if name in _DEFAULTS:
            settled[name] = value
        elif name == "sharding_strategy":
            settled["reshard_after_forward"] = _strategy(value)
        elif name in ("xla", "xla_fsdp_v2"):
            if value:
                raise ValueError(f"{name} in fsdp_config is {value!r}, but TPUs are not supported.")
        elif name in _IGNORED:
            if rank() == 0:
                reason = _IGNORED[name]
                logger.warning("%s in fsdp_config has no effect: %s.", key, reason)
        else:
            nearest = nearest_name(name, [*_DEFAULTS, *_OTHER_NAMES])
            hint = (
                f"Did you mean {nearest!r}?" if nearest else f"Its keys are {', '.join(_DEFAULTS)}."
            )
            raise ValueError(f"fsdp_config has no key {key!r}. {hint}")
    for name in _FLAGS:
        settled[name] = _flag(name, settled[name])
    _check_values(settled)
    settled["auto_wrap_policy"] = _policy(settled["auto_wrap_policy"])
    settled["transformer_layer_cls_to_wrap"] = _classes(settled["transformer_layer_cls_to_wrap"])
    settled["mixed_precision_policy"] = _precision(settled["mixed_precision_policy"])
    return settled


def _check_values(settled: dict[str, Any]) -> None:
    if str(settled["version"]) != "2":
        raise ValueError(
            f"version in fsdp_config is {settled['version']!r}, but this Trainer shards by FSDP2 "
            "only, which torch recommends. Leave version out."
        )
    settled["version"] = 2
    kind = str(settled["state_dict_type"]).upper()
    if kind != _DEFAULTS["state_dict_type"]:
        raise ValueError(
            f"state_dict_type in fsdp_config is {settled['state_dict_type']!r}, but checkpoints "
            "of a sharded model are always sharded. Leave state_dict_type out. To get all weights "
            "in one file, call save_model."
        )
    settled["state_dict_type"] = kind
    least = settled["min_num_params"]
    if not is_number(least) or least != int(least) or least < 0:
        raise ValueError(f"min_num_params in fsdp_config is {least!r}, but must be 0 or more.")
    settled["min_num_params"] = int(least)


def _strategy(value: Any) -> bool:
    name = str(getattr(value, "name", value)).upper()
    if name not in _STRATEGIES:
        raise ValueError(
            f"sharding_strategy in fsdp_config is {value!r}, which FSDP2 does not have. Set "
            "reshard_after_forward to True or False instead."
        )
    return _STRATEGIES[name]


def _flag(name: str, value: Any) -> bool:
    texts = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str) and value.lower() in texts:
        return texts[value.lower()]
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError(f"{name} in fsdp_config is {value!r}, but must be True or False.")


def _policy(value: Any) -> Any:
    """Return the policy `value`: a name, or a function of the name of a module and the module."""
    if value is None:
        return "NO_WRAP"
    if callable(value):
        return value
    if not isinstance(value, str) or value.upper() not in POLICIES:
        raise ValueError(
            f"auto_wrap_policy in fsdp_config is {value!r}, but must be one of "
            f"{', '.join(POLICIES)}, or a function of the name of a module and the module."
        )
    return value.upper()


def _classes(value: Any) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not all(map(_is_name, names)):
        raise ValueError(
            f"transformer_layer_cls_to_wrap in fsdp_config is {value!r}, but must be a list of "
            "names of classes, such as ['Block']."
        )
    return list(names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _precision(value: Any) -> dict[str, Any] | None:
    """Return the options of a `MixedPrecisionPolicy`, with the names of types."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"param_dtype": value, "reduce_dtype": value}
    elif not isinstance(value, Mapping):
        value = {key: getattr(value, key) for key in _POLICY_KEYS if hasattr(value, key)}
    settled: dict[str, Any] = {}
    for key, one in value.items():
        if key == "cast_forward_inputs":
            settled[key] = _flag(key, one)
            continue
        dtype = None if one is None else _DTYPES.get(str(one).removeprefix("torch."))
        if key not in _POLICY_KEYS or (dtype is None and one is not None):
            raise ValueError(
                f"mixed_precision_policy in fsdp_config has {key}={one!r}. Its keys are "
                f"{', '.join(_POLICY_KEYS)}, and its types are {', '.join(sorted(_DTYPES))}."
            )
        settled[key] = dtype
    return settled


def _check_combinations(args: Any) -> None:
    """Check `fsdp` against other arguments."""
    policy = args.fsdp_config["mixed_precision_policy"] or {}
    if "float16" in policy.values() and not args.fp16:
        raise ValueError(
            "mixed_precision_policy in fsdp_config has float16, but fp16 is not set. Float16 "
            "needs a scaled loss. Set fp16=True too, or use bfloat16."
        )
    for name in ("bf16_full_eval", "fp16_full_eval"):
        if getattr(args, name):
            raise ValueError(
                f"{name} is True, but fsdp is set, and the weights of a sharded model cannot be "
                f"converted for an evaluation. Leave {name} out. Set bf16=True, which holds in "
                "evaluations too, or mixed_precision_policy in fsdp_config."
            )
    if args.optim == "adafactor":
        raise ValueError(
            "optim is 'adafactor', but torch's Adafactor does not work with sharded weights. "
            "Choose another optimizer, such as 'adamw_torch_fused', which is sharded too."
        )
    if args.save_on_each_node:
        raise ValueError(
            "save_on_each_node is True, but with fsdp, each process writes its part of a "
            "checkpoint, so all of them need a common disk. Leave it out."
        )
    if args.fsdp_config["cpu_offload"] and args.ddp_backend in ("nccl", "xccl"):
        raise ValueError(
            f"ddp_backend is {args.ddp_backend!r}, which does not work on the CPU, but cpu_offload "
            "in fsdp_config keeps gradients there. Leave ddp_backend out."
        )
