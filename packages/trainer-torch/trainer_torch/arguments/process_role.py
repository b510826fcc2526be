"""`ProcessRole`: what arguments say about this process among those of the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from trainer_torch.arguments.verbosity import LEVELS, current_level
from trainer_torch.hardware.devices import find_device
from trainer_torch.ranks import processes
from trainer_torch.ranks.processes import ParallelMode


class ProcessRole:
    """The properties of arguments that depend on the process. All have transformers' names.

    Before the processes are connected, they come from the variables that torchrun sets.
    """

    use_cpu: bool
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    local_rank: int
    ddp_timeout: int
    ddp_backend: str | None
    log_level: str
    log_level_replica: str
    log_on_each_node: bool
    save_on_each_node: bool

    @property
    def device(self) -> torch.device:
        """The device to train on: the accelerator; or the CPU, without one or with `use_cpu`."""
        return find_device(self.use_cpu)

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return processes.size()

    @property
    def process_index(self) -> int:
        """The number of this process, from 0."""
        return processes.rank()

    @property
    def local_process_index(self) -> int:
        """The number of this process on its machine, from 0."""
        return processes.local_rank()

    @property
    def parallel_mode(self) -> ParallelMode:
        """`ParallelMode.DISTRIBUTED` with several processes, otherwise `NOT_PARALLEL`."""
        return ParallelMode.DISTRIBUTED if self.world_size > 1 else ParallelMode.NOT_PARALLEL

    @property
    def n_gpu(self) -> int:
        """The number of GPUs that this process uses: 1, or 0 on the CPU."""
        return 0 if self.device.type == "cpu" else 1

    @property
    def train_batch_size(self) -> int:
        """The number of samples in a training batch of this process."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """The number of samples in a batch of evaluation or prediction of this process."""
        return self.per_device_eval_batch_size

    @property
    def should_log(self) -> bool:
        """Whether this process logs: the main process, or that of each machine."""
        return self._is_main(on_each_node=self.log_on_each_node)

    @property
    def should_save(self) -> bool:
        """Whether this process saves: the main process, or that of each machine."""
        return self._is_main(on_each_node=self.save_on_each_node)

    def chosen_log_level(self) -> int | None:
        """Return the level that the arguments set in this process; `None` if they set none."""
        return LEVELS[self.log_level if self.should_log else self.log_level_replica]

    def get_process_log_level(self) -> int:
        """Return the level of the messages in this process: a number of `logging`."""
        level = self.chosen_log_level()
        return current_level() if level is None else level

    @property
    def place_model_on_device(self) -> bool | None:
        """Whether the Trainer moves the model to the device. A subclass may return `False`."""
        return None

    @property
    def ddp_timeout_delta(self) -> timedelta:
        """How long a process waits for the others."""
        return timedelta(seconds=self.ddp_timeout)

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Let the main process do something before the others, such as preparing the data.

        The others wait at the beginning of the block for at most `ddp_timeout` seconds. All
        processes must enter it. If they are not connected yet, they connect.

        Args:
            local: The main process of each machine goes first, not only that of the training.
            desc: What is done. Nothing reads it: transformers has this parameter.
        """
        processes.connect(self.device, self.ddp_timeout_delta, self.ddp_backend)
        with processes.one_goes_first(self._is_main(on_each_node=local), self.ddp_timeout_delta):
            yield

    def check_local_rank(self) -> None:
        """Refuse a `local_rank` other than that of the environment.

        Raises:
            ValueError: It is neither that nor -1.
        """
        if self.local_rank not in (-1, self.local_process_index):
            raise ValueError(
                f"local_rank is {self.local_rank!r}, but the environment says that this process is "
                f"number {self.local_process_index} on its machine. Leave local_rank out, and "
                "start the processes with torchrun."
            )

    def _is_main(self, on_each_node: bool) -> bool:
        return (self.local_process_index if on_each_node else self.process_index) == 0
