"""`Subject`: what an author declares about a callback; `RecordedRun`: what its store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from callback_contract._training import Training

CAPABILITIES: Final = {
    "steers": "requests a log, an evaluation, a checkpoint or the end of an epoch",
    "stops": "stops a training before its last step",
    "reasons": 'gives a reason when it stops a training: `control.request_stop("why")`',
    "patience": "stops a training when a metric stops improving; needs `make_patient`",
    "alters": "changes the model, its gradients, the optimizer or the schedule on purpose",
    "state": "saves state in checkpoints",
    "prints": "writes to standard output for a person to read",
    "sdk": "uses an SDK that its own package does not install; needs `sdk`",
    "settings": "reads settings from arguments and environment variables; needs `settings`",
    "unreachable": "uses a service; needs `make_unreachable`",
}
"""What a callback may do. `CallbackContract.capabilities` names what the author's callback does."""

TRACKER_CAPABILITIES: Final = {
    "resume": "continues its run when a training is resumed",
    "rewinds": "removes what a killed training logged after the checkpoint",
    "adopts": "logs into a run that the user opened; needs `users_run`",
    "status": "stores how a training ended",
    "parameters": "stores the arguments of a training",
    "redacts": "keeps secrets in arguments and logs out of the store",
    "scalars": "stores scalars of numpy and torch as numbers",
    "non_finite": "stores NaN and infinities",
    "text": "stores strings",
    "files": "stores checkpoints",
}
"""What a tracker may do, besides `CAPABILITIES`."""


PRECISIONS: Final = {"single": 2**-24, "double": 1e-12, "exact": 0.0}
"""The largest relative error of a stored number, for each `Subject.precision`."""


class Deviation(NamedTuple):
    """A rule that a callback is known to break. Its test fails once the callback keeps the rule.

    Attributes:
        reason: Why the callback breaks the rule.
        issue: The issue that tracks the deviation.
    """

    reason: str
    issue: str = ""


_ON: Final = ("1", "ON", "YES", "TRUE")
_OFF: Final = ("0", "OFF", "NO", "FALSE")


def _in_each_case(words: Sequence[str], value: bool) -> list[tuple[str, bool]]:
    forms = [form for word in words for form in (word, word.lower(), word.capitalize())]
    return [(form, value) for form in dict.fromkeys(forms)]


class Setting(NamedTuple):
    """A setting that an argument of the constructor or an environment variable sets.

    Attributes:
        argument: The name of the constructor's argument. An attribute of the callback's `tracker`,
            or else of the callback, has the same name and holds the current value.
        variable: The environment variable.
        default: The value if neither is set.
        examples: Valid texts of the variable, each with the resulting value.
        given: Valid values of the argument, each with the resulting value.
        wrong: Invalid texts of the variable.
        wrong_given: Invalid values of the argument.
        choices: The choices that the error for an invalid variable must list.
    """

    argument: str
    variable: str
    default: Any
    examples: Sequence[tuple[str, Any]]
    given: Sequence[tuple[Any, Any]] = ()
    wrong: Sequence[str] = ()
    wrong_given: Sequence[Any] = ()
    choices: Sequence[str] = ()

    @classmethod
    def flag(
        cls,
        argument: str,
        variable: str,
        default: bool | None = False,
        *,
        only_variable: bool = False,
    ) -> Setting:
        """Return a Boolean setting with the forms that `callback_core.tracking.config.flag` reads.

        Args:
            argument: The constructor's argument.
            variable: The environment variable.
            default: The value if neither is set.
            only_variable: Whether the constructor lacks the argument, so only the attribute exists.
        """
        return cls(
            argument,
            variable,
            default,
            examples=[*_in_each_case(_ON, True), *_in_each_case(_OFF, False)],
            given=() if only_variable else ((False, False), (True, True)),
            wrong=("2", "t", "of", "maybe", "all"),
            wrong_given=() if only_variable else ("yes", "False", 1, 0),
            choices=(*_ON, *_OFF),
        )


@dataclass
class RecordedRun:
    """One run in the store of a tracker, as an independent reader finds it.

    Attributes:
        id: The tracker's id of the run.
        parameters: The arguments by name, as strings or as their original values.
        points: For each name, the steps and values in the order of the store.
        text: For each name, the steps and strings in the order of the store.
        summary: Values that the run has once and without a step.
        files: The uploaded files: paths relative to the run, with slashes.
        status: `finished`, `failed`, `interrupted`, or `running` while the run is open; `None` if
            the store has no status.
    """

    id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    text: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)
    files: frozenset[str] | set[str] | Sequence[str] = frozenset()
    status: str | None = None


