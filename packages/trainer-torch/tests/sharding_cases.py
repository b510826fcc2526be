"""What each process of the tests of sharded models does, and reports.

Run as `torchrun ... sharding_cases.py CASE DIRECTORY`, like `distributed_cases`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from distributed_cases import PATIENCE, RANK, main
from saving_cases import RaisesDuringASave
from small import arguments, logged
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils.data import DataLoader, TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, WeightAveragingCallback
from trainer_torch.model.finite import tensors_in
from trainer_torch.storage import checkpoint_writing


class Block(nn.Module):
    """A block with a residual connection, and a buffer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.scale * self.down(torch.tanh(self.up(self.norm(hidden))))


class Blocks(nn.Module):
    """Three blocks between layers whose weights are the same: features (batch, 4) to a loss."""

    def __init__(self, width: int = 16, is_tied: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(4, width, bias=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.last = nn.Linear(4, width, bias=False)
        if is_tied:
            self.last.weight = self.first.weight

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.first(features)
        for block in self.blocks:
            hidden = block(hidden)
        scores = nn.functional.linear(hidden, self.last.weight.T) / hidden.shape[-1]
        return {"loss": nn.functional.cross_entropy(scores, labels), "scores": scores}


class Normed(Blocks):
    """The same with running statistics, which are not sharded, and differ in the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm1d(4)

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return super().forward(self.normalize(features), labels)


def samples(count: int) -> TensorDataset:
    """Return the same random features and labels at every call."""
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(count, 4, generator=generator)
    return TensorDataset(features, torch.randint(4, (count,), generator=generator))


def made(out: Path, *callbacks: Any, model: nn.Module | None = None, **changed: Any) -> Trainer:
    """Return a trainer of 8 steps of 8 samples, divided among the processes, which clips."""
    size = 8 // int(os.environ.get("WORLD_SIZE", "1"))
    usual: dict[str, Any] = {
        **{"per_device_train_batch_size": size, "max_steps": 8, "learning_rate": 1e-3},
        **{"max_grad_norm": 0.05, "save_steps": 4, "ddp_timeout": PATIENCE},
        **{"per_device_eval_batch_size": 4},
    }
    return Trainer(
        Blocks() if model is None else model,
        arguments(out, **{**usual, **changed}),
        train_dataset=samples(600),
        eval_dataset=samples(10),  # 3 batches: the processes have different numbers of them
        callbacks=list(callbacks),
        compute_metrics=lambda evaluated: {"samples": len(evaluated.label_ids)},
    )


def seen(trained: Trainer) -> dict[str, Any]:
    """Return what a training has logged."""
    names = ("loss", "grad_norm", "eval_loss", "eval_samples")
    return {name: logged(trained, name) for name in names}


def trains(out: Path, *callbacks: Any, resume: Any = None, **changed: Any) -> dict[str, Any]:
    """Train, and return what has been logged."""
    trained = made(out, *callbacks, **changed)
    trained.train(resume)
    return seen(trained)


def bytes_of(values: Any) -> int:
    """Return the bytes of the tensors in `values` that this process keeps."""
    local = (getattr(one, "to_local", lambda one=one: one)() for one in tensors_in(values))
    return sum(one.numel() * one.element_size() for one in local)


class Kept(TrainerCallback):
    """Notes the bytes of weights and of the optimizer's state at the end."""

    weights = optimizer = 0

    def on_train_end(self, *args: Any, model: Any = None, optimizer: Any = None, **_: Any) -> None:
        self.weights = bytes_of(list(model.parameters()))
        self.optimizer = bytes_of([*optimizer.state.values()])


def four(out: Path) -> dict[str, Any]:
    """Train 50 steps with DDP and with FSDP2, which saves, and an average of weights too."""
    report: dict[str, Any] = {}
    for name, fsdp in (("ddp", False), ("fsdp", True)):
        kept = Kept()
        trained = made(
            out / name,
            kept,
            WeightAveragingCallback(0.5),
            model=Blocks(96),
            fsdp=fsdp,
            max_steps=50,
            save_strategy="steps" if fsdp else "no",
            save_steps=25,
        )
        trained.train()
        trained.save_model(out / f"{name}_weights")
        report[name] = {**seen(trained), "kept": [kept.weights, kept.optimizer]}
    return report


def resumed(out: Path) -> dict[str, Any]:
    """Resume the training of four processes in another number of them."""
    saved = out.parent / "four" / "fsdp" / "checkpoint-25"
    averaging = WeightAveragingCallback(0.5)
    changed: dict[str, Any] = {"max_steps": 50, "save_strategy": "steps", "save_steps": 35}
    trained = made(out / "fsdp", averaging, model=Blocks(96), fsdp=True, **changed)
    trained.train(saved)
    trained.save_model(out / "weights")
    return seen(trained)


def shards_itself(out: Path) -> dict[str, Any]:
    """Train a model that the user has sharded, with an optimizer of the user."""
    model = Blocks()
    mesh = init_device_mesh("cpu", (2,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    trained = Trainer(
        model,
        made(out).args,
        train_dataset=samples(600),
        optimizers=(torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0), None),
    )
    trained.train()
    return seen(trained)


class OwnData(Trainer):
    """Gives all processes the same batches."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(samples(600), batch_size=8)


def in_parallel(out: Path) -> dict[str, Any]:
    """Train with tensor parallelism, save, and resume from that without it."""
    given: dict[str, Any] = {"train_dataset": samples(600)}
    report = {}
    for name, model in (("parallel", Blocks()), ("whole", Blocks())):
        if name == "parallel":
            for block in model.blocks:
                plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
                parallelize_module(block, init_device_mesh("cpu", (2,)), plan)
        args = made(out / name, save_strategy="steps").args
        trained = OwnData(model, args, **given)
        trained.train(None if name == "parallel" else out / "parallel" / "checkpoint-4")
        report[name] = seen(trained)["loss"]
    return report


def units(fsdp_config: dict[str, Any], out: Path) -> Any:
    """Return the names of the units that are sharded, or the class of the error."""
    try:
        trained = made(out, fsdp=True, fsdp_config=fsdp_config)
    except ValueError as error:
        return type(error).__name__
    return [name for name, one in trained.model.named_modules() if isinstance(one, FSDPModule)]


def two(out: Path) -> dict[str, Any]:
    """Train in many ways, each to be compared with that of DDP."""
    evaluates = made(out / "evaluates", fsdp=True)
    before = evaluates.evaluate()["eval_loss"]
    losses = []
    for _ in range(2):
        evaluates.train()
        losses.append(seen(evaluates)["loss"])
    ways: dict[str, Any] = {
        "accumulated": {"gradient_accumulation_steps": 2},
        "evaluated": {"eval_strategy": "steps", "eval_steps": 4},
        "recomputed": {"fsdp_config": {"activation_checkpointing": True}},
        "kept": {"fsdp_config": {"reshard_after_forward": False}},
        "whole": {"fsdp_config": {"auto_wrap_policy": "NO_WRAP"}},
        "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"},
        "skips": {"on_non_finite": "skip"},
    }
    of_ddp = {"fsdp_config": None, "fsdp": False}
    report: dict[str, Any] = {
        name: [
            trains(out / name, **{"fsdp": True, **way}),
            trains(out / name, **{**way, **of_ddp}),
        ]
        for name, way in ways.items()
    }
    plain = out / "plain"
    whole = trains(plain, fsdp=False, save_strategy="steps")
    return {
        "ways": report,
        "before": [before, *losses, whole["loss"]],
        "own": shards_itself(out / "own"),
        "usual": whole,
        "in_parallel": in_parallel(out / "in_parallel"),
        "of_async": of_async(out / "async"),
        "from_plain": trains(out / "sharded", fsdp=True, resume=plain / "checkpoint-4"),
        "averaged": averaged(out / "averaged"),
        "failed": failed(out / "failed"),
        "apart": apart(out),
        "best": best(out / "best"),
        "rollback": rollback(out / "rollback"),
        "half": half(out / "half"),
        "units": {
            "class": units({"transformer_layer_cls_to_wrap": "Block"}, out),
            "size": units({"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": 1000}, out),
            "function": units({"auto_wrap_policy": lambda name, _: name == "blocks.1"}, out),
            "absent": units({"transformer_layer_cls_to_wrap": ["Other"]}, out),
            "tied": units({"auto_wrap_policy": lambda name, _: name == "first"}, out),
        },
    }


def of_async(out: Path) -> dict[str, Any]:
    """Resume from a sharded checkpoint that was written beside the training."""
    saving: dict[str, Any] = {"fsdp": True, "save_strategy": "steps", "save_async": True}
    trains(out / "saved", **saving)
    return trains(out / "resumed", **saving, resume=out / "saved" / "checkpoint-4")


def averaged(out: Path) -> list[dict[str, Any]]:
    """Train with FSDP2, resume that, and train with DDP, and evaluate an average of the weights."""
    each: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.05}
    each["save_strategy"] = "steps"
    reports = []
    for fsdp, resume in ((True, None), (True, out / "True" / "checkpoint-4"), (False, None)):
        callback, model = WeightAveragingCallback(0.5), Normed()
        to = out / str(fsdp)
        reports.append(trains(to, callback, model=model, resume=resume, **each, fsdp=fsdp))
    return reports


class FailsInEvaluation(Blocks):
    """Fails in the middle of an evaluation, when some of its weights are gathered."""

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.training:
            return super().forward(features, labels)
        raise KeyError(self.blocks[0](self.first(features)).shape)


def failed(out: Path) -> dict[str, Any]:
    """Fail in an evaluation of an average of the weights, which differ from it."""
    trained = made(
        out,
        WeightAveragingCallback(0.5),
        model=FailsInEvaluation(),
        **{"fsdp": True, "eval_strategy": "steps", "eval_steps": 4, "learning_rate": 0.05},
        save_on_exception=True,
    )
    try:
        trained.train()
    except KeyError:
        found = trains(out, fsdp=True, learning_rate=0.05, resume=out / "checkpoint-4")
        return {"resumed": found, "whole": trains(out, fsdp=True, learning_rate=0.05)}
    return {}


def apart(out: Path) -> str:
    """Save into a directory of each process, as hosts without a common disk do."""
    try:
        trains(out / f"host{RANK}", fsdp=True, save_strategy="steps")
    except ValueError as error:
        return str(error)
    return ""


def best(out: Path) -> dict[str, Any]:
    """Return the loss of the best checkpoint, and that of the model which was loaded from it."""
    each: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    changed = {**each, "save_steps": 2, "load_best_model_at_end": True, "learning_rate": 0.1}
    trained = made(out, fsdp=True, **changed)
    trained.train()
    return {"loaded": trained.evaluate()["eval_loss"], "best": trained.state.best_metric}


class Spoils(Trainer):
    """The loss of rank 1 is not finite at step 6, once."""

    spoilt = False

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        is_due = self.state.global_step == 5 and not self.spoilt and self.model.training
        if not is_due:
            return loss
        self.spoilt = True
        spoils = loss * torch.tensor(float("nan"))
        return spoils if RANK == 1 else loss


def rollback(out: Path) -> dict[str, Any]:
    """Go back to a sharded checkpoint."""
    args = made(out, fsdp=True, save_strategy="steps", on_non_finite="rollback").args
    trained = Spoils(Blocks(), args, train_dataset=samples(600))
    trained.train()
    weights = [one.full_tensor() for one in trained.model.parameters()]  # type: ignore[attr-defined]
    return {
        "bad": trained.run.guard.steps,
        "step": trained.state.global_step,
        "is_finite": all(bool(one.isfinite().all()) for one in weights),
    }


class Overflows(TrainerCallback):
    """Makes the first gradient of rank 1 infinite."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if RANK == 1 and state.global_step == 0:
            hook = parts["model"].blocks[0].down
            hook.register_full_backward_hook(lambda _, gradients, __: (gradients[0] * torch.inf,))


def half(out: Path) -> dict[str, Any]:
    """Train in float16 with an overflow in one process."""
    trained = made(out, fsdp=True, fp16=True, max_steps=2)
    trained.add_callback(Overflows)
    trained.train()
    return {"scale": trained.run.precision.state_dict()["scale"], **seen(trained)}


def killed(out: Path) -> None:
    """Kill rank 1 within the second save, when it has written a part of its files."""
    write_file: Callable[..., None] = checkpoint_writing.write_file

    def dies(path: Path, value: Any) -> None:
        write_file(path, value)
        if RANK == 1 and "-8" in path.parent.name:
            os.kill(os.getpid(), signal.SIGKILL)

    import trainer_torch.storage.sharded_writing as writing

    writing.write_file = dies  # type: ignore[attr-defined]
    made(out, fsdp=True, save_strategy="steps").train()


def failing(out: Path) -> Any:
    """Let the disk of rank 1 be full, and return what becomes of the training in each process."""
    import trainer_torch.storage.sharded_writing as writing

    def fails(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    if RANK == 1:
        writing.write_file = fails  # type: ignore[attr-defined]
    trained = made(out, fsdp=True, save_strategy="steps")
    trained.train()
    failed = [[one.step, one.number] for one in trained.run.saves.failed]
    return [trained.state.global_step, failed, sorted(path.name for path in out.iterdir())]


def raises_during_a_save(out: Path, *ranks: int) -> None:
    """Train until an error, which comes while a checkpoint is written."""
    raises = RaisesDuringASave(out, *ranks)
    made(out, raises, fsdp=True, save_strategy="steps", save_async=True).train()


def all_raise(out: Path) -> None:
    """Raise in all processes."""
    raises_during_a_save(out, 0, 1)


def one_raises(out: Path) -> None:
    """Raise in the process that does not publish the checkpoint."""
    raises_during_a_save(out, 1)


def raises_after_a_failure(out: Path) -> None:
    """Raise in all processes while one cannot write its part."""
    import trainer_torch.storage.sharded_writing as writing

    def fails(path: Path, value: Any) -> None:
        raise LookupError("broken on purpose")

    if RANK == 1:
        writing.write_file = fails  # type: ignore[attr-defined]
    all_raise(out)


def cases() -> Iterator[Callable[[Path], Any]]:
    """Yield what `torchrun` may run."""
    yield from (four, resumed, two, killed, failing)
    yield from (all_raise, one_raises, raises_after_a_failure)


if __name__ == "__main__":
    main({case.__name__: case for case in cases()})
