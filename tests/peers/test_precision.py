"""Mixed precision and checkpointed activations have the numbers that transformers' Trainer has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import TRAINERS, TinyDataset
from torch import Tensor, nn
from torch.optim import SGD


class Blocks(nn.Module):
    """A regression by equal blocks, with the methods that transformers' Trainer needs."""

    supports_gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        blocks = (nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3))
        self.stem, self.blocks, self.head = nn.Linear(2, 8), nn.ModuleList(blocks), nn.Linear(8, 1)
        self.types: list[torch.dtype] = []

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.stem(x.to(self.stem.weight.dtype))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        logits = self.head(hidden)
        self.types.append(logits.dtype)
        return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}


def trained(trainer: str, directory: Path, **changed: Any) -> Any:
    """Return a trainer of `Blocks`, after 8 steps with all of the data in each batch."""
    chosen, model = TRAINERS[trainer], Blocks()
    args = chosen.TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=10,
        per_device_eval_batch_size=4,
        num_train_epochs=8,
        learning_rate=0.1,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **({"remove_unused_columns": False} if trainer == "transformers" else {}),
        **changed,
    )
    made = chosen.Trainer(
        model=model,
        args=args,
        train_dataset=TinyDataset(10),
        eval_dataset=TinyDataset(4),
        optimizers=(SGD(model.parameters(), lr=0.1), None),
    )
    made.train()
    return made


def numbers(made: Any) -> dict[str, Any]:
    logs = made.state.log_history
    return {
        "losses": [log["loss"] for log in logs if "loss" in log],
        "norms": [log["grad_norm"] for log in logs if "grad_norm" in log],
        "eval_loss": made.evaluate()["eval_loss"],
    }


@pytest.mark.parametrize("changed", [{"bf16": True}, {"bf16_full_eval": True}], ids=str)
def test_losses_and_types_are_those_of_transformers(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    theirs, ours = (trained(name, tmp_path, **changed) for name in TRAINERS)
    expected, actual = numbers(theirs), numbers(ours)
    # The order of the samples in a batch differs, and so does the rounding of their sum.
    for name, values in expected.items():
        assert actual[name] == pytest.approx(values, rel=0.02), name
    assert set(ours.model.types) == set(theirs.model.types)
