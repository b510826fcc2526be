"""Measure precision, compilation and memory on an accelerator, with a small language model.

    python tools/bench/precision.py [--check]

On a machine without an accelerator, the model is tiny and there are no targets: that only shows
that the script works.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from small import DEVICE, LARGE, ON_DEVICE, Language, Size, Words, train_by_hand
from table import Targets, checks, print_table
from torch import Tensor, nn

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments

SIZE: Final = LARGE if ON_DEVICE else Size(width=32, layers=2, length=16, batch=4, words=64)
STEPS, WARMUP = (120, 20) if ON_DEVICE else (6, 2)
SAMPLES: Final = 4096
GIB: Final = 2**30


@dataclass
class Measured:
    """The words per second after the warm-up, the peak of the memory, and the last mean loss."""

    words_per_second: float
    peak: int
    loss: float


class Clock(TrainerCallback):
    """Notes the time of the end of the warm-up, and that of the last step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Note the time of the two steps."""
        if state.global_step in (WARMUP, STEPS):
            self.times.append(now())


def now() -> float:
    """Return the time when the accelerator has done everything."""
    if ON_DEVICE:
        torch.accelerator.synchronize()
    return perf_counter()


def trainer(directory: str, *callbacks: Any, dropout: float = 0.0, **changed: Any) -> Trainer:
    """Return a trainer of `Language` on `Words`."""
    usual: dict[str, Any] = {
        "output_dir": directory,
        "per_device_train_batch_size": SIZE.batch,
        "max_steps": STEPS,
        "learning_rate": 3e-4,
        "logging_steps": STEPS // 2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = TrainingArguments(**{**usual, **changed})
    data = Words(SIZE, SAMPLES)
    return Trainer(Language(SIZE, dropout), args, train_dataset=data, callbacks=callbacks)


def measure(**changed: Any) -> Measured:
    """Train with these arguments, and return what it took."""
    module = torch.get_device_module(DEVICE)
    if ON_DEVICE:
        module.empty_cache()
        module.reset_peak_memory_stats()
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(directory, clock, **changed)
        made.train()
    words = (STEPS - WARMUP) * SIZE.batch * SIZE.length
    losses = [log["loss"] for log in made.state.log_history if "loss" in log]
    peak = module.max_memory_allocated() if ON_DEVICE else 0
    return Measured(words / (clock.times[1] - clock.times[0]), peak, losses[-1])


def by_hand() -> float:
    """Return the words per second of a loop in bfloat16 that is written by hand."""
    data, begun = Words(SIZE, SAMPLES), 0.0
    model = Language(SIZE).to(DEVICE)
    for step in train_by_hand(model, data, SIZE.batch, STEPS, torch.bfloat16):
        if step == WARMUP:
            begun = now()
        if step == STEPS:
            break
    return (STEPS - WARMUP) * SIZE.batch * SIZE.length / (now() - begun)


def compare_kinds(targets: Targets) -> None:
    """Compare the kinds of precision, compilation and activation checkpointing."""
    # On the CPU, the default backend would need a C++ compiler.
    compiled = {} if ON_DEVICE else {"torch_compile_backend": "aot_eager"}
    kinds: dict[str, dict[str, Any]] = {
        "float32": {},
        "bf16": {"bf16": True},
        "fp16": {"fp16": True},
        "bf16, compiled": {"bf16": True, "torch_compile": True, **compiled},
        "bf16, checkpointed": {"bf16": True, "activation_checkpointing": True},
        "bf16, offloaded": {
            "bf16": True,
            "activation_checkpointing": True,
            "activation_checkpointing_kwargs": {"offload": True},
        },
    }
    results = {name: measure(**changed) for name, changed in kinds.items()}
    plain = by_hand()
    again = measure(bf16=True)  # after the other, so that a warmer GPU affects both
    plain = max(plain, by_hand())
    rows = [
        (name, f"{one.words_per_second:,.0f}", f"{one.peak / GIB:.2f} GiB", f"{one.loss:.4f}")
        for name, one in results.items()
    ]
    rows.append(("bf16, by hand", f"{plain:,.0f}", "", ""))
    head = ("training", "words per second", "peak memory", "loss")
    print_table(f"{SIZE.layers} blocks of {SIZE.width} on {DEVICE}", head, rows)
    full, half = results["float32"], results["bf16"]
    fast, small = results["bf16, compiled"], results["bf16, checkpointed"]
    if not ON_DEVICE:
        return
    speed, speed_small = half.words_per_second, small.words_per_second
    best = max(speed, again.words_per_second)
    targets.note("bf16 is 1.5 times as fast as float32", speed >= 1.5 * full.words_per_second)
    targets.note(
        f"bf16: {best / plain:.1%} of the loop by hand, at least 97 %", best >= 0.97 * plain
    )
    for name in ("bf16", "fp16"):
        is_near = abs(results[name].loss / full.loss - 1) <= 0.01
        targets.note(f"the loss in {name} is within 1 % of that in float32", is_near)
    targets.note("compiled is faster", fast.words_per_second > speed)
    targets.note("checkpointed takes at most 60 % of the memory", small.peak <= 0.6 * half.peak)
    targets.note("checkpointed takes at most 1.4 times the time", speed_small >= speed / 1.4)


class Stops(TrainerCallback):
    """Ends the training after a step, as a kill would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """End the training after the third step."""
        if state.global_step == 3:
            raise KeyboardInterrupt


