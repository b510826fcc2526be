"""`StatefulDataLoader` of torchdata as the loader of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import TinyDataset, TinyModel
from torchdata.stateful_dataloader import StatefulDataLoader

from trainer_torch import Trainer, TrainingArguments


class Own(Trainer):
    """Trains with a `StatefulDataLoader`, and keeps what it yields."""

    def __init__(self, output_dir: Path, workers: int) -> None:
        self.seen: list[Any] = []
        self.loader = StatefulDataLoader(
            TinyDataset(20), batch_size=4, shuffle=True, num_workers=workers
        )
        args = TrainingArguments(
            output_dir=str(output_dir),
            num_train_epochs=3,
            save_strategy="steps",
            save_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        torch.manual_seed(0)
        super().__init__(TinyModel(), args)

    def get_train_dataloader(self) -> Any:
        return self.loader

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(inputs["x"].tolist())
        return super().compute_loss(model, inputs, *args, **kwargs)


@pytest.mark.parametrize(("workers", "step"), [(0, 3), (0, 5), (2, 5), (2, 7)])
def test_a_training_resumes_exactly_with_the_loader_of_torchdata(
    tmp_path: Path, workers: int, step: int
) -> None:
    whole = Own(tmp_path / "whole", workers)
    whole.train()
    resumed = Own(tmp_path / "resumed", workers)
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{step}")
    assert resumed.seen == whole.seen[step:]
    assert whole.seen[0] != whole.seen[5] != whole.seen[10]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
