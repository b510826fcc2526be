"""A PyTorch trainer that fires the events of `callback_core`."""

from __future__ import annotations

from trainer_torch.arguments import TrainingArguments
from trainer_torch.evaluation import EvalPrediction, PredictionOutput
from trainer_torch.loop import TrainOutput
from trainer_torch.processes import ParallelMode
from trainer_torch.trainer import Trainer

__all__ = [
    "EvalPrediction",
    "ParallelMode",
    "PredictionOutput",
    "TrainOutput",
    "Trainer",
    "TrainingArguments",
]
