"""Checks before training starts that find errors which would otherwise occur in the middle."""

from __future__ import annotations

import copy
import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from callback_core import IntervalStrategy, best_metric_key, export_states, missing_metric
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.batches import describe, forward, to_device
from trainer_torch.data.outputs import ignored_outputs, require_loss, split_output
from trainer_torch.data.reading import can_start_anywhere
from trainer_torch.evaluation.summary import METRICS, unknown_size
from trainer_torch.hardware.devices import is_out_of_memory
from trainer_torch.hardware.seeding import preserved_rng
from trainer_torch.messages import listed
from trainer_torch.model.sharded_optimizer import split_state
from trainer_torch.model.weights import refusal
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.values import loadable
from trainer_torch.wrapping import is_sharded

logger = logging.getLogger(__name__)


def check_training(run: TrainingRun) -> None:
    """Check a training that is about to begin.

    Raises:
        TypeError: The state of the optimizer, the scheduler or a callback could not be loaded.
        ValueError: The scheduler needs a metric and there is none; a checkpoint would not be
            evaluated; the output directory cannot be written, or is not that of all processes; the
            weights cannot be saved; or the optimizer is that of another model.
    """
    args, state = run.args, run.state
    _check_optimizer(run.model, run.optimizer)
    is_main_thread = threading.current_thread() is threading.main_thread()
    if args.enable_jit_checkpoint and not is_main_thread:
        run.warn_once(
            "enable_jit_checkpoint has no effect: Python delivers signals to the main thread only, "
            "and this training runs in another thread. A signal ends the program without a new "
            "checkpoint, unless the program handles it. Call train() in the main thread."
        )
    if state.global_step == 0 and getattr(run.lr_scheduler, "last_epoch", 0) > 0:
        logger.warning(
            "The scheduler in optimizers has already done %d steps, in another training, and "
            "continues from there. Pass a new one to start from the beginning.",
            run.lr_scheduler.last_epoch,
        )
    if isinstance(run.lr_scheduler, ReduceLROnPlateau) and args.metric_for_best_model is None:
        raise ValueError(
            "ReduceLROnPlateau steps on a metric: set metric_for_best_model, for example to 'loss'."
        )
    if (
        args.load_best_model_at_end
        and args.save_strategy == IntervalStrategy.STEPS
        and state.save_steps % state.eval_steps != 0
    ):
        raise ValueError(
            "load_best_model_at_end needs an evaluation at every checkpoint, but for "
            f"{state.max_steps} steps, save_steps is {state.save_steps} and eval_steps is "
            f"{state.eval_steps}."
        )
    loader = run.train_dataloader
    if getattr(loader, "persistent_workers", False) and not can_start_anywhere(loader):
        logger.warning(
            "The persistent workers of your data loader are started again for each epoch. "
            "Otherwise, neither set_epoch nor a new seed would reach them."
        )
    if args.save_strategy != IntervalStrategy.NO:
        _check_saving(args.output_dir, run.model)
        if args.save_on_each_node:
            _check_own_disk(run)
        if is_sharded(run.model):
            _check_common_disk(run)
        optimizer_state = run.optimizer.state_dict()
        if is_sharded(run.model):
            optimizer_state, _ = split_state(optimizer_state)
        loadable(optimizer_state, "The optimizer's state")
        loadable(run.lr_scheduler.state_dict(), "The scheduler's state")
        _check_states(run.callback_handler.callbacks)


def check_metric(args: TrainingArguments, eval_dataset: object) -> None:
    """Check `metric_for_best_model`, if evaluations report their loss and speed only.

    Raises:
        ValueError: No evaluation will report it.
    """
    if args.metric_for_best_model is None or args.eval_strategy == IntervalStrategy.NO:
        return
    names = eval_dataset if isinstance(eval_dataset, Mapping) else ()
    prefixes = [f"eval_{name}" for name in names] or ["eval"]
    reported = [f"{prefix}_{metric}" for prefix in prefixes for metric in METRICS]
    if best_metric_key(args.metric_for_best_model) not in reported:
        raise missing_metric(args.metric_for_best_model, reported)


