"""`Trainer`: trains, evaluates and predicts; the class that users work with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from callback_core import CallbackHandler, TrainerControl, TrainerState, json_value
from trainer_torch.arguments.dropped_arguments import DROPPED_OF_TRAINER, refuse_unknown
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.arguments.verbosity import at_log_level
from trainer_torch.checkpoints import checkpoint_saving
from trainer_torch.checkpoints.resume import resume
from trainer_torch.checkpoints.resumed_position import find_position
from trainer_torch.checkpoints.selection import choose_checkpoint
from trainer_torch.checkpoints.uploads import uploading
from trainer_torch.data import outputs
from trainer_torch.data.accumulation import accepts_loss_kwargs
from trainer_torch.data.data_loaders import EvalLoaders, check_loader, train_dataloader
from trainer_torch.data.metrics import ComputeMetrics
from trainer_torch.data.position import LoopPosition
from trainer_torch.hardware.numerics import prepare_numerics
from trainer_torch.loop.announcement import announce, tell_arguments
from trainer_torch.loop.batch_finding import adopt_batch_size, check_batch_finding
from trainer_torch.loop.preflight import check_metric, check_model, check_training
from trainer_torch.loop.training_loop import TrainOutput, run_training
from trainer_torch.methods.absent_names import TransformersNames, refuse_ignored_overrides
from trainer_torch.methods.evaluating import EvaluationMethods
from trainer_torch.methods.optimization import OptimizerMethods
from trainer_torch.methods.overridable import check_overridden
from trainer_torch.methods.results import ResultMethods
from trainer_torch.methods.saving import SavingMethods
from trainer_torch.methods.search import SearchMethods
from trainer_torch.model.placement import place_model
from trainer_torch.model.precision import check_precision
from trainer_torch.model.sharding import (
    check_shards,
    is_sharding_requested,
    shard,
    tell_of_sharding,
)
from trainer_torch.ranks.distributed import find_world
from trainer_torch.ranks.world import watched
from trainer_torch.run.parts import check_optimizer_class, check_parts, make_model
from trainer_torch.run.training_run import RunAttribute, TrainingRun, create_handler
from trainer_torch.wrapping import unwrap


class Trainer(
    EvaluationMethods,
    OptimizerMethods,
    SearchMethods,
    SavingMethods,
    ResultMethods,
    TransformersNames,
):
    """Trains, evaluates and predicts with a PyTorch model, and fires events for callbacks.

    To change what it does, subclass it and override `compute_loss`, `training_step`,
    `prediction_step`, `log`, the `get_*_dataloader` methods or those of `OptimizerMethods`. To
    watch or steer it, write a callback.

    Args:
        model: A model that returns its loss from `forward`: as the first item of a tuple, as
            `["loss"]` or as `.loss`. With a `compute_loss`, any model. It is moved to the device.
        args: The settings. Without them, the defaults are used.
        data_collator: Makes a batch from a list of samples; by default `default_collator`, which
            also makes tensors of lists and numbers in samples that are mappings.
        train_dataset: The data that `train` uses.
        eval_dataset: The data that `evaluate` uses. Each dataset in a mapping is evaluated under
            its name.
        processing_class: A tokenizer or the like. It is passed to the callbacks.
        model_init: A function that returns the model, instead of `model`. Each call of `train` then
            begins with a new one, made after the generators are seeded. It may take the trial of a
            search.
        compute_loss: A function of the model and a batch. It returns the mean loss, or the loss and
            the predictions. With a parameter `num_items_in_batch`, it gets the number of items
            (tokens or samples) in all batches of the update step, by which it divides the sum.
        compute_loss_func: A function of the outputs of the model, the labels and
            `num_items_in_batch`, as in transformers. The model gets a batch without labels. In
            evaluations, `num_items_in_batch` is that of the batch.
        compute_metrics: A function of an `EvalPrediction` with all samples. It returns metrics by
            name. With `batch_eval_metrics`, it is called for each batch, with `compute_result` as
            its second parameter, which is true for the last batch. Or a metric of torchmetrics,
            which is updated for each batch. Only the main process calls it.
        callbacks: Callbacks, or classes of them. They are called between the trackers and the
            progress bar.
        optimizers: An optimizer and a scheduler to use instead of those that `args` describes.
            Either may be `None`.
        optimizer_cls_and_kwargs: The class of the optimizer and its arguments, such as
            `(SGD, {"lr": 0.1})`, instead of those that `args` describes.
        preprocess_logits_for_metrics: A function of the predictions and the labels of a batch, on
            the device. It returns what to keep of the predictions, for example the best class.

    Attributes:
        loss_is_scaled_for_ga: Set this in a subclass whose `compute_loss` divides by
            `num_items_in_batch`, as in transformers. `None` decides by the functions and the model.
        model_accepts_loss_kwargs: Whether `num_items_in_batch` is passed to the model.
        run: The parts that change during training. Those that transformers' Trainer has too, from
            `args` to `control`, can also be read and assigned on the Trainer.

    Raises:
        TypeError: An object in `callbacks` is not a callback.
        ValueError: Arguments do not fit together.
    """

    args = RunAttribute[TrainingArguments]()
    model = RunAttribute[nn.Module]()
    model_wrapped = RunAttribute[nn.Module]()
    optimizer = RunAttribute[Any]()
    lr_scheduler = RunAttribute[Any]()
    train_dataloader = RunAttribute[Any]()
    callback_handler = RunAttribute[CallbackHandler]()
    state = RunAttribute[TrainerState]()
    control = RunAttribute[TrainerControl]()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments that do not exist, before `__init__` would."""
        refuse_unknown(cls, kwargs, DROPPED_OF_TRAINER)
        return super().__new__(cls)

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Dataset[Any] | None = None,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None = None,
        processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss: outputs.ComputeLoss | None = None,
        compute_loss_func: outputs.ComputeLossFunc | None = None,
        compute_metrics: ComputeMetrics | None = None,
        callbacks: Iterable[Any] | None = None,
        optimizers: tuple[Optimizer | None, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        args = TrainingArguments() if args is None else args
        refuse_ignored_overrides(type(self))
        check_overridden(self, Trainer, evaluates_several=isinstance(eval_dataset, Mapping))
        if model_init is not None:
            if any(part is not None for part in optimizers):
                raise ValueError("optimizers cannot be those of the models that model_init makes.")
            model = make_model(model_init, model, args)
        functions = (data_collator, compute_loss, compute_loss_func, compute_metrics)
        check_parts(model, args, train_dataset, eval_dataset, *functions, optimizers)
        check_optimizer_class(optimizer_cls_and_kwargs, optimizers[0])
        assert model is not None
        world = find_world(args)
        prepare_numerics(args)
        check_precision(args, model)
        self.data_collator = data_collator
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.compute_metrics = compute_metrics
        self.preprocess_logits_for_metrics = preprocess_logits_for_metrics
        self.model_init = model_init
        self.hp_name: Callable[[Any], str] | None = None
        self.compute_loss_func = compute_loss_func
        self._compute_loss = compute_loss
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        self._eval_loaders = EvalLoaders()
        self._columns_told: set[str] = set()
        self._given_model = place_model(model, args, world, optimizers[0])
        bare = unwrap(self._given_model)
        self.model_accepts_loss_kwargs = accepts_loss_kwargs(bare)
        handler = create_handler(args, callbacks, bare, processing_class, optimizers)
        position = LoopPosition(args.device, world)
        self.run = TrainingRun(args, world, bare, bare, handler, self.log, position, *optimizers)
        tell_of_sharding(args, world, self.run.warn_once)
        check_shards(bare, world, self.run.warn_once)
        check_batch_finding(self.run)
        world.mark(self.state)
        self.run.fire(handler.on_init_end)

    def add_callback(self, callback: Any) -> None:
        """Append a callback. A class is instantiated."""
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Any) -> Any:
        """Remove and return the first callback that is `callback` or of that class, or `None`."""
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove the first callback that is `callback` or of that class."""
        self.callback_handler.remove_callback(callback)

    def is_world_process_zero(self) -> bool:
        """Return whether this is the main process, which saves and reports."""
        return self.state.is_world_process_zero

    def is_local_process_zero(self) -> bool:
        """Return whether this is the main process of its machine."""
        return self.state.is_local_process_zero

    @at_log_level
    @watched
    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train and return the result.

        Args:
            resume_from_checkpoint: The checkpoint to resume from, of this Trainer or of
                transformers'; or a directory of checkpoints, for the newest complete one with
                finite weights; or `True` for that in `output_dir` and at `remote_output_dir`; or
                `"auto"` for that if there is a checkpoint, and otherwise for a start from the
                beginning. The first two may be addresses. `None` means what
                `args.resume_from_checkpoint` says. `False` starts from the beginning. When
                `torchrun` starts the processes again, all but `False` continue from the newest
                complete checkpoint that the attempts before have saved, if there is one.
            trial: The trial of a search, with its hyperparameters as `params`, or a dict of these.
            ignore_keys_for_eval: The `ignore_keys` of the evaluations in this training.

        Raises:
            FileNotFoundError: The checkpoint does not exist or is not complete.
            ValueError: There is nothing to train on or to train, or the checkpoint does not fit.
        """
        run = self.run
        checkpoint_saving.finish_interrupted_save(run)  # of a training that was interrupted twice
        run.describe_trial(trial, self.hp_name)
        run.ignore_keys = ignore_keys_for_eval
        if self.model_init is not None:
            model = make_model(self.model_init, None, run.args, trial)
            self._given_model = place_model(model, run.args, run.world)
            run.model = run.model_wrapped = unwrap(self._given_model)
            run.optimizer = run.lr_scheduler = None  # of the model before it
        elif is_sharding_requested(run.args, run.world):
            shard(run.model, run.args, run.world)  # the user may have assigned another one
        checkpoint = choose_checkpoint(run, resume_from_checkpoint)
        adopt_batch_size(run, checkpoint)
        run.train_dataloader = self.get_train_dataloader()
        check_loader("get_train_dataloader", run.train_dataloader)
        plan = find_position(run, checkpoint)
        run.start_over(plan, self.create_optimizer_and_scheduler)
        resumption = resume(run, plan, checkpoint) if checkpoint else None
        check_training(run)
        if not self._may_report_more_metrics():
            check_metric(run.args, self.eval_dataset)
        if checkpoint is None and self._returns_the_loss():
            check_model(run, self._computes_metrics(), self, self._loaders_to_check())
        tell_arguments(run)
        # The user may have wrapped the model, or assigned another one since.
        is_given = unwrap(self._given_model) is run.model
        wrapped = run.world.wrap(self._given_model if is_given else run.model)
        announce(run, plan)
        with uploading(run, checkpoint), run.training():
            return run_training(run, plan, self, wrapped, resumption)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add `logs` to the history of the state and fire `on_log`.

        As in transformers, `logs` itself gets the epoch, and numbers of Python for other ones.
        """
        for name, value in logs.items():
            logs[name] = outputs.plain_number(name, value)
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        self.state.log_history.append({**json_value(logs), "step": self.state.global_step})
        self.run.fire(self.callback_handler.on_log, logs=logs)

    def floating_point_ops(self, inputs: Any) -> float:
        """Return the floating point operations of a training step on a batch, for `total_flos`.

        Override it if you know them. By default, they are counted if a `ThroughputCallback` is
        among the callbacks, and 0 otherwise.
        """
        return 0.0 if self.run.usage is None else self.run.usage.operations_of(inputs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this process's training batches."""
        if self.train_dataset is None:
            raise ValueError("There is no data to train on: give the Trainer a train_dataset.")
        names = getattr(self.callback_handler.processing_class, "model_input_names", ["input_ids"])
        parts = self.train_dataset, self._collator(), self.args, self.run.world
        return train_dataloader(*parts, input_name=names[0])
