"""Measure the memory of a rank for weights and optimizer: with DDP, and sharded with FSDP2.

    python tools/bench/sharded_memory.py [--ranks 4] [--blocks 24] [--width 2048]

The ranks train a model of equal blocks by AdamW for three steps on the CPU, with batches so small
that activations do not count. *Held* is what the weights and the optimizer's state of a rank take
after the training. *Peak* is the most memory that the process had, from the model on, beyond what
it had before. The kernel counts it.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ranks import results_of
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import TensorDataset

from trainer_torch import Trainer, TrainingArguments


class Memory(NamedTuple):
    """The memory of a rank, in bytes: what it holds at the end, and the peak."""

    held: int
    peak: int


class Block(nn.Module):
    """A linear layer with a residual connection, for features of shape (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features + torch.tanh(self.linear(features))


def process_memory(name: str) -> int:
    """Return a figure of this process in bytes: `VmRSS` is its memory, and `VmHWM` its peak."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def _size(value: Any) -> int:
    if isinstance(value, DTensor):
        value = value.to_local()
    return value.nbytes if isinstance(value, Tensor) else 0


def _train(rank: int, ranks: int, fsdp: bool, blocks: int, width: int) -> Memory:
    logging.disable(logging.WARNING)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = process_memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            per_device_train_batch_size=2,
            max_steps=3,
            logging_strategy="no",
            save_strategy="no",
            fsdp=fsdp,
            fsdp_config={"transformer_layer_cls_to_wrap": ["Block"]} if fsdp else None,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            nn.Sequential(*(Block(width) for _ in range(blocks))),
            args,
            None,
            TensorDataset(torch.randn(64, width)),
            compute_loss=lambda model, batch: model(batch[0]).square().mean(),
        )
        trainer.train()
        peak = process_memory("VmHWM") - before
        states = trainer.optimizer.state.values()
        held = sum(map(_size, trainer.model.parameters()))
        held += sum(_size(value) for state in states for value in state.values())
    return Memory(held, peak)


def measure(ranks: int, fsdp: bool, blocks: int, width: int) -> Memory:
    """Return the largest figures of any rank."""
    found = results_of(_train, ranks, fsdp, blocks, width)
    return Memory(*map(max, zip(*found, strict=True)))


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4, help="processes (default: 4)")
    parser.add_argument("--blocks", type=int, default=24, help="blocks (default: 24)")
    parser.add_argument("--width", type=int, default=2048, help="features (default: 2048)")
    options = parser.parse_args()
    # Otherwise the C library keeps memory that was freed, and the peak depends on its guesses.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    sizes = options.blocks, options.width
    plain, sharded = (measure(options.ranks, fsdp, *sizes) for fsdp in (False, True))
    print(f"| of each of {options.ranks} ranks | DDP | FSDP2 | part |")
    print("|---|--:|--:|--:|")
    for name, one, other in zip(Memory._fields, plain, sharded, strict=True):
        print(f"| {name} | {one / 1e6:.0f} MB | {other / 1e6:.0f} MB | {other / one:.2f} |")


if __name__ == "__main__":
    main()
