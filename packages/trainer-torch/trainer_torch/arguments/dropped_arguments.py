"""What to write instead of a name that transformers had once and has dropped."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

from callback_core import nearest_name

_HUB: Final = "This Trainer does not upload: write a callback for the event on_push_begin."
_PRECISION: Final = "Leave it out: fp16=True or bf16=True is enough."
_LOADING: Final = (
    "Leave it out: the processes share the data out as torch's DistributedSampler does."
)
_SHARDING: Final = "Write it into fsdp_config."

DROPPED: Final = {
    "adafactor": "Write optim='adafactor'.",
    "dispatch_batches": _LOADING,
    "evaluation_strategy": "Write eval_strategy.",
    "fp16_backend": _PRECISION,
    "fp16_opt_level": _PRECISION,
    "fsdp_min_num_params": _SHARDING,
    "fsdp_transformer_layer_cls_to_wrap": _SHARDING,
    "group_by_length": "Write train_sampling_strategy='group_by_length'.",
    "half_precision_backend": _PRECISION,
    "include_inputs_for_metrics": "Write include_for_metrics=['inputs'].",
    "include_tokens_per_second": "Write include_num_input_tokens_seen.",
    "jit_mode_eval": "Compile the model instead: torch.compile(model).",
    "logging_dir": "Trackers choose their directories; for TensorBoard's, set the environment "
    "variable TENSORBOARD_LOGGING_DIR.",
    "mp_parameters": "Leave it out: SageMaker's model parallelism is not supported.",
    "no_cuda": "Write use_cpu.",
    "overwrite_output_dir": "Leave it out: train() starts from the beginning and overwrites "
    "checkpoints of the same steps. train(resume_from_checkpoint=True) resumes.",
    "past_index": "Leave it out: return the state of the last batch from the model, and keep it in "
    "a subclass of the Trainer.",
    "per_gpu_eval_batch_size": "Write per_device_eval_batch_size.",
    "per_gpu_train_batch_size": "Write per_device_train_batch_size.",
    "push_to_hub_model_id": _HUB,
    "push_to_hub_organization": _HUB,
    "push_to_hub_token": _HUB,
    "ray_scope": "Leave it out: it configured a search with Ray Tune.",
    "save_safetensors": "Leave it out: weights are always saved as safetensors.",
    "sharded_ddp": "Leave it out: it was sharding by FairScale. That of PyTorch is FSDP.",
    "split_batches": _LOADING,
    "torchdynamo": "Write torch_compile_backend.",
    "tp_size": "Leave it out: tensor parallelism is not supported.",
    "tpu_metrics_debug": "Leave it out: TPUs are not supported.",
    "tpu_num_cores": "Leave it out: TPUs are not supported.",
    "use_ipex": "Leave it out: PyTorch itself now does what Intel's extension did.",
    "use_legacy_prediction_loop": "Leave it out: there is one loop.",
    "use_mps_device": "Leave it out: the device is found. use_cpu=True trains on the CPU.",
    "warmup_ratio": "Write warmup_steps=0.1: a number below 1 is a fraction of all steps.",
    "xpu_backend": "Write ddp_backend.",
}
"""Arguments that transformers 4.20 or later had and 5.24 has not, and what to write instead."""

DROPPED_OF_TRAINER: Final = {
    "tokenizer": "Write processing_class.",
}
"""The same for the arguments of transformers' Trainer."""


def refuse_unknown(cls: type, names: Iterable[str], dropped: Mapping[str, str]) -> None:
    """Refuse arguments that the constructor of `cls` does not have.

    Args:
        cls: A class, possibly of the user.
        names: The names of the arguments that it is called with.
        dropped: The names that transformers has dropped, with what to write instead.

    Raises:
        TypeError: The message names the first of them, and what to write instead if that is known.
    """
    accepted: dict[str, Any] = dict(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
    if any(one.kind is one.VAR_KEYWORD for one in accepted.values()):
        return
    for name in names:
        if name not in accepted:
            raise TypeError(
                f"{cls.__name__} has no argument {name!r}. {_hint(name, accepted, dropped)}"
            )


def _hint(name: str, accepted: Iterable[str], dropped: Mapping[str, str]) -> str:
    if name in dropped:
        return f"transformers has dropped it. {dropped[name]}"
    nearest = nearest_name(name, list(accepted)[1:])
    return f"Did you mean {nearest!r}?" if nearest else "Its docstring lists them."
