"""Models and data of tokens, whose mean loss leaves out padded labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small import arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from callback_core import TrainerCallback
from trainer_torch import Trainer

VOCABULARY = 7
LENGTHS = (1, 9, 2, 8, 3, 0, 5, 4, 6, 2)
"""The number of labels in each sequence. The others are -100."""


def sequences(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, Tensor]]:
    """Return sequences of ten tokens, some of them padding."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for length in lengths:
        tokens = torch.randint(VOCABULARY, (10,), generator=generator)
        labels = torch.where(torch.arange(10) < length, tokens.flip(0), -100)
        made.append({"tokens": tokens, "labels": labels})
    return made


def token_losses(scores: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    return cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction=reduction)


class Scores(nn.Module):
    """Returns scores only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY))

    def forward(self, tokens: Tensor) -> Any:
        return self.layers(tokens)


class Mean(Scores):
    """Returns the mean loss over the tokens of a batch, whatever else it is given."""

    def forward(self, tokens: Tensor, labels: Tensor, **ignored: Any) -> Any:
        scores = super().forward(tokens)
        return {"loss": token_losses(scores, labels), "logits": scores}


class Divides(Scores):
    """Divides by the number of tokens that it is given."""

    def forward(
        self, tokens: Tensor, labels: Tensor, num_items_in_batch: int | None = None
    ) -> tuple[Tensor, Tensor]:
        scores = super().forward(tokens)
        if num_items_in_batch is None:
            return token_losses(scores, labels), scores
        return token_losses(scores, labels, "sum") / num_items_in_batch, scores


class Steps(TrainerCallback):
    """Notes the gradients of each update step."""

    def __init__(self) -> None:
        self.gradients: list[list[Tensor]] = []

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.gradients.append([weight.grad.clone() for weight in model.parameters()])


def gradients_of(
    directory: Path,
    make: Callable[[], dict[str, Any]],
    kind: type[Trainer] = Trainer,
    lengths: tuple[int, ...] = LENGTHS,
    **changed: Any,
) -> tuple[list[list[Tensor]], list[float]]:
    """Train without changing weights, on sequences in their order.

    Returns:
        The gradients and the logged losses, each with an item for each update step.
    """
    seen = Steps()
    args = arguments(directory, num_train_epochs=1, learning_rate=0.0, max_grad_norm=0.0, **changed)
    trainer = kind(args=args, train_dataset=InOrder(sequences(lengths)), callbacks=[seen], **make())
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return seen.gradients, losses


class InOrder(torch.utils.data.IterableDataset[Any]):
    """Yields samples in their order. Its length is known."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)
