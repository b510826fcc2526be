"""Train a small GPT from scratch in several precisions, and print their losses beside each other.

It predicts characters of the documentation that Python itself ships, in `pydoc_data`; nothing is
downloaded.

    tools/pants run docs/examples/gpt.py
    tools/pants run docs/examples/gpt.py -- --steps 300 --variants float32 bf16

Each variant trains in a process of its own, so that its peak memory is its own. `docs/precision.md`
has the results of one run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments

CONTEXT = 128
BATCH = 32
WIDTH = 128
BLOCKS = 6
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "compiled": {"torch_compile": True},
    "checkpointed": {"activation_checkpointing": True},
}


class Block(nn.Module):
    """Causal attention and a feed-forward network: (batch, length, WIDTH) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` after attention over earlier characters."""
        batch, length, _ = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, length, 3, 4, WIDTH // 4).permute(2, 0, 3, 1, 4)
        query, key, value = heads
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.feed_forward(self.norm2(x))


class GPT(nn.Module):
    """Predicts the next character: tokens (batch, length) to the loss and the scores."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the scores."""
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        scores = self.head(self.norm(x))
        return cross_entropy(scores.flatten(0, 1).float(), labels.flatten()), scores


class Clock(TrainerCallback):
    """Notes when the second half of the training begins and ends.

    On the CPU, the time is that of the process, which does not count other programs.
    """

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time at half of the steps; compiling is over by then."""
        if state.global_step == state.max_steps // 2:
            self.began = self._now(args)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ended = self._now(args)

    def _now(self, args: Any) -> float:
        if args.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()


def text() -> tuple[TensorDataset, int]:
    """Return pieces of text as characters and those that follow, and how many characters exist."""
    from pydoc_data.topics import topics

    characters = "\n".join(topics.values())
    numbers = {character: number for number, character in enumerate(sorted(set(characters)))}
    encoded = torch.tensor([numbers[character] for character in characters])
    pieces = encoded[: len(encoded) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    return TensorDataset(pieces[:, :-1], pieces[:, 1:]), len(numbers)


def device_name(device: torch.device) -> str:
    """Return what the training ran on."""
    if device.type == "cuda":
        return str(torch.get_device_module(device).get_device_name())
    return f"{device.type} ({platform.machine()}, torch's threads: {torch.get_num_threads()})"


def train(variant: str, steps: int) -> dict[str, Any]:
    """Train one variant.

    Return its losses, the memory in MB that the training took at its peak, and its tokens per
    second. On a GPU, the memory is the GPU's. On the CPU, it is that of the process, and the
    seconds are those of its processor time.
    """
    data, vocabulary = text()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=1e-3,
            warmup_steps=0.1,
            logging_steps=max(1, steps // 10),
            save_strategy="no",
            skip_memory_metrics=False,
            report_to="none",
            **VARIANTS[variant],
        )
        trainer = Trainer(
            model_init=lambda: GPT(vocabulary), args=args, train_dataset=data, callbacks=[clock]
        )
        metrics = trainer.train().metrics
    kind = "cpu" if args.device.type == "cpu" else "gpu"
    memory = sum(metrics[f"train_mem_{kind}_{part}_delta"] for part in ("alloc", "peaked"))
    tokens = (steps - steps // 2) * BATCH * CONTEXT
    return {
        "losses": {log["step"]: log["loss"] for log in trainer.state.log_history if "loss" in log},
        "memory": memory / 2**20,
        "speed": tokens / (clock.ended - clock.began),
        "device": device_name(args.device),
    }


def in_a_process(variant: str, steps: int) -> dict[str, Any]:
    """Train one variant in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--steps", str(steps), "--only", variant, str(result)]
        subprocess.run(command, check=True)
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train each variant and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="update steps (default: 200)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        variant, result = options.only
        Path(result).write_text(json.dumps(train(variant, options.steps)), "utf-8")
        return
    results = {variant: in_a_process(variant, options.steps) for variant in options.variants}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print("\n" + "step".ljust(12) + "".join(name.rjust(14) for name in results))
    for step in next(iter(results.values()))["losses"]:
        losses = (f"{result['losses'][step]:.4f}" for result in results.values())
        print(step.ljust(12) + "".join(loss.rjust(14) for loss in losses))
    for title, name in [("peak MB", "memory"), ("tokens/s", "speed")]:
        numbers = (f"{result[name]:,.0f}" for result in results.values())
        print(title.ljust(12) + "".join(number.rjust(14) for number in numbers))


if __name__ == "__main__":
    main()
