"""`Loop`: drives callbacks from a training loop of one's own, with or without torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from callback_core.callbacks.standard_callbacks import with_standard_callbacks
from callback_core.driver.event_order import Stage
from callback_core.driver.loop_arguments import LoopArguments, warn_of_what_a_loop_does_not_do
from callback_core.driver.resumable_loop import ResumableLoop
from callback_core.handler import CallbackHandler

logger = logging.getLogger(__name__)


class Loop(ResumableLoop):
    """Drives callbacks from a training loop of one's own.

        with Loop([MLflowCallback()], {"num_train_epochs": 3}, train_dataloader=batches) as loop:
            for epoch in loop.epochs():
                for batch in loop.steps():
                    ...  # forward, backward, optimizer.step()
                    loop.report(loss=loss)

    It fires all events in their order, counts steps and epochs, logs the means of what is reported,
    and evaluates, saves and stops when callbacks ask for it. `DefaultFlowCallback` and a progress
    bar are among the callbacks. Leaving the block ends the training; after an error, as failed.

    A loop without epochs iterates over `steps()` only. A framework with a loop of its own calls
    `begin`, `begin_epoch`, `begin_step`, `end_step`, `end_epoch` and `end`.

    If `torch.distributed` connects several processes, all of them must call the same methods of
    their loops in the same order. They agree on the flags of their controls before they act on
    them.

    Args:
        callbacks: Callbacks, or classes of callbacks.
        args: The arguments, each optional: a dict, a `Namespace`, a data class, or the arguments of
            a trainer. `LoopArguments` lists those that the loop reads. Trackers log all of them.
        model: Passed to callbacks, like the following five.
        processing_class: A tokenizer, processor or the like.
        optimizer: The optimizer. The learning rate of its first group is logged. If it is an
            optimizer of torch, its step fires `on_pre_optimizer_step` and `on_optimizer_step`.
        lr_scheduler: The scheduler of the learning rate.
        train_dataloader: What `steps` iterates over: any iterable of batches.
        eval_dataloader: What `prediction_steps` iterates over.
        evaluate: Returns the metrics of an evaluation by name. Called when an evaluation is due.
        save: Writes the model, and whatever else resuming needs, into a directory. Called when a
            checkpoint is due, in the main process.
        load: Reads from the directory what `save` has written.

    Attributes:
        args: The arguments, as `LoopArguments`.
        state: What callbacks see of the training.
        control: What callbacks ask for.
        handler: Calls the callbacks.

    Raises:
        TypeError: `args`, a callback or a function is of a wrong type.
        ValueError: An argument is not allowed, or needs a function `load` that is missing.
    """

    def __init__(
        self,
        callbacks: Iterable[Any] | None = None,
        args: Any = None,
        *,
        model: Any = None,
        processing_class: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        evaluate: Callable[[], Mapping[str, Any]] | None = None,
        save: Callable[[Path], object] | None = None,
        load: Callable[[Path], object] | None = None,
    ) -> None:
        found = LoopArguments.of(args, evaluates=evaluate is not None, saves=save is not None)
        warn_of_what_a_loop_does_not_do(found.given)
        _check_functions(found, evaluate, save, load)
        handler = CallbackHandler(
            with_standard_callbacks(callbacks, found.disable_tqdm),
            model,
            processing_class,
            optimizer,
            lr_scheduler,
        )
        handler.train_dataloader, handler.eval_dataloader = train_dataloader, eval_dataloader
        super().__init__(found, handler, evaluate, save, load)

    def __enter__(self) -> Self:
        """Begin the training."""
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the training, unless it has ended already. After an error, it has failed."""
        if self._stage is not Stage.OUTSIDE:
            self.end(exception)

    def begin(self) -> None:
        """Begin or resume the training, and fire `on_train_begin`.

        Raises:
            FileNotFoundError: The checkpoint to resume from does not exist or is not complete.
            RuntimeError: The training has begun already.
        """
        self._expect("begin", Stage.OUTSIDE)
        checkpoint = self._restore()
        self._begin(checkpoint)

    def end(self, exception: BaseException | None = None) -> None:
        """End the training: log what is left to log, and fire `on_train_end`.

        Args:
            exception: The error or interrupt that ends it, for which `on_exception` is fired first.

        Raises:
            RuntimeError: No training has begun.
        """
        self._expect("end", Stage.TRAINING, Stage.EPOCH, Stage.STEP)
        if exception is not None:
            self._close(exception)
            return
        try:
            self._end_left_step()
            if self._stage is Stage.EPOCH:
                self.end_epoch()
            self._log_reported()
            self._load_best()
        except BaseException as error:
            self._close(error)
            raise
        self._tell_if_last_step_was_not_known()
        self._leave()
        self._fire("on_train_end")

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, from 0, until a callback asks to stop.

        `break` also ends the current epoch.

        Raises:
            RuntimeError: No training has begun.
        """
        self._expect("epochs", Stage.TRAINING, Stage.EPOCH, Stage.STEP)
        self._end_left_step()
        if self._stage is Stage.EPOCH:
            self.end_epoch()
        while self._has_epoch_left():
            self.begin_epoch()
            yield self._position.epoch
            self._end_left_step()
            if self._to_skip:
                self._tell(
                    f"The epoch in which the training is resumed has {self._to_skip} batches fewer "
                    "than were done of it, so nothing of it is left."
                )
                self._to_skip = 0
            if self._stage is Stage.EPOCH:
                self.end_epoch()
            if self.should_stop:  # maybe within the epoch, which is then left to a resumed training
                break

    def steps(self, batches: Iterable[Any] | None = None) -> Iterator[Any]:
        """Yield the batches of an epoch that are left. Each is an update step.

        With `gradient_accumulation_steps`, several batches are a step, and `completes_step` tells
        whether the current one is the last. After `break` or `continue`, the step counts too, but
        not if `break` comes before its last batch. Outside of `epochs`, this yields the batches of
        all epochs.

        Args:
            batches: The batches, by default `train_dataloader`. Without either, this yields the
                numbers of the steps, until `max_steps` or until a callback asks to stop.

        Raises:
            RuntimeError: No training has begun.
        """
        self._expect("steps", Stage.TRAINING, Stage.EPOCH, Stage.STEP)
        self._end_left_step()
        source = self.handler.train_dataloader if batches is None else batches
        if self._stage is Stage.EPOCH:
            yield from self._steps_of_epoch(source)
            return
        is_read_once = source is not None and iter(source) is source
        for _ in self.epochs():
            yield from self._steps_of_epoch(source)
            if is_read_once:
                break
        if is_read_once and not self.should_stop and "num_train_epochs" in self.args.given:
            self._tell("The batches come from an iterator, so training ends after one epoch.")

    def _run_evaluation(self) -> None:
        if self._evaluate is not None:
            metrics = self._evaluate()
            if not isinstance(metrics, Mapping):
                raise TypeError(f"evaluate returned {metrics!r}. Return a dict of metrics by name.")
            self.log_evaluation(metrics)
        elif self._evaluated_at != self.state.global_step:
            self._tell(
                "An evaluation is due, but the loop has no function `evaluate`. Pass one, or call "
                "log_evaluation at each step or epoch that eval_strategy names."
            )

    def _tell_if_last_step_was_not_known(self) -> None:
        """Warn if the strategy `steps` would have evaluated or saved at the last step."""
        step, args = self.state.global_step, self.args
        if self._stage is not Stage.TRAINING or not step or self.should_stop:
            return
        missed = []
        if args.eval_strategy == "steps" and self._evaluate and self._evaluated_at != step:
            missed.append("evaluation")
        if args.save_strategy == "steps" and self._save and (self._saved or (-1,))[0] != step:
            missed.append("checkpoint")
        if missed:
            self._tell(
                f"Training ended at step {step}, which was not known to be the last, so it has no "
                f"{' and no '.join(missed)}. Set max_steps, or choose the strategy 'epoch'."
            )

    def _has_epoch_left(self) -> bool:
        """Return whether another epoch, or the rest of this one, must be trained.

        If a training resumes after its last step, only the end of the epoch is left.
        """
        position, length = self._position, self._length
        if self.control.should_training_stop:
            return False
        if not position.has_ended:
            return position.batches > 0 or not self.should_stop
        if not length.ends_by_steps:
            return position.epoch + 1 < length.num_train_epochs and not self.should_stop
        if position.batches == 0:
            self._tell("An epoch had no steps, so training ends before max_steps.")
        return position.batches > 0 and not self.should_stop

    def _steps_of_epoch(self, batches: Iterable[Any] | None) -> Iterator[Any]:
        """Yield the batches of this epoch that are left. Each is within a step."""
        size, done = self.args.gradient_accumulation_steps, 0
        pairs = self._numbers_of_steps() if batches is None else self._batches_left(batches)
        turn = self._turn = object()
        self._handled = sys.exc_info()[1]
        while not self._leaves_epoch and (pair := next(pairs, None)) is not None:
            batch, is_last = pair
            if self._stage is Stage.EPOCH:
                self.begin_step()
                done = 0
            done += 1
            self._completes_step = is_last or done == size
            try:
                yield batch
            except GeneratorExit:  # after a break or an error: which, is not known here
                self._is_left = self._turn is turn
                raise
            self._settle()

    def _numbers_of_steps(self) -> Iterator[tuple[int, bool]]:
        self._to_skip = 0
        while True:
            yield self.state.global_step, False

    def _batches_left(self, batches: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
        """Yield the batches that the resumed training has not done, and whether each is the last.

        If each batch is a step, that makes no difference, and none is read ahead to find it.
        """
        source = iter(batches)
        while self._to_skip and next(source, _END) is not _END:
            self._to_skip -= 1
        if self.args.gradient_accumulation_steps == 1:
            return ((batch, True) for batch in source)
        return _with_last(source)


def _check_functions(
    args: LoopArguments,
    evaluate: Callable[[], Mapping[str, Any]] | None,
    save: Callable[[Path], object] | None,
    load: Callable[[Path], object] | None,
) -> None:
    for name, function in (
        ("evaluate", evaluate),
        ("save", save),
        ("load", load),
    ):
        if function is not None and not callable(function):
            raise TypeError(f"{name} is {function!r}, but must be a function.")
    asked = {
        "load_best_model_at_end": args.load_best_model_at_end,
        "resume_from_checkpoint": args.resume_from_checkpoint,
    }
    for name, value in asked.items():
        if value and load is None:
            raise ValueError(
                f"{name} is {value!r}, but the loop has no function `load` that reads a checkpoint."
            )


def _with_last(items: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield each item, and whether it is the last. This reads one item ahead."""
    for before, following in pairwise(chain(items, [_END])):
        yield before, following is _END


_END: Final = object()
