"""Read-only: a callback changes nothing but the control, unless it claims to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from callback_contract._case import Case
from callback_contract._process import (
    difference,
    files_below,
    generators,
    process_put_back,
    seed_generators,
)
from callback_contract._registry import rule
from callback_contract._training import DIED, Training
from callback_contract._violation import require
from callback_contract._watching import model_hooks, model_state, modes, watch
from callback_core import TrainerControl


@rule(
    "ROY-001",
    why="WandbCallback sets args.run_name to None in a search, so that whoever reads it later "
    "finds none (transformers 4.34.0 and 5.23.0).",
    mend="Copy what you want to change: `dataclasses.replace`, or `args.to_dict()`.",
)
def leaves_the_arguments(case: Case) -> None:
    """The arguments are the same after every event."""
    watch(case, "the arguments", lambda training, _: training.args.to_dict())


@rule(
    "ROY-002",
    why="The state is written to checkpoints and shared by all callbacks: a resumed training "
    "begins with whatever one puts there (huggingface/transformers#33875).",
    mend="Keep what you count on the callback, and in its own state_dict.",
)
def leaves_the_state(case: Case) -> None:
    """The `TrainerState` is the same after every event, `log_history` included."""
    watch(case, "the state", lambda training, _: vars(training.state) | asdict(training.state))


@rule(
    "ROY-003",
    unless="alters",
    why="A callback dropped gradients, moved running statistics by a forward of its own, or froze "
    "a layer for its samples; the training went another way, and nobody knew why "
    "(wandb/wandb#5573).",
    mend="Look at the model, and keep what you find on the callback; or claim `alters`.",
)
def leaves_the_model(case: Case) -> None:
    """No event changes the model, its gradients, the optimizer or the schedule.

    That is all weights, buffers, attributes, the configuration and `requires_grad`.
    """
    watch(case, "the model", lambda training, _: model_state(training))


@rule(
    "ROY-004",
    why="A model was switched to evaluation to write samples to the log, and never back: the rest "
    "of the training had no dropout (shubhamagarwal92/mmd#14). What is frozen was put into the "
    "mode of training with all else (Lightning-AI/pytorch-lightning#2551).",
    mend="Note `module.training` of each of model.modules(), and put each back in a finally: "
    "`model.train()` switches all of them.",
)
def leaves_the_mode(case: Case) -> None:
    """Every module is in the mode, of training or of evaluation, that it had before an event.

    What is frozen is in that of evaluation while the rest is trained.
    """
    watch(case, "the mode of modules", lambda training, _: modes(training))


@rule(
    "ROY-005",
    why="PrinterCallback took total_flos out of the shared logs, which then was missing from what "
    "train() returns (transformers 5.23.0).",
    mend="Begin with `logs = dict(logs)` if you change them.",
)
def leaves_the_logs(case: Case) -> None:
    """`logs` is the same after `on_log`."""
    watch(case, "the logs", lambda _, keywords: keywords.get("logs"))


@rule(
    "ROY-006",
    why="NotebookProgressCallback takes epoch and the runtimes out of the caller's metrics: in a "
    "notebook, evaluate() returns fewer of them (transformers 5.23.0).",
    mend="Begin with `metrics = dict(metrics)` if you change them.",
)
def leaves_the_metrics(case: Case) -> None:
    """`metrics` is the same after `on_evaluate` and `on_predict`."""
    watch(case, "the metrics", lambda _, keywords: keywords.get("metrics"))


@rule(
    "ROY-007",
    why="A number that a callback draws makes the run another one, and so does one that an SDK "
    "draws in a thread: MLflow draws the names of its runs (huggingface/transformers#39215, "
    "huggingface/transformers#17032).",
    mend="Draw from a generator of your own: `random.Random(seed)`, `torch.Generator()`.",
)
def leaves_the_random_generators(case: Case) -> None:
    """After a training, the global generators are where they are without the callback.

    These are Python's, and numpy's and torch's if they are loaded. The training has a `run_name`,
    and then none. It is as long as it is without the callback, whatever that asks for.
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
    why="A checkpoint lists its files with their hashes before callbacks hear of it; a file more "
    "or less makes it a broken one (huggingface/transformers#27820).",
    mend="Write beside the checkpoint; copy what has to be changed.",
)
def leaves_checkpoints(case: Case) -> None:
    """The files of a checkpoint are the same after `on_save`, and after all that follows.

    An older checkpoint may be deleted as a whole, the newest one may not.
    """
    case.training(kind=_Checkpointed, max_steps=24).live()


@rule(
    "ROY-009",
    why="A hook that stays on the model keeps it from being saved or copied, and slows all that "
    "follows (wandb/wandb#5573).",
    mend="Keep the handles of hooks, and call `remove()` in on_train_end.",
)
def leaves_no_hook(case: Case) -> None:
    """The model, its weights and its optimizer have no hook after a training that they lacked."""
    for error in (None, DIED):
        training = case.training()
        before = model_hooks(training)
        training.begin()
        for step in training.steps():
            if step == 3:
                break
        training.end(error)
        left = difference(before, model_hooks(training))
        require(not left, f"after a training, these differ: {', '.join(left)}")


@rule(
    "ROY-010",
    why="A directory is trained into more than once, and holds what users keep there: a callback "
    "that starts by clearing it deletes their results.",
    mend="Write files of names of your own; delete nothing that you have not written.",
)
def leaves_the_files_of_others(case: Case) -> None:
    """Files that are in `output_dir` before a training are there, unchanged, after it."""
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
    why="Code that walks an error's arguments, adds a note or swallows the loss changes what other "
    "callbacks and the loop see of the step.",
    mend="Copy a tensor before you change it: `loss.clone()`, not `loss.add_()`.",
)
def leaves_the_loss(case: Case) -> None:
    """The `loss` of a step is the same after the event that passes it."""
    watch(case, "the loss", lambda _, keywords: _number(keywords.get("loss")))


def _number(loss: Any) -> float | None:
    return None if loss is None else float(loss)


class _Checkpointed(Training):
    """A training whose checkpoints no call may change."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        before = self._checkpoints()
        answer = super().call(callback, event, keywords)
        after = self._checkpoints()
        newest = max(before, default=-1)
        name = f"{type(callback).__name__}.{event}"
        for step, files in before.items():
            if step in after or step == newest:
                changed = difference(files, after.get(step, {}))
                require(not changed, f"{name} changed {changed} of checkpoint-{step}")
        return answer

    def _checkpoints(self) -> dict[int, dict[str, Any]]:
        return {
            int(folder.name.partition("-")[2]): dict(files_below(folder))
            for folder in Path(self.args.output_dir).glob("checkpoint-*")
        }


class _Unheeding(Training):
    """A training that does nothing of what callbacks ask for."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        answer = super().call(callback, event, keywords)
        self.control = TrainerControl()
        return answer


def _generators_after(case: Case, callbacks: list[Any], args: Any) -> dict[str, Any]:
    """Return where the generators are after a training that they were set before."""
    with process_put_back():
        seed_generators()
        training = case.training(*(callbacks or [object()]), kind=_Unheeding, args=args)
        training.live()
        case.end_trainings()
        return generators()
