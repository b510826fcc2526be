"""`fsdp` and `fsdp_config`: what transformers accepts, what has no meaning, and what is wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, trainer
from torch.distributed.fsdp import MixedPrecisionPolicy

from trainer_torch import TrainingArguments


def config(**given: Any) -> dict[str, Any]:
    """Return what `fsdp_config` becomes."""
    settled = TrainingArguments(fsdp=True, fsdp_config=given).fsdp_config
    assert isinstance(settled, dict)
    return settled


@pytest.mark.parametrize(
    ("fsdp", "is_on", "expected"),
    [
        (True, True, {}),
        ("True", True, {}),
        (None, False, {}),
        (False, False, {}),
        ("", False, {}),
        ("full_shard auto_wrap", True, {"reshard_after_forward": True}),
        ("shard_grad_op", True, {"reshard_after_forward": False}),
        (["full_shard", "offload"], True, {"cpu_offload": True}),
    ],
)
def test_strings_of_transformers_mean_what_fsdp2_has(
    fsdp: Any, is_on: bool, expected: dict[str, Any]
) -> None:
    args = TrainingArguments(fsdp=fsdp)
    assert args.fsdp is is_on
    assert (args.fsdp_config is not None) == is_on
    assert expected.items() <= (args.fsdp_config or {}).items()  # type: ignore[union-attr]


@pytest.mark.parametrize("fsdp", ["hybrid_shard", "no_shard", "fast", 3])
def test_what_fsdp2_does_not_have_is_refused(fsdp: Any) -> None:
    with pytest.raises(ValueError, match="fsdp"):
        TrainingArguments(fsdp=fsdp)


def test_a_config_is_a_dict_or_json_or_a_file(tmp_path: Path) -> None:
    given = {"fsdp_min_num_params": 100, "auto_wrap_policy": "size_based_wrap"}
    path = tmp_path / "fsdp.json"
    path.write_text(json.dumps(given))
    expected = config(**given)
    assert expected["min_num_params"] == 100
    assert expected["auto_wrap_policy"] == "SIZE_BASED_WRAP"
    for other in (json.dumps(given), str(path)):
        assert TrainingArguments(fsdp=True, fsdp_config=other).fsdp_config == expected


def test_names_of_accelerate_are_known() -> None:
    assert config(offload_params="true")["cpu_offload"] is True
    assert config(sharding_strategy="SHARD_GRAD_OP")["reshard_after_forward"] is False
    assert config(transformer_layer_cls_to_wrap="A,B")["transformer_layer_cls_to_wrap"] == [
        "A",
        "B",
    ]


@pytest.mark.parametrize(
    "policy",
    [
        "bf16",
        {"param_dtype": torch.bfloat16, "reduce_dtype": "bfloat16"},
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16),
    ],
)
def test_a_precision_is_a_name_or_a_dict_or_torchs_policy(policy: Any) -> None:
    settled = config(mixed_precision_policy=policy)["mixed_precision_policy"]
    assert {"param_dtype": "bfloat16", "reduce_dtype": "bfloat16"}.items() <= settled.items()


@pytest.mark.parametrize(
    "given",
    [
        {"reshard_after_forwards": True},
        {"version": 1},
        {"state_dict_type": "FULL_STATE_DICT"},
        {"auto_wrap_policy": "SOME_WRAP"},
        {"min_num_params": -1},
        {"cpu_offload": "perhaps"},
        {"transformer_layer_cls_to_wrap": []},
        {"sharding_strategy": "HYBRID_SHARD"},
        {"mixed_precision_policy": {"param_dtype": "int3"}},
        {"mixed_precision_policy": "fp16"},  # without a scaled loss
        {"xla": True},
    ],
)
def test_a_wrong_config_is_refused_by_the_name_of_its_key(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given)).removesuffix("s")):
        config(**given)


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="'reshard_after_forward'"):
        config(reshard_after_foward=True)


def test_keys_of_fsdp1_are_told_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        config(backward_prefetch="BACKWARD_PRE", use_orig_params=True)
    assert "backward_prefetch" in caplog.text
    assert "use_orig_params" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {"bf16_full_eval": True},
        {"save_on_each_node": True},
        {"optim": "adafactor"},
        {"ddp_backend": "nccl", "fsdp_config": {"cpu_offload": True}},
    ],
)
def test_arguments_that_exclude_sharding_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        TrainingArguments(fsdp=True, **changed)


def test_a_config_without_fsdp_is_refused() -> None:
    with pytest.raises(ValueError, match="fsdp_config"):
        TrainingArguments(fsdp_config={"cpu_offload": True})


def test_activation_checkpointing_in_the_config_sets_the_argument() -> None:
    args = TrainingArguments(fsdp=True, fsdp_config={"activation_checkpointing": True})
    assert args.activation_checkpointing is True


def test_settled_arguments_are_settled_again_to_the_same(tmp_path: Path) -> None:
    args = arguments(tmp_path, fsdp="full_shard", fsdp_config={"mixed_precision_policy": "bf16"})
    again = TrainingArguments(fsdp=args.fsdp, fsdp_config=args.fsdp_config)
    assert again.fsdp_config == args.fsdp_config
    assert json.loads(args.to_json_string())["fsdp"] is True


def test_one_process_keeps_the_whole_model_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(tmp_path, fsdp=True, max_steps=1)
    assert "fsdp" in caplog.text
    trained.train()
    assert trained.state.global_step == 1
