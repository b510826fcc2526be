"""A PyTorch trainer that fires the events of `callback_core`."""

from __future__ import annotations

from callback_core import (
    EarlyStoppingCallback,
    IntervalStrategy,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from trainer_torch.arguments import TrainingArguments
from trainer_torch.averaging import WeightAveragingCallback
from trainer_torch.evaluation import EvalLoopOutput, PredictionOutput
from trainer_torch.loop import TrainOutput
from trainer_torch.loop_callback import Interval, LoopCallback
from trainer_torch.metrics import EvalPrediction
from trainer_torch.processes import ParallelMode
from trainer_torch.profiling import ProfilerCallback
from trainer_torch.search import BestRun
from trainer_torch.seeding import set_seed
from trainer_torch.throughput import ThroughputCallback
from trainer_torch.trainer import Trainer
from trainer_torch.weights import SafeTensors

__all__ = [
    "BestRun",
    "EarlyStoppingCallback",
    "EvalLoopOutput",
    "EvalPrediction",
    "Interval",
    "IntervalStrategy",
    "LoopCallback",
    "ParallelMode",
    "PredictionOutput",
    "PrinterCallback",
    "ProfilerCallback",
    "ProgressCallback",
    "SafeTensors",
    "ThroughputCallback",
    "TrainOutput",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "WeightAveragingCallback",
    "set_seed",
]
