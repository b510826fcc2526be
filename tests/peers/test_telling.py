"""What both trainers tell of a training: tokens and levels of messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_training import TRAINERS
from torch import Tensor, nn
from torch.utils.data import Dataset


class Sequences(Dataset[dict[str, Tensor]]):
    """Sequences of five tokens with padding."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.arange(1, 6)
        ids[5 - index % 5 :] = 0
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Model(nn.Module):
    """A loss of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.embedding(input_ids)[..., 0] * attention_mask).square().mean()}


def trained(name: str, output_dir: Path, **changed: Any) -> Any:
    chosen = TRAINERS[name]
    args = chosen.TrainingArguments(
        str(output_dir),
        per_device_train_batch_size=4,
        max_steps=5,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **changed,
    )
    trainer = chosen.Trainer(Model(), args, train_dataset=Sequences())
    trainer.train()
    return trainer


@pytest.mark.parametrize("included", ["all", True, "non_padding", "no", False])
def test_both_count_the_same_tokens(tmp_path: Path, included: Any) -> None:
    counts = {}
    for name in TRAINERS:
        trainer = trained(name, tmp_path, include_num_input_tokens_seen=included)
        logs = [entry.get("num_input_tokens_seen") for entry in trainer.state.log_history]
        # Only the whole epochs have the same batches in both.
        counts[name] = [trainer.args.include_num_input_tokens_seen, logs[2], len(logs)]
    assert counts["ours"] == counts["transformers"]


@pytest.mark.parametrize(
    "changed",
    [
        {"log_level": "info"},
        {"log_level": "debug", "log_on_each_node": False},
        {"log_level_replica": "error"},
    ],
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_both_choose_the_same_level(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], rank: str
) -> None:
    levels = []
    for name in TRAINERS:
        args = TRAINERS[name].TrainingArguments("run", use_cpu=True, **changed)
        if name == "ours":
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("RANK", rank)
            monkeypatch.setenv("LOCAL_RANK", rank)
        else:
            index = property(lambda self: int(rank))
            monkeypatch.setattr(transformers.TrainingArguments, "process_index", index)
            monkeypatch.setattr(transformers.TrainingArguments, "local_process_index", index)
        levels.append(args.get_process_log_level())
    assert levels[0] == levels[1]
