"""The cases of the distributed tests: what each process does and reports.

Run as `torchrun ... distributed_cases.py CASE DIRECTORY`: each rank writes what `CASE` returns to
`rank<number>.json` in that directory.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from resuming import EVERY_STEP
from small import arguments, compute_loss, data, logged, net, trainer
from test_checkpoint import Noisy, steps_of
from token_models import Divides, Mean, gradients_of
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset

from callback_core import ProgressCallback, TrainerCallback
from trainer_torch import EvalPrediction, Trainer
from trainer_torch.data.position import LoopPosition
from trainer_torch.data.reading import begin_epoch

RANK = int(os.environ.get("RANK", "0"))
PATIENCE = 240  # seconds that a rank waits for the others; they only end what hangs


class Plain(nn.Module):
    """A network whose training draws no random numbers, with running statistics."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        middle = nn.BatchNorm1d(8) if norm else nn.Tanh()
        self.layers = nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 3))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Asks(TrainerCallback):
    """Switches a flag on at an event of a step, in one process only."""

    def __init__(self, flag: str, event: str = "on_step_end", step: int = 2) -> None:
        self.flag, self.step = flag, step
        if RANK == 1:
            setattr(self, event, self.ask)

    def ask(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            setattr(control, self.flag, True)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Make the handler call this event, which `__init__` may replace."""


class Notes(TrainerCallback):
    """Notes the steps at which something is done."""

    def __init__(self) -> None:
        self.happened: list[Any] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.happened.append(["log", state.global_step])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.happened.append(["evaluate", state.global_step])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.happened.append(["save", state.global_step])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.happened.append(["epoch", state.global_step])


def weights(trained: Trainer) -> list[Any]:
    return [parameter.tolist() for parameter in trained.model.parameters()]


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())}


def curve(out: Path, batch_size: int, **changed: Any) -> dict[str, Any]:
    """Return the results of a training without random numbers, and of its evaluation."""
    given = {"model": Plain(), "compute_metrics": accuracy}
    trained = trainer(
        out,
        given=given,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=2,
        eval_strategy="epoch",
        **changed,
    )
    output = trained.train()
    predicted = trained.predict(data(9))
    return {
        "losses": logged(trained, "loss"),
        "grad_norms": logged(trained, "grad_norm"),
        "train_loss": output.training_loss,
        "weights": weights(trained),
        "epochs": logged(trained, "epoch"),
        "eval_losses": logged(trained, "eval_loss"),
        "accuracies": logged(trained, "eval_accuracy"),
        "predictions": None if RANK else predicted.predictions.tolist(),
        "labels": labels_of(predicted),
    }


def noisy(out: Path, *callbacks: Any) -> Trainer:
    """Return a training that draws from every generator, and saves each step."""
    given = {"model": net(), "train_dataset": Noisy()}
    return trainer(
        out,
        *callbacks,
        given=given,
        per_device_train_batch_size=2,
        logging_steps=3,
        ddp_timeout=PATIENCE,
        **EVERY_STEP,
    )


def results(trained: Trainer) -> dict[str, Any]:
    """Return the results of a training, and the next random number."""
    return {
        "losses": logged(trained, "loss"),
        "train_loss": logged(trained, "train_loss"),
        "weights": weights(trained),
        "noise": torch.rand(1).item(),
    }


def asked(out: Path, asks: TrainerCallback, **changed: Any) -> dict[str, Any]:
    """Return what happens in each process after a request in one."""
    notes = Notes()
    usual = {"logging_strategy": "no", "max_steps": 4, "eval_strategy": "epoch", "eval_delay": 99}
    trained = trainer(out, asks, notes, **{**usual, **changed})
    trained.train()
    saved = out / "checkpoint-2" / "trainer_state.json"
    return {
        "happened": notes.happened,
        "step": trained.state.global_step,
        "requests": [str(request) for request in trained.control.requests],
        "saved": json.loads(saved.read_text())["stateful_callbacks"]["TrainerControl"]
        if saved.exists()
        else None,
    }


def flags(out: Path) -> dict[str, Any]:
    within = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
    return {
        "stop": asked(out / "1", Asks("should_training_stop")),
        "epoch": asked(out / "2", Asks("should_epoch_stop")),
        "save": asked(out / "3", Asks("should_save")),
        "evaluate": asked(out / "4", Asks("should_evaluate")),
        "log": asked(out / "5", Asks("should_log")),
        "substep": asked(
            out / "6", Asks("should_training_stop", "on_substep_end", step=1), **within
        ),
        "at log": asked(
            out / "7", Asks("should_evaluate", "on_log"), logging_strategy="steps", logging_steps=2
        ),
        "at evaluate": asked(
            out / "8", Asks("should_training_stop", "on_evaluate", step=3), eval_delay=0
        ),
        "at epoch end": asked(out / "9", Asks("should_save", "on_epoch_end", step=3)),
    }


class Rows(nn.Module):
    """An embedding of the signs of the features, and a layer."""

    def __init__(self, is_sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rows, self.head = nn.Embedding(2, 4, sparse=is_sparse), nn.Linear(4, 3)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(self.rows((features > 0).long()).mean(dim=1))
        return found


def rows(out: Path) -> list[list[float]]:
    """Return the losses of an embedding whose gradients are sparse, and of one that is not."""
    changed: dict[str, Any] = {"optim": "sgd", "max_steps": 3}
    losses = []
    for is_sparse in (True, False):
        trained = trainer(out, given={"model": Rows(is_sparse)}, **changed)
        trained.train()
        losses.append(logged(trained, "loss"))
    return losses


def tokens(out: Path) -> list[Any]:
    """Return the gradients of update steps on padded sequences, for each way to give the loss."""
    changed = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    made = []
    for kind in (Mean, Divides):
        gradients, losses = gradients_of(
            out / kind.__name__, lambda kind=kind: {"model": kind()}, **changed
        )
        flat = [torch.cat([part.flatten() for part in step]).tolist() for step in gradients]
        made.append({"gradients": flat, "losses": losses})
    return made


def wrapping(out: Path) -> dict[str, Any]:
    """Return what compute_loss and callbacks are given as the model, and when gradients meet."""

    def loss_of(model: Any, batch: Any) -> Any:
        if model.training:
            given.append(model)
            averaging.append(getattr(model, "require_backward_grad_sync", None))
        else:
            evaluated.append(type(model).__name__)
        return compute_loss(model, batch)

    class Sees(TrainerCallback):
        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            seen.append(type(model).__name__)
            bars.append(progress.training_bar is not None)

    given: list[Any] = []
    averaging: list[Any] = []
    evaluated: list[str] = []
    seen: list[str] = []
    bars: list[bool] = []
    trained = trainer(
        out,
        Sees,
        given={"model": Plain(), "compute_loss": loss_of},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        max_steps=2,
        eval_strategy="epoch",
        disable_tqdm=False,
        save_strategy="epoch",
    )
    progress = next(c for c in trained.callback_handler.callbacks if type(c) is ProgressCallback)
    trained.train()
    trained.save_model(out / "weights")
    trained.log({"said_by": "the bar"})
    printing = trainer(out)
    printing.log({"said_by": "the printer"})
    wrapped = DistributedDataParallel(Plain())
    own = trainer(out / "own", given={"model": wrapped}, max_steps=1)
    own.train()
    return {
        "given": sorted({type(model).__name__ for model in given}),
        "averaging": averaging,
        "evaluated": sorted(set(evaluated)),
        "seen": sorted(set(seen)),
        "bars": sorted(set(bars)),
        "main": [trained.is_world_process_zero(), trained.is_local_process_zero()],
        "wrapped": type(trained.model_wrapped).__name__,
        "own": [type(own.model).__name__, own.state.global_step],
    }


class Stream(IterableDataset[Any]):
    """The first samples of the data, as a dataset of unknown length."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        yield from (data()[index] for index in range(self.samples))


class OwnLoader(Trainer):
    """Has more to train on in one process than in the other."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Stream(12 if RANK == 0 else 7), batch_size=2)


def streams(out: Path) -> dict[str, Any]:
    """Return the results of training with data of unknown length."""
    uneven = OwnLoader(
        Plain(),
        arguments(
            out,
            max_steps=5,
            gradient_accumulation_steps=3,
            logging_strategy="no",
            ddp_timeout=PATIENCE,
        ),
        compute_loss=compute_loss,
    )
    ends = Notes()
    uneven.add_callback(ends)
    uneven.train()
    shared = trainer(
        out,
        given={"train_dataset": Stream(13), "eval_dataset": Stream(5)},
        max_steps=3,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
    )
    shared.train()
    position = LoopPosition(torch.device("cpu"))
    position.add_batch()
    batches = begin_epoch(shared.train_dataloader, shared.args, position)
    return {
        "uneven": [uneven.state.global_step, ends.happened],
        "taken": [batch[1].tolist() for batch in batches],
        "eval_loss": shared.evaluate()["eval_loss"],
        "labels": labels_of(shared.predict(Stream(5))),
        "prediction of one": labels_of(shared.predict(Stream(1))),
    }


def labels_of(output: Any) -> Any:
    """Return the labels, or `None` in other processes than the main one."""
    return None if output.label_ids is None else output.label_ids.tolist()


def evaluations(out: Path) -> dict[str, Any]:
    """Return the metrics of processes that would compute different ones."""
    evaluated = trainer(
        out,
        given={"compute_metrics": lambda evaluated: {"score": float(RANK)}, "model": Plain(True)},
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        metric_for_best_model="score",
        load_best_model_at_end=True,
        save_total_limit=1,
    )
    evaluated.train()
    return {
        "metrics": [
            {name: value for name, value in entry.items() if name.startswith("eval_")}
            for entry in evaluated.state.log_history
            if "eval_score" in entry
        ],
        "best": [evaluated.state.best_metric, evaluated.state.best_model_checkpoint],
        "statistics": evaluated.model.layers[1].running_mean.tolist(),  # type: ignore[index,union-attr]
    }


def ended_by_signal(out: Path) -> dict[str, Any]:
    """Return how a signal to one process ends the training in each."""

    class Terminated(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if RANK == 1 and state.global_step == 2:
                signal.raise_signal(signal.SIGTERM)

    trained = trainer(out, Terminated, enable_jit_checkpoint=True, per_device_train_batch_size=2)
    try:
        trained.train()
    except SystemExit as ended:
        return {
            "code": ended.code,
            "step": trained.state.global_step,
            "saved": steps_of(out),
            "reasons": [request.reason for request in trained.control.requests],
        }
    return {}


def failing_save(out: Path) -> str:
    """Return the error that each process ends by when the main one cannot write."""

    class Unwritable(Plain):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            if saving and RANK == 0:
                raise OSError("no space left on device")
            return super().state_dict(*args, **kwargs)

    class Begins(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            saving.append(True)

    saving: list[bool] = []
    try:
        trainer(out, Begins, given={"model": Unwritable()}, **EVERY_STEP).train()
    except Exception as error:
        return repr(error)
    return "none"


def resumed_with_more(out: Path) -> dict[str, Any]:
    """Return the result of resuming a checkpoint of one process in two."""
    warnings: list[Any] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.args)  # type: ignore[method-assign]
    logging.getLogger("trainer_torch").addHandler(handler)
    trained = trainer(out, per_device_train_batch_size=2)
    trained.train(resume_from_checkpoint=out / "checkpoint-4")
    return {
        "warned": [args for args in warnings if args == (1, 2)],
        "step": trained.state.global_step,
        "epoch": trained.state.log_history[4]["epoch"],
    }


def in_half_precision(out: Path) -> dict[str, Any]:
    """Return what this rank has after an overflow in the third batch of the other one."""
    batches: list[int] = []

    def loss(model: nn.Module, batch: list[Tensor]) -> Any:
        loss, scores = compute_loss(model, batch)
        batches.append(len(batch))
        return loss * (1e38 if RANK == 1 and len(batches) == 3 else 1.0), scores

    trained = trainer(
        out,
        given={"compute_loss": loss},
        per_device_train_batch_size=2,
        fp16=True,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"modules": ["Sequential"]},
        max_steps=5,
    )
    trained.train()
    try:
        trainer(out, auto_find_batch_size=True)
    except ValueError as error:
        refused = repr(error)
    return {
        "scale": trained.run.precision.state_dict()["scale"],
        "rate": trained.run.lr_scheduler.get_last_lr()[0],
        "weights": [parameter.tolist() for parameter in trained.model.parameters()],
        "refused": refused,
    }


def muon_on_plateau(out: Path) -> dict[str, Any]:
    """Train by Muon, by a schedule that follows a metric, and resume it."""

    def make(output_dir: Path) -> Trainer:
        return trainer(
            output_dir,
            optim="muon",
            lr_scheduler_type="reduce_lr_on_plateau",
            lr_scheduler_kwargs={"patience": 0, "threshold": 0.2},
            eval_strategy="steps",
            eval_steps=1,
            **EVERY_STEP,
        )

    whole = make(out)
    whole.train()
    of_whole = results(whole)
    resumed = make(out / "resumed")
    resumed.train(out / "checkpoint-2")
    return {"whole": of_whole, "resumed": results(resumed)}


def together(out: Path) -> dict[str, Any]:
    whole = noisy(out / "whole")
    whole.train()
    of_whole = results(whole)
    resumed = noisy(out.parent / "killed")
    resumed.train(resume_from_checkpoint=True)
    return {
        "whole": of_whole,
        "resumed": results(resumed),
        "curve": curve(out / "curve", 2),
        "accumulated": curve(out / "accumulated", 1, gradient_accumulation_steps=3),
        "tokens": tokens(out / "tokens"),
        "rows": rows(out / "rows"),
        "flags": flags(out / "flags"),
        "wrapping": wrapping(out / "wrapping"),
        "streams": streams(out / "streams"),
        "evaluations": evaluations(out / "evaluations"),
        "muon": muon_on_plateau(out / "muon"),
        "signal": ended_by_signal(out / "signal"),
        "failing save": failing_save(out / "failing"),
        "half": in_half_precision(out / "half"),
        "more": resumed_with_more(out.parent / "single"),
    }


def roles(out: Path) -> dict[str, Any]:
    """Return what arguments say of the process, and the training with options of DDP."""
    usual: dict[str, Any] = {"gradient_accumulation_steps": 3, "ddp_timeout": PATIENCE}
    options: dict[str, Any] = {"ddp_static_graph": True, "ddp_bucket_cap_mb": 1}
    args = arguments(out, ddp_backend="gloo", **usual)
    known = [args.process_index, args.local_process_index, args.world_size]
    seen = []
    for number in range(2):
        with args.main_process_first(desc="writing"):
            seen.append((out / f"{number}.txt").exists())
            (out / f"{number}.txt").touch()
    return {
        "known": known,
        "connected": [args.process_index, args.local_process_index, args.world_size],
        "flags": [args.should_log, args.should_save, args.parallel_mode.value],
        "seen": seen,
        "usual": curve(out, 2, **usual),
        "optimized": curve(out, 2, **usual, **options),
    }


def killed(out: Path) -> None:
    """Train until one of the processes is killed."""

    class Kills(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if RANK == 1 and state.global_step == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    noisy(out, Kills).train()


def broken(out: Path) -> None:
    """Train until a callback of one of the processes fails, and note how callbacks are closed."""

    class Breaks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if RANK == 1 and state.global_step == 2:
                raise ValueError("broken on purpose")

        def on_exception(
            self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
        ) -> None:
            report(out, ["exception", repr(exception)])

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            report(out, [*json.loads((out / f"rank{RANK}.json").read_text()), "end"])

    noisy(out, Breaks).train()


def report(out: Path, value: Any) -> None:
    (out / f"rank{RANK}.json").write_text(json.dumps(value))


CASES: dict[str, Callable[[Path], Any]] = {
    case.__name__: case for case in (together, roles, killed, broken)
}


def main(cases: dict[str, Callable[[Path], Any]]) -> None:
    """Run the case that the command line names, and report what it returns."""
    faulthandler.dump_traceback_later(1.5 * PATIENCE, exit=True)  # a process that hangs ends
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    reported = cases[sys.argv[1]](directory)
    if reported is not None:
        report(directory, reported)


if __name__ == "__main__":
    main(CASES)