def _check_own_disk(run: TrainingRun) -> None:
    """Check that no two machines save into one directory, where they would spoil each other's.

    Raises:
        ValueError: They do.
    """
    world, output_dir = run.world, Path(run.args.output_dir)
    marks = [output_dir / f".saved_by_rank_{rank}" for rank in range(world.size)]
    is_writer = world.local_rank == 0
    if is_writer:
        marks[world.rank].touch()
    writers = world.gather(is_writer)
    found = [mark for mark, writes in zip(marks, writers, strict=True) if writes and mark.exists()]
    are_shared = any(world.gather(is_writer and len(found) > 1))
    if is_writer:
        marks[world.rank].unlink()
    if are_shared:
        raise ValueError(
            f"save_on_each_node is True, but several machines share the directory {output_dir}. "
            "Leave it out: then only the main process saves."
        )


def _check_common_disk(run: TrainingRun) -> None:
    """Check that all processes see the directory of the main one, into which they save together.

    Raises:
        ValueError: Some do not. The message names them.
    """
    world, output_dir = run.world, Path(run.args.output_dir).absolute()
    with ExitStack() as stack:
        name = ""
        if world.is_main:
            mark = stack.enter_context(TemporaryDirectory(prefix=".common-", dir=output_dir))
            name = Path(mark).name
        seen = (output_dir / world.gather(name)[0]).is_dir()
        places = world.gather((seen, f"({socket.gethostname()}, {output_dir})"))
    blind = [f"rank {rank} {place}" for rank, (seen, place) in enumerate(places) if not seen]
    if blind:
        raise ValueError(
            "All processes write a checkpoint of a sharded model together, so they need a common "
            f"disk. These do not see the output_dir of the main process: {listed(blind)}. Choose "
            "an output_dir on a disk that all share, or set save_strategy to 'no'."
        )


def _check_states(callbacks: Iterable[Any]) -> None:
    """Check that the states of callbacks can be saved, as far as they have one before training."""
    for callback in callbacks:
        state_dict = getattr(callback, "state_dict", None)
        if not callable(state_dict) or getattr(callback, "on_error", "raise") == "isolate":
            continue
        try:
            state_dict()
        except Exception as error:  # it may need what on_train_begin makes
            logger.debug("%s has no state before training: %r", type(callback).__name__, error)
        else:
            export_states([callback], {})


def _check_optimizer(model: nn.Module, optimizer: Any) -> None:
    """Check that `optimizer` trains the model, and warn if it misses a part of it."""
    trainable = {id(one): name for name, one in model.named_parameters() if one.requires_grad}
    own = {id(one) for one in model.parameters()}
    optimized = {id(one) for group in optimizer.param_groups for one in group["params"]}
    missed = [name for one, name in trainable.items() if one not in optimized]
    if trainable and len(missed) == len(trainable):
        raise ValueError(
            f"The optimizer has no parameter of the model, {type(model).__name__}, so the model "
            "would not be trained. Make the optimizer of the parameters of the model that you pass "
            "to the Trainer."
        )
    if missed and optimized - own:
        logger.warning(
            "The optimizer lacks parameters of the model, and has others, which the model does not "
            "have. Were layers replaced after it was made? These are not trained: %s.",
            listed(missed),
        )


def _check_saving(output_dir: str, model: nn.Module) -> None:
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir cannot be created: {error}. Choose another.") from error
    try:
        with TemporaryDirectory(prefix=".writable-", dir=output_dir):
            pass
    except OSError as error:
        raise ValueError(
            f"Nothing can be written to output_dir, so no checkpoint could be saved: {error}. "
            "Choose another, or set save_strategy to 'no'."
        ) from error
    for name, value in model.state_dict().items():
        if (reason := refusal(value)) is not None:
            raise ValueError(
                f"The model's state has {name!r}, which {reason} and cannot be saved as "
                "safetensors. Convert it, register it as a buffer with persistent=False if the "
                "model can do without it, or set save_strategy to 'no'."
            )


