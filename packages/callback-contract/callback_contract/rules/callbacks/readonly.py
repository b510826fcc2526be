"""Read-only: a callback changes only the control, unless it claims more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from callback_contract._case import Case
from callback_contract._model_state import model_hooks, model_state, modes, weights_of
from callback_contract._process import (
    difference,
    files_below,
    generator_switches,
    restored_process,
    seed_generators,
    values_of,
)
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import require
from callback_contract._watching import watch
from callback_core import TrainerControl


@rule(
    "ROY-001",
    why="WandbCallback sets args.run_name to None in a search, so later readers find no name "
    "(transformers 4.34.0 and 5.23.0).",
    fix="Change a copy: `dataclasses.replace(args, …)` or `args.to_dict()`.",
)
def leaves_the_arguments(case: Case) -> None:
    """No event changes the arguments."""
    watch(case, "the arguments", lambda training, _: training.args.to_dict())


@rule(
    "ROY-002",
    why="All callbacks share the state, and checkpoints contain it. A resumed training begins with "
    "whatever a callback put there (huggingface/transformers#33875).",
    fix="Store counters on the callback, and save them in its own state_dict.",
)
def leaves_the_state(case: Case) -> None:
    """No event changes the `TrainerState`, including `log_history`."""
    watch(case, "the state", lambda training, _: vars(training.state) | asdict(training.state))


@rule(
    "ROY-003",
    unless="alters",
    why="A callback dropped gradients, updated running statistics with its own forward pass, or "
    "froze a layer for its samples. The training changed, and nobody knew why (wandb/wandb#5573).",
    fix="Only read the model, and store what you compute on the callback; or claim `alters`.",
)
def leaves_the_model(case: Case) -> None:
    """No event changes the model, its gradients, the optimizer or the schedule.

    The model includes all weights, buffers, attributes, the configuration and `requires_grad`.
    """
    watch(case, "the model", lambda training, _: model_state(training))


@rule(
    "ROY-004",
    why="A callback switched a model to evaluation mode to log samples and never back, so the rest "
    "of the training had no dropout (shubhamagarwal92/mmd#14). Another one switched all modules "
    "to training mode, including frozen ones (Lightning-AI/pytorch-lightning#2551).",
    fix="Save `module.training` for each module in model.modules(), and restore it in a finally "
    "block. `model.train()` switches all modules.",
)
def leaves_the_mode(case: Case) -> None:
    """No event changes whether a module is in training mode or in evaluation mode.

    Frozen modules are in evaluation mode while the rest of the model is trained.
    """
    watch(case, "the modes of modules", lambda training, _: modes(training))


@rule(
    "ROY-005",
    why="PrinterCallback removed total_flos from the shared logs, so the result of train() lacked "
    "it (transformers 5.23.0).",
    fix="Change a copy: `logs = dict(logs)`.",
)
def leaves_the_logs(case: Case) -> None:
    """`on_log` does not change `logs`."""
    watch(case, "the logs", lambda _, keywords: keywords.get("logs"))


@rule(
    "ROY-006",
    why="NotebookProgressCallback removes the epoch and the runtimes from the caller's metrics, so "
    "evaluate() returns fewer metrics in a notebook (transformers 5.23.0).",
    fix="Change a copy: `metrics = dict(metrics)`.",
)
def leaves_the_metrics(case: Case) -> None:
    """`on_evaluate` and `on_predict` do not change `metrics`."""
    watch(case, "the metrics", lambda _, keywords: keywords.get("metrics"))


@rule(
    "ROY-007",
    why="A random number that a callback or its SDK draws changes the rest of the run. MLflow "
    "draws the names of its runs in a thread (huggingface/transformers#39215, "
    "huggingface/transformers#17032).",
    fix="Draw from your own generator, such as `random.Random(seed)` or `torch.Generator()`.",
)
def leaves_the_random_generators(case: Case) -> None:
    """After a training, the global random generators have the same state as without the callback.

    These are Python's generator, and numpy's and torch's if they are loaded. The rule trains with
    and without a `run_name`. It ignores the callback's requests, so that the length is the same.
    """
    for name in ("contract", None):
        args = case.arguments(run_name=name)
        expected = _generators_after(case, [], args)
        found = _generators_after(case, [case.make()], args)
        changed = [library for library in difference(expected, found) if library in expected]
        require(
            not changed,
            f"with run_name={name!r}, the training drew other numbers from {', '.join(changed)}",
        )


@rule(
    "ROY-008",
    why="A checkpoint may list its files with their hashes before on_save. If one of them is "
    "missing or differs, it is no longer complete.",
    fix="Change only copies of its files. In on_save, write files of other names.",
)
def leaves_checkpoints(case: Case) -> None:
    """No event changes the files of a checkpoint.

    In on_save, a callback may add files to the new checkpoint. It may delete an older checkpoint
    as a whole, but not the newest one.
    """
    case.training(kind=_WatchedCheckpoints, max_steps=24).live()


@rule(
    "ROY-009",
    why="A hook that remains on the model prevents saving and copying it, and slows it down "
    "(wandb/wandb#5573).",
    fix="Keep the handles of hooks, and call `remove()` on them in on_train_end.",
)
def leaves_no_hook(case: Case) -> None:
    """A training leaves no new hook on the model, its weights or its optimizer."""
    for error in (None, OUT_OF_MEMORY):
        training = case.training()
        before = model_hooks(training)
        training.begin()
        for step in training.steps():
            if step == 3:
                break
        training.end(error)
        changed = difference(before, model_hooks(training))
        require(not changed, f"after a training, these have changed: {', '.join(changed)}")


@rule(
    "ROY-010",
    why="Users reuse an output directory and keep files of their own in it. A callback that clears "
    "it at the start deletes their results.",
    fix="Choose distinctive file names, and delete only files that the callback wrote.",
)
def leaves_the_files_of_others(case: Case) -> None:
    """A training neither changes nor deletes files that were in `output_dir` before."""
    folder = case.output_dir
    (folder / "my plots").mkdir()
    names = ("my notes.txt", "my results.csv", "my_vocabulary.json", "my plots/first.png")
    for name in names:
        (folder / name).write_text("the user's own")
    case.training().live()
    after = files_below(folder)
    changed = [name for name in names if after.get(name) != b"the user's own"]
    require(not changed, f"it changed or deleted {changed}")


@rule(
    "ROY-011",
    why="The loop and all callbacks share the tensor. An in-place change of one callback changes "
    "the loss that the others see.",
    fix="Change a copy: `loss.clone()`. Avoid in-place operations such as `loss.add_()`.",
)
def leaves_the_loss(case: Case) -> None:
    """No event changes the `loss` that it receives."""

    def loss_of(_: Training, keywords: dict[str, Any]) -> str | None:
        loss = keywords.get("loss")
        return None if loss is None else repr(float(loss))  # so that NaN equals NaN

    watch(case, "the loss", loss_of)


@rule(
    "ROY-012",
    needs=("alters",),
    why="A callback evaluated averaged weights and did not put the trained ones back, so the "
    "training continued from the average (aqlaboratory/openfold#90).",
    fix="Before the evaluation, copy the weights with `.clone()`: `state_dict()` refers to them. "
    "Put them back in on_evaluate.",
)
def an_evaluation_leaves_the_weights(case: Case) -> None:
    """An evaluation that is the best so far leaves the weights as it found them.

    If the loop announces the evaluation with `control.should_evaluate` at `on_step_end`, the
    weights after it are those that they would be without it. A callback may go back to earlier
    weights after a worse evaluation, and may change the weights in training and while it evaluates.
    """
    training = case.begin()
    training.fire("on_epoch_begin")
    for number in range(1, 4):
        training.step({"loss": 1 / number})
        before = weights_of(training)
        training.evaluate({"eval_loss": 1 / number, "eval_accuracy": number / 4})
        changed = ", ".join(difference(before, weights_of(training)))
        require(not changed, f"after the evaluation at step {number}, these differ: {changed}")
    expected, again, found = (_after_three_steps(case, evaluates=e) for e in (False, False, True))
    if expected == again:  # otherwise, they do not depend on the training alone
        changed = ", ".join(difference(expected, found))
        require(not changed, f"after an announced evaluation, these differ: {changed}")


class _WatchedCheckpoints(Training):
    """A training in which no call may change a checkpoint, except that `on_save` may add files."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        before = self._checkpoints()
        answer = super().call(callback, event, keywords)
        after = self._checkpoints()
        newest = max(before, default=-1)
        name = f"{type(callback).__name__}.{event}"
        for step, files in before.items():
            if step in after or step == newest:
                changed = difference(files, after.get(step, {}))
                if event == "on_save" and step == newest:
                    changed = [path for path in changed if path in files]
                require(not changed, f"{name} changed {changed} of checkpoint-{step}")
        return answer

    def _checkpoints(self) -> dict[int, dict[str, Any]]:
        return {
            int(folder.name.partition("-")[2]): dict(files_below(folder))
            for folder in Path(self.args.output_dir).glob("checkpoint-*")
        }


class _IgnoringRequests(Training):
    """A training that ignores the requests of callbacks."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        answer = super().call(callback, event, keywords)
        self.control = TrainerControl()
        return answer


def _after_three_steps(case: Case, *, evaluates: bool) -> dict[str, Any]:
    """Return the weights after three steps of a new callback, and after an evaluation."""
    with restored_process():
        training = case.begin()
        training.fire("on_epoch_begin")
        for number in range(1, 4):
            seed_generators()
            is_last = evaluates and number == 3
            training.step({"loss": 1 / number}, evaluates=is_last)
        if evaluates:
            training.evaluate({"eval_loss": 0.25, "eval_accuracy": 0.75})
        return weights_of(training)


def _generators_after(case: Case, callbacks: list[Any], args: Any) -> dict[str, Any]:
    """Seed the random generators, train, and return the state of the generators."""
    with restored_process():
        seed_generators()
        case.training(*(callbacks or [object()]), kind=_IgnoringRequests, args=args).live()
        case.end_trainings()
        return values_of(generator_switches())
