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
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.callbacks.averaging import WeightAveragingCallback
from trainer_torch.callbacks.loop_callback import Interval, LoopCallback
from trainer_torch.callbacks.profiling import ProfilerCallback
from trainer_torch.callbacks.throughput import ThroughputCallback
from trainer_torch.data.metrics import EvalPrediction
from trainer_torch.evaluation.evaluation_loop import EvalLoopOutput, PredictionOutput
from trainer_torch.hardware.seeding import set_seed
from trainer_torch.loop.training_loop import TrainOutput
from trainer_torch.methods.search import BestRun
from trainer_torch.model.weights import SafeTensors
from trainer_torch.ranks.processes import ParallelMode
from trainer_torch.trainer import Trainer

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