class EvaluationStep(Protocol):
    """What the check of an evaluation calls."""

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool
    ) -> tuple[Tensor | None, Any, Any]:
        """Return the loss, predictions and labels of a batch; `None` for what is missing."""

    def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
        """Return the number of samples in a batch, or `None` if it is unknown."""


def check_model(
    run: TrainingRun,
    needs_predictions: bool,
    hooks: EvaluationStep,
    evaluated: Iterable[DataLoader[Any]],
) -> None:
    """Run a copy of a model that returns its own loss on one batch. The model stays as it is.

    Only data that the Trainer itself loads is read, because reading other data might use it up. A
    model that cannot be copied, such as a sharded one, is not checked. Neither is one whose copy
    does not fit into memory. In these cases, the first step finds what is wrong.

    Args:
        run: The training.
        needs_predictions: Whether the model must return predictions too.
        hooks: Evaluates a batch.
        evaluated: Loaders of evaluations. One batch of each is evaluated too.

    Raises:
        ValueError: The model returns no loss to train on, or no predictions although
            `needs_predictions`; or an evaluation would have no mean loss.
    """
    loader = run.train_dataloader
    if not can_start_anywhere(loader) or loader.is_iterable or is_sharded(run.model):
        return
    with preserved_rng():
        try:
            model = copy.deepcopy(run.model)
        except Exception as error:
            logger.debug("The model is not checked before training, as it has no copy: %r", error)
            return
        checked = "train_dataset"
        try:
            batch = to_device(_first_samples(loader), run.args.device)
            with run.precision.autocast():
                _check_outputs(model, batch, needs_predictions)
            checked = "an evaluation dataset"
            for one in evaluated:
                _check_evaluation(model, one, hooks)
        except Exception as error:
            if is_out_of_memory(error):
                logger.debug("The model is not checked: a copy of it does not fit in memory.")
                return
            error.add_note(
                "This error comes from a check before training, which runs a copy of the model on "
                f"one batch of {checked}. Nothing has been trained or logged yet."
            )
            raise


def _first_samples(loader: DataLoader[Any]) -> Any:
    """Return the first samples of the dataset of `loader` as a batch.

    They are loaded in a process of their own if `loader` does so, because some datasets must not be
    used in this process before their workers start, for example those with an open file.
    """
    count = min(loader.batch_size or 1, len(loader.dataset))  # type: ignore[arg-type]
    samples: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=count,
        sampler=range(count),
        collate_fn=loader.collate_fn,
        num_workers=min(1, loader.num_workers),
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),
    )
    return next(iter(samples))


def _check_evaluation(model: nn.Module, loader: DataLoader[Any], hooks: EvaluationStep) -> None:
    """Evaluate a batch. Its size must be known if its loss is one of several."""
    batch = _first_samples(loader)
    loaded, samples = loader.batch_size or 1, len(loader.dataset)  # type: ignore[arg-type]
    size = hooks.get_batch_size(batch, min(loaded, samples))
    loss = hooks.prediction_step(model.eval(), batch, True)[0]
    if loss is not None and size is None and samples > loaded:
        raise unknown_size(describe(batch))


def _check_outputs(model: nn.Module, batch: Any, needs_predictions: bool) -> None:
    output = forward(model.train(), batch)
    require_loss(output, lambda: type(model).__name__, batch)
    predictions = split_output(output, ignored_outputs(model))[1]
    if needs_predictions and predictions is None:
        with torch.no_grad():  # some models return predictions only then
            output = forward(model.eval(), batch)
        predictions = split_output(output, ignored_outputs(model))[1]
    if needs_predictions and predictions is None:
        raise ValueError(
            "compute_metrics needs predictions, but the model returns only a loss. Return both: "
            "(loss, predictions)."
        )