def check_resuming(targets: Targets) -> None:
    """Resume a training in float16 with dropout, whose random numbers are the accelerator's."""
    options = {"dropout": 0.1, "fp16": True, "full_determinism": True, "max_steps": 6}
    saving = {"save_strategy": "steps", "save_steps": 1}
    with tempfile.TemporaryDirectory() as directory:
        whole = trainer(f"{directory}/whole", **options)
        whole.train()
        with suppress(KeyboardInterrupt):
            trainer(f"{directory}/killed", Stops(), **options, **saving).train()
        resumed = trainer(f"{directory}/killed", **options)
        resumed.train(resume_from_checkpoint=Path(directory, "killed", "checkpoint-2"))
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    targets.note("a killed training resumes to the bit", all(torch.equal(*one) for one in pairs))


def check_skipping(targets: Targets) -> None:
    """Train with a loss that is NaN in one step, whose update is then left out on the device."""
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(directory, bf16=True, on_non_finite="skip", max_steps=4, logging_steps=4)

        def spoil(model: nn.Module, inputs: Any, output: dict[str, Tensor]) -> None:
            if model.training and made.state.global_step == 1:
                output["loss"] = output["loss"] * float("nan")

        made.model.register_forward_hook(spoil)
        before = [one.detach().clone() for one in made.model.parameters()]
        made.train()
    pairs = list(zip(made.model.parameters(), before, strict=True))
    is_finite = all(bool(one.isfinite().all()) for one, _ in pairs)
    has_trained = not any(torch.equal(one.detach().cpu(), old.cpu()) for one, old in pairs)
    targets.note("a step with a NaN is skipped", is_finite and has_trained)


def check_finding(targets: Targets) -> None:
    """Train with batches that do not fit into 8 GiB."""
    if not ON_DEVICE:
        return
    module = torch.get_device_module(DEVICE)
    module.empty_cache()
    ballast = torch.empty(module.mem_get_info()[0] - 8 * GIB, dtype=torch.uint8, device=DEVICE)
    options = {"bf16": True, "auto_find_batch_size": True, "max_steps": 3}
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(directory, **options, per_device_train_batch_size=256)
        made.train()
    del ballast
    size, accumulation = (
        made.args.per_device_train_batch_size,
        made.args.gradient_accumulation_steps,
    )
    print(f"\n  Batches of 256 became {accumulation} of {size}.")
    targets.note("a smaller batch is found, for as many samples", size * accumulation == 256 > size)


def main() -> None:
    """Measure, and print what was found."""
    checks()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    targets = Targets()
    compare_kinds(targets)
    check_resuming(targets)
    check_skipping(targets)
    check_finding(targets)
    targets.leave()


if __name__ == "__main__":
    main()
