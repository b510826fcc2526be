"""`TrainingRun`: the parts of a training that change while it runs, and its callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from torch import nn
from torch.optim import Optimizer

from callback_core import (
    CallbackHandler,
    TrainerControl,
    TrainerState,
    list_callbacks,
    make_reporting_integration_callbacks,
    with_standard_callbacks,
)
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.callbacks.loop_callback import LoopCallback
from trainer_torch.data.position import LoopPosition
from trainer_torch.hardware.numerics import numeric_settings
from trainer_torch.hardware.seeding import rng_state, set_seed
from trainer_torch.model.activations import checkpointed_activations
from trainer_torch.model.precision import (
    MixedPrecision,
    evaluation_dtype,
    mixed_precision,
    weights_in,
)
from trainer_torch.model.sharding import forget_call, reshard
from trainer_torch.ranks.signals import Signals
from trainer_torch.ranks.world import World
from trainer_torch.run.divergence import DivergenceGuard
from trainer_torch.run.given_optimizers import GivenOptimizers
from trainer_torch.run.parts import check_initialized, check_optimizer
from trainer_torch.run.plan import Plan
from trainer_torch.run.usage import Usage
from trainer_torch.storage.saves import Saves
from trainer_torch.storage.uploader import Uploader

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CREATED_BY: Final = {"optimizer": "create_optimizer", "lr_scheduler": "create_scheduler"}


@dataclass
class TrainingRun:
    """The state of one trainer. The Trainer builds it; loop, evaluation and checkpoints use it.

    Attributes:
        args: The arguments.
        world: The processes that train together.
        model: The model itself, which is evaluated and saved.
        model_wrapped: The module that computes gradients during training. It is `model`, which may
            be sharded, or a DistributedDataParallel around it.
        callback_handler: The callbacks.
        log: The Trainer's method, for what callbacks log.
        position: The position in the data, and the running loss.
        optimizer: The optimizer; `None` before training, unless the user gave one.
        lr_scheduler: The learning rate scheduler; `None` before training, unless the user gave one.
        train_dataloader: The loader of training batches; `None` before training.
        state: What callbacks see of the training.
        control: What callbacks ask for.
        signals: The signals that end the training.
        resumed_from: The checkpoint from which this training was resumed, if any.
        resumed_step: The step of that checkpoint.
        saved_step: The step of the last complete checkpoint of this training.
        batches: The batches of the epoch that are left.
        step_start: What the current step starts from, with `auto_find_batch_size`.
        is_in_train: Whether `train` is running.
        precision: The mixed precision, with the scale of the losses.
        epoch_rng_state: The random generators before the first batch of the epoch.
        samples: The number of samples that this process has trained on in this training; `None` if
            the number in a batch was unknown.
        given: What the user gave of the optimizer and the scheduler.
        step_logs: What the next log reports of the last update step, besides the loss.
        batches_in_step: The number of batches in the current update step.
        loss_divisor: By what the loss of the current batch is divided, so that the losses of the
            batches add up to that of the update step.
        trial: The fields of the state that describe the trial of a search.
        usage: The `Usage` of the training; `None` before training.
        guard: Watches whether losses and gradients are finite; each training has a new one.
        boundary: The `Boundary` after the last update, with `save_on_exception`; `None` before the
            first update and during one.
        saves: The checkpoint that is being saved, and the saves that have failed.
        ignore_keys: What the evaluations of this training leave out of the predictions.
        uploader: The `Uploader` to `remote_output_dir`, in the process that uploads.
        warned: The warnings that were logged and are not repeated.
    """

    args: TrainingArguments
    world: World
    model: nn.Module
    model_wrapped: nn.Module
    callback_handler: CallbackHandler
    log: Callable[[dict[str, Any]], None]
    position: LoopPosition
    optimizer: Any = None
    lr_scheduler: Any = None
    train_dataloader: Any = None
    state: TrainerState = field(default_factory=TrainerState)
    control: TrainerControl = field(default_factory=TrainerControl)
    signals: Signals = field(default_factory=Signals)
    resumed_from: Path | None = None
    resumed_step: int | None = None
    saved_step: int | None = None
    epoch_rng_state: dict[str, Any] = field(default_factory=rng_state)
    samples: int | None = 0
    batches: Iterator[Any] = field(default_factory=lambda: iter(()))
    step_start: Any = None
    is_in_train: bool = False
    precision: MixedPrecision = field(init=False)
    given: GivenOptimizers = field(default_factory=GivenOptimizers)
    step_logs: dict[str, Any] = field(default_factory=dict)
    batches_in_step: int = 1
    loss_divisor: float = 1.0
    trial: dict[str, Any] = field(default_factory=dict)
    ignore_keys: list[str] | None = None
    usage: Any = None
    guard: DivergenceGuard = field(init=False)
    boundary: Any = None
    saves: Saves = field(default_factory=Saves)
    uploader: Uploader | None = None
    warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.guard = DivergenceGuard(self.args)
        self.precision = mixed_precision(self.args, self.warn_once)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Return the context of a training: settings of torch, and checkpointed activations."""
        self.is_in_train = True
        try:
            with (
                numeric_settings(self.args),
                checkpointed_activations(self.model, self.args),
            ):
                yield
        finally:  # what is left of the batches may have worker processes
            self.is_in_train, self.batches, self.step_start = False, iter(()), None
            self.saves.staging.clear()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Return the context of an evaluation: settings of torch, and the weights and their type.

        Callbacks may prepare the weights.
        """
        dtype = None if self.is_in_train else evaluation_dtype(self.args)
        reshard(self.model)  # the user may have called the model
        with ExitStack() as stack:
            stack.enter_context(numeric_settings(self.args))
            for callback in self.loop_callbacks:
                stack.enter_context(callback.evaluation(self.model))
            stack.enter_context(weights_in(dtype, self.model))
            stack.callback(reshard, self.model)  # first, because callbacks then restore the shards
            try:
                yield
            except BaseException:
                forget_call(self.model)
                raise

    def fire(self, event: Callable[..., TrainerControl], **kwargs: Any) -> None:
        """Fire an event, keep the control that it returns, and log what callbacks have logged.

        Args:
            event: The method of `callback_handler` for the event.
            kwargs: What the event passes to callbacks besides arguments, state and control.
        """
        self.world.note(event.__name__, self.state.global_step)
        self.control = event(self.args, self.state, self.control, **kwargs)
        self.control.pass_logs(self.log)

    @property
    def last_save_step(self) -> int | None:
        """The step of the last checkpoint, which is complete or still being saved."""
        current = self.saves.current
        return self.saved_step if current is None else current.step

    def warn_once(self, message: str, about: str | None = None) -> None:
        """Log a warning in the main process, unless this trainer has logged it before.

        Args:
            message: The warning.
            about: What it is about, if its details may differ the next time.
        """
        about = message if about is None else about
        if self.world.is_main and about not in self.warned:
            self.warned.add(about)
            logger.warning("%s", message)

    def describe_trial(self, trial: Any, name_of: Callable[[Any], str] | None) -> None:
        """Set what the state says about the trial of a search, if there is one.

        Args:
            trial: The trial, or its hyperparameters.
            name_of: Returns the name of a trial.
        """
        self.trial = {}
        if trial is not None:
            self.trial = {
                "is_hyper_param_search": True,
                "trial_name": None if name_of is None else name_of(trial),
                "trial_params": dict(getattr(trial, "params", trial)),
            }

    @property
    def saves_in_thread(self) -> bool:
        """Whether a thread writes and deletes checkpoints while training continues."""
        return self.args.save_async and self.is_in_train

    def on_writers(self, do: Callable[[], T]) -> T:
        """Call `do` in each process that saves checkpoints, and return the main one's result."""
        if self.args.save_on_each_node:
            return self.world.on_each_node(do)
        return self.world.on_main(do)

    def close_callbacks(self, exception: BaseException) -> None:
        """Fire the events of a training that `exception` ends. Errors of callbacks are logged."""
        try:
            self.fire(self.callback_handler.on_exception, exception=exception)  # logs their errors
        finally:  # even after a second Ctrl-C, every callback is closed
            try:
                self.fire(self.callback_handler.on_train_end)
            except Exception:
                logger.exception("A callback failed while training was ending by %r.", exception)

    def start_over(self, plan: Plan, create: Callable[..., Any]) -> None:
        """Seed, and set up a training from its first step. The model keeps its weights.

        Args:
            plan: The length of the training.
            create: Creates the optimizer and the scheduler, as far as they are `None`.

        Raises:
            TypeError: What it has created is not an optimizer.
            ValueError: It has not created both, or the optimizer needs a closure.
        """
        check_initialized(self.model)
        forget_call(self.model)  # of a training, or a loop of the user, that an error has ended
        set_seed(self.args.seed + self.world.rank)
        given = self.given.begin(self.model, self.optimizer, self.lr_scheduler)
        self.precision = mixed_precision(self.args, self.warn_once)
        self.optimizer, self.lr_scheduler = given
        try:
            create(num_training_steps=plan.max_steps)
            self._check_created()
        except BaseException:
            self.optimizer, self.lr_scheduler = given  # the next training creates both again
            raise
        parts = zip((self.optimizer, self.lr_scheduler), given, strict=True)
        self.given.note_created(*(part for part, own in parts if part is not own))
        # Callbacks receive these parts from the handler.
        handler = self.callback_handler
        handler.model, handler.train_dataloader = self.model, self.train_dataloader
        handler.optimizer, handler.lr_scheduler = self.optimizer, self.lr_scheduler
        self.state = TrainerState(epoch=0, **self.trial)
        self.guard = DivergenceGuard(self.args)
        self.resumed_from, self.resumed_step = None, None
        self.saved_step, self.samples = None, 0
        self.step_logs, self.step_start = {}, None
        self.saves, self.boundary = Saves(), None
        self.usage = self._new_usage()
        self.set_length(plan)

    @property
    def loop_callbacks(self) -> list[LoopCallback]:
        """The callbacks that take part in the loop, in their order."""
        return [one for one in self.callback_handler.callbacks if isinstance(one, LoopCallback)]

    def _new_usage(self) -> Usage:
        counters = [one.operation_counter for one in self.loop_callbacks if one.operation_counter]
        return Usage(
            self.args,
            self.world,
            self.warn_once,
            counter=counters[0] if counters else None,
            measures=any(
                type(one).interval_logs is not LoopCallback.interval_logs
                for one in self.loop_callbacks
            ),
            main_input=getattr(self.model, "main_input_name", "input_ids"),
            padding=getattr(self.callback_handler.processing_class, "pad_token_id", None),
        )

    def _check_created(self) -> None:
        for name, method in _CREATED_BY.items():
            if getattr(self, name) is None:
                raise ValueError(
                    f"The Trainer has no {name}, so its {method} or create_optimizer_and_scheduler "
                    f"is overridden and does not set self.{name}. Set it there."
                )
        check_optimizer("self.optimizer", self.optimizer)

    def set_length(self, plan: Plan) -> None:
        """Write the length of the training, and the intervals of its events, into the state."""
        self.world.mark(self.state)
        self.state.max_steps, self.state.num_train_epochs = plan.max_steps, plan.num_train_epochs
        self.state.train_batch_size = self.args.per_device_train_batch_size
        self.state.compute_steps(self.args, plan.max_steps)


def create_handler(
    args: TrainingArguments,
    callbacks: Iterable[Any] | None,
    model: nn.Module,
    processing_class: Any,
    optimizers: tuple[Optimizer | None, Any],
) -> CallbackHandler:
    """Return a handler that calls the default flow, trackers, `callbacks`, and the bar."""
    given = list_callbacks(callbacks)
    trackers = make_reporting_integration_callbacks(args.report_to, given)
    return CallbackHandler(
        with_standard_callbacks([*trackers, *given], args.disable_tqdm),
        model,
        processing_class,
        *optimizers,
    )


class RunAttribute(Generic[T]):
    """An attribute of an object with a `run`, stored in that run under the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> T:
        value: T = getattr(instance.run, self.name)
        return value

    def __set__(self, instance: Any, value: T) -> None:
        setattr(instance.run, self.name, value)
