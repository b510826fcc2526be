"""`LossMethods`: the methods of the Trainer that compute losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from trainer_torch.data import accumulation, batches, outputs
from trainer_torch.data.collating import collator_for
from trainer_torch.overrides import call
from trainer_torch.run.training_run import TrainingRun


class LossMethods:
    """Computes the loss of a batch, with functions that the user gave or with the model's own.

    Attributes:
        run: The training.
        data_collator: Makes a batch from a list of samples, if the user gave one.
        compute_loss_func: A function of the outputs, the labels and `num_items_in_batch`, if any.
        loss_is_scaled_for_ga: Whether `compute_loss` divides by `num_items_in_batch`. `None`
            decides by the functions and the model.
        model_accepts_loss_kwargs: Whether `num_items_in_batch` is passed to the model.
    """

    run: TrainingRun
    data_collator: Callable[[list[Any]], Any] | None
    compute_loss_func: outputs.ComputeLossFunc | None
    loss_is_scaled_for_ga: bool | None = None
    model_accepts_loss_kwargs: bool
    _compute_loss: outputs.ComputeLoss | None
    _columns_told: set[str]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Any:
        """Return the loss of a batch; with `return_outputs`, a pair of it and the outputs.

        Args:
            model: The model, or what wraps it.
            inputs: A batch on the device.
            return_outputs: Also return the outputs. The loss may then be `None`.
            num_items_in_batch: The number of items, such as tokens, in all batches of the update
                step. The loss is then the sum over the batch, divided by this. Otherwise, it is the
                mean over the batch.

        Raises:
            ValueError: There is no loss.
        """
        items = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
        if self.compute_loss_func is not None:
            labels = batches.labels_of(inputs, self.run.args.label_names)
            output = batches.forward(
                model, batches.without_labels(inputs, self.run.args.label_names)
            )
            loss = self.compute_loss_func(output, labels, num_items_in_batch=num_items_in_batch)
            return (loss, output) if return_outputs else loss
        if self._compute_loss is not None:
            output = call(self._compute_loss, model, inputs, **items)
            if return_outputs:
                return outputs.split_output(output)
        else:
            items = items if self.model_accepts_loss_kwargs else {}
            output = batches.forward(model, inputs, **items)
            if return_outputs:
                return outputs.split_output(output)[0], output
        return outputs.find_loss(output, self._source_of_loss, inputs)

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: int | None = None
    ) -> Tensor:
        """Add the gradients of a batch, and return its part of the step's loss, detached.

        Args:
            model: The module that computes the loss. It averages gradients over all processes.
            inputs: A batch of the training data.
            num_items_in_batch: As in `compute_loss`.
        """
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            output = call(self.compute_loss, model, inputs, num_items_in_batch=num_items_in_batch)
        loss = outputs.require_loss(output, self._source_of_loss, inputs)
        loss = accumulation.part_of_step(loss, self.run.loss_divisor)
        self.run.precision.backward(loss)
        return loss.detach()

    def count_items(self, inputs: Any, size: int | None) -> int | None:
        """Return over how many items of a batch its mean loss is taken, or `None` if unknown.

        They are the labels that are whole numbers other than -100, or else the samples. Override
        this if the loss is a mean over something else.

        Args:
            inputs: A batch as the loader yields it.
            size: The number of samples in it, if known.
        """
        return accumulation.count_items(
            inputs,
            size,
            self.run.args.label_names,
            shifts_labels=accumulation.shifts_labels(self.run.model),
            warn=self.run.warn_once,
        )

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is divided by `num_items_in_batch`, and not the mean of a batch."""
        if self.loss_is_scaled_for_ga is not None:
            return self.loss_is_scaled_for_ga
        return (
            self.compute_loss_func is not None
            or accumulation.takes_num_items(self._compute_loss)
            or (self._compute_loss is None and self.model_accepts_loss_kwargs)
        )

    @property
    def current_gradient_accumulation_steps(self) -> int:
        """The number of batches in the current update step; the last of an epoch may have fewer."""
        return self.run.batches_in_step

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Return the context in which losses are computed: that of the mixed precision."""
        return self.run.precision.autocast()

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Return a batch on the device."""
        return batches.to_device(inputs, self.run.args.device)

    def _collator(self) -> Callable[[list[Any]], Any]:
        """Return what makes batches of samples."""
        if self.data_collator is not None:
            return self.data_collator
        names = ("compute_loss", "training_step", "_prepare_inputs")
        is_own = all(getattr(type(self), name) is getattr(LossMethods, name) for name in names)
        return collator_for(
            self.run.model,
            is_own and self._compute_loss is None,
            self.compute_loss_func is not None,
            self.run.args.label_names,
            self.run.args.remove_unused_columns,
            self._columns_told,
        )

    def _returns_the_loss(self) -> bool:
        """Return whether the loss comes from the model's `forward`, not from code of the user."""
        functions = self._compute_loss or self.compute_loss_func
        own = functions, type(self).compute_loss, type(self).training_step
        return own == (None, LossMethods.compute_loss, LossMethods.training_step)

    def _source_of_loss(self) -> str:
        return type(self.run.model).__name__ if self._returns_the_loss() else "compute_loss"
