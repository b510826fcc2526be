"""What each process does and reports for `test_evaluation_ranks.py`: see `distributed_cases.py`."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from typing import Any

import torch
from distributed_cases import PATIENCE, RANK, Plain, labels_of, report
from small import data, trainer
from test_eval_metrics import Accuracy, ByBatch, accuracy

from trainer_torch import EvalPrediction

SAMPLES = 17
"""With 2 in a batch, some processes have a batch more than others, and the last one is short."""


def evaluated(out: Path, metrics: Any, samples: int = SAMPLES, **changed: Any) -> dict[str, Any]:
    made = trainer(
        out,
        given={"model": Plain(), "compute_metrics": metrics, "eval_dataset": data(samples)},
        per_device_eval_batch_size=2,
        **changed,
    )
    speed = ("_runtime", "_second")
    return {name: value for name, value in made.evaluate().items() if not name.endswith(speed)}


def by_batch(out: Path) -> dict[str, Any]:
    """Return the metrics by batch, and what this process saw of the batches."""
    metric = ByBatch()
    metrics = evaluated(out, metric, batch_eval_metrics=True, include_for_metrics=["loss"])
    return {
        "metrics": metrics,
        "labels": [batch.label_ids.tolist() for batch in metric.seen],
        "losses": [batch.losses.tolist() for batch in metric.seen],
        "results": metric.results,
    }


def with_state(out: Path) -> dict[str, Any]:
    """Return the metrics of one with a state, which reaches for other processes when it can."""
    metric = Synced()
    metrics = evaluated(out, metric)
    return {
        "metrics": metrics,
        "available": metric.seen,
        "after": metric.distributed_available_fn(),
    }


class Synced(Accuracy):
    """Would wait for all processes in `compute`, as torchmetrics does if they are available."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []
        self.distributed_available_fn = torch.distributed.is_initialized

    def compute(self) -> Any:
        self.seen.append(self.distributed_available_fn())
        return super().compute()


def predicted(out: Path) -> dict[str, Any]:
    made = trainer(
        out,
        given={"model": Plain(), "preprocess_logits_for_metrics": lambda logits, _: logits[:, 0]},
        per_device_eval_batch_size=2,
        include_for_metrics=["inputs"],
    )
    output = made.predict(data(SAMPLES))
    kept = None if output.predictions is None else len(output.predictions)
    return {"labels": labels_of(output), "kept": kept, "loss": output.metrics["test_loss"]}


def broken(out: Path, by_batch: bool) -> str:
    """Return the error of a function that fails in the main process, where alone it is called."""

    def breaks(prediction: EvalPrediction, compute_result: bool = True) -> Any:
        raise ValueError(f"broken in {RANK}")

    try:
        evaluated(out, breaks, batch_eval_metrics=by_batch)
    except (ValueError, RuntimeError) as error:
        return repr(error)
    return ""


def all_of_them(out: Path) -> dict[str, Any]:
    return {
        "plain": evaluated(out, accuracy),
        "of two": evaluated(out, accuracy, samples=2),
        "by batch": by_batch(out),
        "with state": with_state(out),
        "predicted": predicted(out),
        "broken": [broken(out, False), broken(out, True)],
    }


if __name__ == "__main__":
    faulthandler.dump_traceback_later(1.5 * PATIENCE, exit=True)  # a process that hangs ends
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    report(directory, all_of_them(directory))
