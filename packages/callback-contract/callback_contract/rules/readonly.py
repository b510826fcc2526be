"""Read-only: the control is the only thing that a callback changes."""

from __future__ import annotations

import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from callback_contract._case import Case, Training
from callback_contract._rule import rule
from callback_contract._watching import Watched, files_below


@rule(
    "ROY-001",
    why="WandbCallback sets args.run_name to None in a search, so that whoever reads it after "
    "that finds none (transformers 4.34.0 and 5.23.0).",
    mend="Copy what you want to change: `dataclasses.replace`, or `args.to_dict()`.",
)
def leaves_the_arguments(case: Case) -> None:
    """The arguments are the same after every event."""
    Watched(case, "the arguments", lambda training, _: training.args.to_dict()).live()


@rule(
    "ROY-002",
    why="The state is written to checkpoints and shared by all callbacks: whatever one puts "
    "there, a resumed training begins with (huggingface/transformers#33875).",
    mend="Keep what you count on the callback, and in its own state_dict.",
)
def leaves_the_state(case: Case) -> None:
    """The `TrainerState` is the same after every event, `log_history` included."""
    Watched(case, "the state", lambda training, _: asdict(training.state)).live()


@rule(
    "ROY-003",
    why="wandb.watch puts hooks on the model, which then can no longer be saved "
    "(wandb/wandb#5573), and aborts on a model that is not torch's "
    "(unslothai/unsloth-zoo#873).",
    mend="Look at the model, and keep what you find on the callback.",
)
def leaves_the_model(case: Case) -> None:
    """The model's attributes, weights and configuration are the same after every event."""
    Watched(case, "the model", _model).live()


@rule(
    "ROY-004",
    why="A model was switched to evaluation to write samples to the log, and never back: the "
    "rest of the training had no dropout (shubhamagarwal92/mmd#14).",
    mend="Put the mode back: `was = model.training`, and `model.train(was)` in a finally.",
)
def leaves_the_mode(case: Case) -> None:
    """The model is in the mode, of training or of evaluation, in which it was before an event."""
    Watched(case, "the model's mode", lambda training, _: training.model.training).live()


@rule(
    "ROY-005",
    why="PrinterCallback took total_flos out of the shared logs, which then was missing from "
    "what train() returns (transformers 5.23.0).",
    mend="Begin with `logs = dict(logs)` where you change them.",
)
def leaves_the_logs(case: Case) -> None:
    """`logs` is the same after `on_log`."""
    Watched(case, "the logs", lambda _, keywords: keywords.get("logs")).live()


@rule(
    "ROY-006",
    why="NotebookProgressCallback takes epoch and the runtimes out of the caller's metrics: in "
    "a notebook, evaluate() returns fewer of them (transformers 5.23.0).",
    mend="Begin with `metrics = dict(metrics)` where you change them.",
)
def leaves_the_metrics(case: Case) -> None:
    """`metrics` is the same after `on_evaluate` and `on_predict`."""
    Watched(case, "the metrics", lambda _, keywords: keywords.get("metrics")).live()


@rule(
    "ROY-007",
    why="One number drawn by a callback, and a run with it is no longer the run without it; nor"
    " is a resumed one that of before (huggingface/transformers#39215, "
    "huggingface/transformers#17032).",
    mend="Draw from a generator of your own: `random.Random(seed)`, `torch.Generator()`.",
)
def leaves_the_random_generators(case: Case) -> None:
    """The generators of `random`, and of numpy and torch where they are loaded, are not moved."""
    Watched(case, "a random generator", lambda *_: _generators()).live()


@rule(
    "ROY-008",
    why="What is in a checkpoint is listed with its hash before callbacks hear of it; a file "
    "more or less makes it a broken one (huggingface/transformers#27820).",
    mend="Write beside the checkpoint; copy what has to be changed.",
)
def leaves_checkpoints(case: Case) -> None:
    """The files of a checkpoint are the same after `on_save`, and after all that follows."""
    Watched(case, "a checkpoint", _checkpoints).live()


def _checkpoints(training: Training, keywords: dict[str, Any]) -> dict[str, bytes]:
    return {
        f"{folder.name}/{name}": content
        for folder in Path(training.args.output_dir).glob("checkpoint-*")
        for name, content in files_below(folder).items()
    }


def _model(training: Training, keywords: dict[str, Any]) -> dict[str, Any]:
    model = training.model
    attributes = {name: value for name, value in vars(model).items() if name != "training"}
    return attributes | {"config": dict(vars(model.config))}


def _generators() -> dict[str, Any]:
    """Return where the generators are, as something that can be compared."""
    found: dict[str, Any] = {"random": random.getstate()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        found["numpy"] = repr(numpy.random.get_state())
    if torch is not None:
        found["torch"] = bytes(torch.get_rng_state().tolist())
    return found
