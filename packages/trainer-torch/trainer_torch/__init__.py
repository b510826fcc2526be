"""A PyTorch trainer that fires the events of `callback_core`."""

from __future__ import annotations

from trainer_torch.arguments import TrainingArguments
from trainer_torch.averaging import WeightAveragingCallback
from trainer_torch.evaluation import EvalLoopOutput, PredictionOutput
from trainer_torch.loop import TrainOutput
from trainer_torch.loop_callback import Interval, LoopCallback
from trainer_torch.metrics import EvalPrediction
from trainer_torch.processes import ParallelMode
from trainer_torch.profiling import ProfilerCallback
from trainer_torch.search import BestRun
from trainer_torch.throughput import ThroughputCallback
from trainer_torch.trainer import Trainer

__all__ = [
    "BestRun",
    "EvalLoopOutput",
    "EvalPrediction",
    "Interval",
    "LoopCallback",
    "ParallelMode",
    "PredictionOutput",
    "ProfilerCallback",
    "ThroughputCallback",
    "TrainOutput",
    "Trainer",
    "TrainingArguments",
    "WeightAveragingCallback",
]