class MissingHook(NotImplementedError):
    """The author claims a capability without its hook."""


class Subject:
    """A callback under test: how to make it, and what it does.

    Attributes:
        capabilities: What it does: names in `CAPABILITIES` and `TRACKER_CAPABILITIES`.
        arguments: Arguments that its trainings need, by name.
        module: The module that its users import; by default the module of its class.
        sdk: The module of its SDK, such as `wandb`. The capability `sdk` needs it.
        settings: The settings that it reads. The capability `settings` needs them.
        secrets: Strings that no file and no store may contain, such as the key that `make` uses.
        precision: How exactly its store keeps numbers. `double` stores floats of 64 bits, `single`
            floats of 32 bits. `exact` also stores integers of any size exactly.
        flush_limit: Seconds that the end of a training may wait for an unreachable service. Pass it
            to the callback in `make_unreachable`; a small value keeps the rules fast.
        stored_within: Seconds until the store has what was logged outside a training.
        time_limit: Seconds after which a rule that hangs is interrupted and fails.
    """

    capabilities: frozenset[str] | set[str] = frozenset()
    arguments: Mapping[str, Any] = MappingProxyType({})
    module: str | None = None
    sdk: str | None = None
    settings: Sequence[Setting] = ()
    secrets: Sequence[str] = ()
    precision: Literal["single", "double", "exact"] = "double"
    flush_limit: float = 1.0
    stored_within: float = 30.0
    time_limit: float = 120.0

    def make(self, output_dir: Path) -> Any:
        """Return a new callback. All trackers for one directory send to the same store."""
        raise self._missing_hook("make", "a new callback")

    def make_model(self) -> Any:
        """Return the model to train: a module that takes a float tensor of shape (batch, 4).

        It returns one tensor of any shape. The loss is the mean of its squares. The default,
        `None`, selects a small model of the contract.
        """
        return None

    def train_until_it_stops(self, training: Training) -> None:
        """Train until the callback stops the training. The default does 20 equal evaluations."""
        training.max_steps = 40
        training.begin()
        for _ in range(20):
            training.step({"loss": 0.5}, evaluates=True)
            training.evaluate({"eval_loss": 0.5, "eval_accuracy": 0.5})
            if training.control.should_training_stop:
                break
        training.end()

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        """Return a callback that stops when `eval_loss` no longer improves.

        Args:
            output_dir: The directory of the training.
            patience: The number of evaluations in a row without an improvement.
            threshold: The amount that an improvement must exceed.
        """
        raise self._missing_hook("make_patient", "a callback with this patience")

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        """Return a callback constructed with these arguments."""
        raise self._missing_hook("make_with", "a callback constructed with the given arguments")

    def make_unreachable(self, output_dir: Path) -> Any:
        """Return a callback whose service is unreachable."""
        raise self._missing_hook("make_unreachable", "a callback whose service is unreachable")

    def deliver_later(self, output_dir: Path) -> None:
        """Make the service of `make_unreachable` reachable, and deliver what it has not received.

        The default only delivers, with `callback_core.tracking.replay`. Override it to make the
        service reachable first.
        """
        from callback_core.tracking import replay

        replay.main([str(output_dir)])

    def users_run(self, output_dir: Path) -> AbstractContextManager[str]:
        """Open a run as a user does, and yield its id. The run stays open until the block ends."""
        raise self._missing_hook("users_run", "a context manager that opens a run as a user does")

    def read(self, output_dir: Path) -> list[RecordedRun]:
        """Return the runs in the store of `output_dir`, oldest first.

        Do not read the store with the code that wrote it.
        """
        raise self._missing_hook("read", "the runs in the store")

    def stored_name(self, name: str) -> str:
        """Return the store's name of a value that was logged as `name`.

        The default follows the trackers of transformers: `train/loss` for `loss`, and `eval/loss`
        for `eval_loss`.
        """
        for split in ("eval", "test"):
            if name.startswith(f"{split}_"):
                return f"{split}/{name[len(split) + 1 :]}"
        return f"train/{name}"

    def _missing_hook(self, hook: str, what: str) -> MissingHook:
        return MissingHook(f"{type(self).__name__} lacks the hook `{hook}`, which returns {what}")
