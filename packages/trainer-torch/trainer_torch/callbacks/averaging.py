"""`WeightAveragingCallback`: averages the weights, for evaluations and the model at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from callback_core import IntervalStrategy, TrainerControl, TrainerState
from trainer_torch.callbacks.loop_callback import LoopCallback
from trainer_torch.model.shards import (
    Shards,
    empty_like_shard,
    read_shards,
    shapes_of_shards,
    shard_like,
)
from trainer_torch.model.weights import SafeTensors
from trainer_torch.wrapping import is_sharded, plain_name

logger = logging.getLogger(__name__)

AVERAGE: Final = "average.safetensors"
AVERAGE_SHARDS: Final = "average"
"""The folder with the average of a sharded model."""

_UPDATES: Final = "number of updates"
"""The name, among shards, of what no weight is called."""


class WeightAveragingCallback(LoopCallback):
    """Keeps an average of the weights: an exponential moving average (EMA), or the mean (SWA).

    Evaluations and predictions during the training use the average. So do `metric_for_best_model`,
    early stopping and `load_best_model_at_end`. The training itself uses the raw weights. A
    complete training ends with the average in the model, or with that of the best checkpoint;
    `save_model` and evaluations after it then use it. A training that an error or a signal ends
    keeps its raw weights.

    Callbacks see the raw weights at all events but `on_prediction_step`, where they see the
    average, and `on_train_end`. A checkpoint has the raw weights as `model.safetensors` and the
    average as `average.safetensors`, both with the names of the model's own state. Those of a
    sharded model are shards, in the folders `shards` and `average`.

    Averages of float16 and bfloat16 are kept in float32. They take the memory of the averaged
    weights, and during an evaluation that of another copy. In loops other than this Trainer, the
    average is kept but not used; a warning says so.

    Args:
        decay: How much of the average remains at each update of an EMA. `None` averages all updates
            equally, as stochastic weight averaging does.
        warmup: Whether the decay of an EMA rises, as min(decay, (1 + n) / (10 + n)) after n
            updates, so that the first weights are soon forgotten. The first update copies them.
        update_strategy: When to update: by `steps`, or at the end of each `epoch`.
        update_steps: The number of update steps between two updates.
        start_step: The first update step with which the average is updated. Until then, evaluations
            use the raw weights.
        use_buffers: Whether to average buffers too, such as the statistics of batch norms. Whole
            numbers are copied. Without, evaluations use the buffers of the training.

    Raises:
        ValueError: A value is none of these.
    """

    def __init__(
        self,
        decay: float | None = 0.999,
        *,
        warmup: bool = True,
        update_strategy: str = "steps",
        update_steps: int = 1,
        start_step: int = 0,
        use_buffers: bool = True,
    ) -> None:
        if decay is not None and not (isinstance(decay, Real) and 0 <= decay < 1):
            raise ValueError(f"decay is {decay!r}, but must be at least 0 and below 1, or None.")
        if update_strategy not in (IntervalStrategy.STEPS, IntervalStrategy.EPOCH):
            raise ValueError(
                f"update_strategy is {update_strategy!r}, but must be 'steps' or 'epoch'."
            )
        if update_steps < 1:
            raise ValueError(f"update_steps is {update_steps!r}, but must be at least 1.")
        self.decay, self.warmup, self.use_buffers = decay, warmup, use_buffers
        self.update_strategy = IntervalStrategy(update_strategy)
        self.update_steps, self.start_step = update_steps, start_step
        self._average: dict[str, Tensor] = {}  # empty before the first update and after the end
        self._left_out: set[str] = set()  # buffers that are no part of the model's state
        self._updates = 0
        self._was_used = self._has_warned = False

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin without an average. That of a checkpoint is loaded after this event."""
        self._average, self._updates = {}, 0
        self._was_used = self._has_warned = False

    def on_step_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Update the average, if it is due by steps."""
        by_steps = self.update_strategy == IntervalStrategy.STEPS
        if by_steps and state.global_step % self.update_steps == 0:
            self._update(model, state)

    def on_epoch_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Update the average, if it is due by epochs. An epoch that is cut short does not count."""
        is_whole = not control.should_training_stop or state.global_step >= state.max_steps
        if self.update_strategy == IntervalStrategy.EPOCH and is_whole:
            self._update(model, state)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Warn once if the evaluation did not use the average."""
        if self._average and not self._was_used and not self._has_warned:
            self._has_warned = True
            if state.is_world_process_zero:
                logger.warning(
                    "An evaluation did not use the averaged weights, because it was not made by "
                    "Trainer.evaluate of trainer_torch."
                )
        self._was_used = False

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop the average. After a complete training, the model has it."""
        self._average = {}

    @contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[None]:
        """Evaluate `model` with the average, and restore the raw weights to the bit."""
        if not self._average:
            yield
            return
        self._was_used = True
        tensors = self._averaged_tensors(model)
        raw = {name: tensors[name].clone() for name in self._average if name in tensors}
        self._put_into(model, self._average)
        try:
            yield
        finally:
            self._put_into(model, raw)

    def checkpoint_files(self, model: nn.Module) -> Mapping[str, Any]:
        """Return the average, and the rest of the model's state."""
        if not self._average:
            return {}
        if is_sharded(model):  # each process writes its part
            updates = torch.tensor(self._updates)
            return {AVERAGE_SHARDS: Shards({**self._average, _UPDATES: updates})}
        state = {plain_name(name): value for name, value in model.state_dict().items()}
        # A tied weight has several names in the state, and one in the average.
        alike = {_place(value): name for name, value in self._averaged_tensors(model).items()}
        for name, value in state.items():
            state[name] = self._average.get(alike.get(_place(value), name), value)
        written = {name: value.detach().clone().contiguous() for name, value in state.items()}
        return {AVERAGE: SafeTensors(written, {"updates": str(self._updates)})}

    def load_files(self, model: nn.Module, checkpoint: Path) -> None:
        """Read the average. Warn if the checkpoint has none although it should."""
        if not _has_average(checkpoint):
            self._average, self._updates = {}, 0
            logger.warning(
                "%s has no average of weights: the average begins with the next update.", checkpoint
            )
            return
        self._average, self._updates = self._read(model, checkpoint)

    def finish(self, model: nn.Module, best: Path | None) -> None:
        """Put the average into the model: that of the best checkpoint, if that was loaded."""
        average = self._average
        if best is not None and _has_average(best):
            average, _ = self._read(model, best)
        elif best is not None:  # it was evaluated before the first update
            average = {}
        self._put_into(model, average)
        self._average = {}

    def _update(self, model: nn.Module, state: TrainerState) -> None:
        if state.global_step < self.start_step:
            return
        with torch.no_grad():
            tensors = self._averaged_tensors(model)
            known = {name: value for name, value in tensors.items() if name in self._average}
            new = tensors.keys() - known.keys() - self._left_out
            if new:  # at the first update, or of a new layer
                saved = {plain_name(name) for name in model.state_dict()}
                self._left_out |= new - saved
                for name in sorted(new & saved):
                    value = tensors[name].detach()
                    self._average[name] = value.to(_wide(value.dtype), copy=True)
            self._add(known)
        self._updates += 1

    def _add(self, tensors: dict[str, Tensor]) -> None:
        """Update the average of tensors that it already has."""
        groups: dict[Any, tuple[list[Any], list[Any]]] = {}
        for name, value in tensors.items():
            average = self._average[name]
            if not (value.is_floating_point() or value.is_complex()):
                average.copy_(value)
                continue
            # Sharded and whole tensors cannot be combined, nor can those of several meshes.
            mesh = getattr(average, "device_mesh", None)
            own, current = groups.setdefault((average.device, average.dtype, mesh), ([], []))
            own.append(average)
            current.append(value.detach().to(average.dtype))
        if self.decay is None:
            average_of = get_swa_multi_avg_fn()
        else:
            rising = (1 + self._updates) / (10 + self._updates)
            average_of = get_ema_multi_avg_fn(
                min(self.decay, rising) if self.warmup else self.decay
            )
        for own, current in groups.values():
            average_of(own, current, self._updates)

    def _averaged_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what is averaged, by plain names, each tensor once."""
        found: dict[str, Tensor] = {
            plain_name(name): value for name, value in model.named_parameters()
        }
        if self.use_buffers:
            found.update((plain_name(name), value) for name, value in model.named_buffers())
        return found

    def _put_into(self, model: nn.Module, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._averaged_tensors(model).items():
                if name in values:
                    tensor.copy_(values[name])

    def _read(self, model: nn.Module, checkpoint: Path) -> tuple[dict[str, Tensor], int]:
        """Return the average in a checkpoint, and the number of its updates."""
        tensors = self._averaged_tensors(model)
        if (folder := checkpoint / AVERAGE_SHARDS).is_dir():
            average = {
                name: empty_like_shard(shape, tensors[name], tensors[name].device)
                for name, shape in shapes_of_shards(folder).items()
                if name in tensors
            }
            count = torch.tensor(0)
            read_shards(folder, {**average, _UPDATES: count})
            return average, int(count)
        with safe_open(str(checkpoint / AVERAGE), framework="pt") as file:
            names = set(file.keys())
            updates = int((file.metadata() or {})["updates"])
            average = {
                name: shard_like(file.get_tensor(name).to(value.device), value)
                for name, value in tensors.items()
                if name in names
            }
        return average, updates


def _has_average(checkpoint: Path) -> bool:
    return (checkpoint / AVERAGE).exists() or (checkpoint / AVERAGE_SHARDS).is_dir()


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which an average of `dtype` is kept."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
