"""What an author tells the contract about a callback, and what its store holds afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from callback_contract._training import Training

CAPABILITIES: Final = {
    "steers": "asks the loop for a log, an evaluation, a checkpoint or the end of an epoch",
    "stops": "asks for the end of a training before its last step",
    "reasons": 'says why it asks for the end: `control.request_stop("why")`',
    "patience": "stops a training whose metric no longer improves; needs `make_patient`",
    "alters": "changes the model, its gradients, the optimizer or the schedule on purpose",
    "state": "keeps something in checkpoints",
    "prints": "writes to standard output, for a person",
    "sdk": "sends through a package that its own does not install; needs `sdk`",
    "settings": "reads settings from arguments and environment variables; needs `settings`",
    "unreachable": "uses a service; needs `make_unreachable`",
}
"""What a callback may do. `CallbackContract.capabilities` names what an author's does."""

TRACKER_CAPABILITIES: Final = {
    "resume": "continues its run when a training is resumed",
    "rewinds": "forgets what a killed training logged after the checkpoint",
    "adopts": "logs into a run that the user has opened; needs `users_run`",
    "status": "keeps how a training ended",
    "parameters": "keeps the arguments of a training",
    "redacts": "keeps secrets among arguments and logs out of the store",
    "scalars": "keeps scalars of numpy and torch as the numbers that they are",
    "non_finite": "keeps NaN and infinities",
    "text": "keeps strings that are logged",
    "files": "keeps checkpoints",
}
"""What a tracker may do besides."""


PRECISIONS: Final = {"single": 1e-6, "double": 1e-12, "exact": 0.0}
"""How far a stored number may be from what was logged, relative to it, by a store's precision."""


class Deviation(NamedTuple):
    """A rule that a callback is known to break. Once it is mended, its test turns red.

    Attributes:
        reason: Why it breaks the rule.
        issue: Where that is followed up.
    """

    reason: str
    issue: str = ""


_ON: Final = ("1", "ON", "YES", "TRUE")
_OFF: Final = ("0", "OFF", "NO", "FALSE")


def _in_each_case(words: Sequence[str], meant: bool) -> list[tuple[str, bool]]:
    forms = [form for word in words for form in (word, word.lower(), word.capitalize())]
    return [(form, meant) for form in dict.fromkeys(forms)]


class Setting(NamedTuple):
    """A setting of a callback: a constructor's argument, an environment variable, or a default.

    Attributes:
        argument: The constructor's argument, and the attribute of the callback, or of its
            `tracker`, that has the value in force.
        variable: The environment variable.
        default: The value if neither is given.
        examples: Texts that the variable may have, each with the value that it means.
        given: Values that the argument may have, each with the value that it means.
        wrong: Texts that the variable must not have.
        wrong_given: Values that the argument must not have.
        choices: What the error for a wrong variable has to name.
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
        """Return a setting that is on or off, in the forms that the core's `settings.flag` reads.

        Args:
            argument: The constructor's argument.
            variable: The environment variable.
            default: The value if neither is given.
            only_variable: Whether there is no such argument, only the attribute.
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
    """What the store of a tracker holds of one run, as an independent reader finds it.

    Attributes:
        id: The tracker's own name of it.
        parameters: Arguments by name, as strings or as they are.
        points: For each name, steps and values in the order of the store.
        text: The same for strings.
        summary: Values that a run has one of.
        files: What was uploaded: paths below the run, with slashes.
        status: `finished`, `failed`, `interrupted`, or `running` while it is open; `None` if the
            store keeps none.
    """

    id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    text: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)
    files: frozenset[str] | set[str] | Sequence[str] = frozenset()
    status: str | None = None


class MissingHook(NotImplementedError):
    """A capability is claimed, and the hook that it needs is not there."""


class Subject:
    """A callback under test: how to make it, and what it does.

    Attributes:
        capabilities: What it does, by the names of `CAPABILITIES` and `TRACKER_CAPABILITIES`.
        arguments: What the arguments of its trainings must be, by name.
        module: The module that its users import; by default that of its class.
        sdk: The module that it sends through, such as `wandb`; needed for the capability `sdk`.
        settings: The settings that it reads; needed for the capability `settings`.
        secrets: Strings that must stand in no file and in no store, such as the key `make` uses.
        precision: How exactly its store keeps numbers: `double`, a float of 64 bits; `single`, one
            of 32; or `exact`, also whole numbers that no float holds.
        flush_limit: Seconds that the end of a training may wait for a service that is away; few, so
            that the rules are quick. `make_unreachable` makes its callback with it.
        stored_within: Seconds within which the store holds what was logged when no training runs.
        time_limit: Seconds after which a rule that hangs is ended. It then fails by its name.
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
        """Return a new callback. Two trackers for one directory send to one store."""
        raise self._lacks("make", "a new callback")

    def make_model(self) -> Any:
        """Return the model to train: a module that takes a float tensor of shape (batch, 4).

        `None`, the default, is a small one of the contract's own.
        """
        return None

    def train_until_it_stops(self, training: Training) -> None:
        """Train until the callback asks for the end; by default by 20 equal evaluations."""
        training.max_steps = 40
        training.begin()
        for _ in range(20):
            training.step({"loss": 0.5})
            training.evaluate({"eval_loss": 0.5, "eval_accuracy": 0.5})
            if training.control.should_training_stop:
                break
        training.end()

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        """Return a callback that stops when `eval_loss` no longer improves.

        Args:
            output_dir: The directory of the training.
            patience: Evaluations in a row without an improvement.
            threshold: What an improvement has to exceed.
        """
        raise self._lacks("make_patient", "a callback with this patience")

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        """Return a callback that is made with these arguments."""
        raise self._lacks("make_with", "a callback that is made with the given arguments")

    def make_unreachable(self, output_dir: Path) -> Any:
        """Return a callback whose service is away."""
        raise self._lacks("make_unreachable", "a callback whose service is away")

    def deliver_later(self, output_dir: Path) -> None:
        """Bring the service of `make_unreachable` back, and deliver what it has not received.

        This default delivers by `callback_core.tracking.replay`; the service is yours to bring
        back first.
        """
        from callback_core.tracking import replay

        replay.main([str(output_dir)])

    def users_run(self, output_dir: Path) -> AbstractContextManager[str]:
        """Open a run as a user does, and yield its id. It stays open until the block ends."""
        raise self._lacks("users_run", "a context manager that opens a run as a user does")

    def read(self, output_dir: Path) -> list[RecordedRun]:
        """Return the runs in the store of `output_dir`, oldest first.

        Read it as somebody else would: not with the code that wrote it.
        """
        raise self._lacks("read", "what the tracker has stored")

    def stored_name(self, name: str) -> str:
        """Return what the store calls a value that is logged as `name`.

        By default as transformers' trackers do: `train/loss` for `loss`, `eval/loss` for
        `eval_loss`.
        """
        for split in ("eval", "test"):
            if name.startswith(f"{split}_"):
                return f"{split}/{name[len(split) + 1 :]}"
        return f"train/{name}"

    def _lacks(self, hook: str, what: str) -> MissingHook:
        return MissingHook(f"{type(self).__name__} lacks the hook `{hook}`, which returns {what}")
