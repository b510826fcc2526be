"""Runs one example of docs/from-transformers-trackers.md with transformers' Trainer.

    python moving.py SECTION NUMBER

SECTION is a heading of the page, NUMBER that of a code block in it. The working directory gets
everything that the trackers write, and the Trainer's own log as `history.json`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

PAGE = Path(__file__).parents[2] / "docs" / "from-transformers-trackers.md"


class Model(nn.Module):
    """A regression on two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.linear(x)
        return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}


def example(section: str, number: int) -> str:
    """Return the Python of a code block in a section of the page."""
    text = PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number]


def main(section: str, number: int) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 40).reshape(20, 2)
    dataset = [{"x": row, "labels": row.sum().reshape(1)} for row in x]
    arguments = partial(
        transformers.TrainingArguments,
        per_device_train_batch_size=2,
        max_steps=6,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    names: dict[str, Any] = {
        "os": os,
        "Trainer": transformers.Trainer,
        "TrainingArguments": arguments,
        "model": Model(),
        "dataset": dataset,
        "held_out": dataset[:4],
    }
    exec(example(section, number), names)
    names["trainer"].train()
    Path("history.json").write_text(json.dumps(names["trainer"].state.log_history))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
