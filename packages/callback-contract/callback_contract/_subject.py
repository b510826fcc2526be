"""What a package tells the contract of its callback, and what its store holds afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from callback_contract._case import Training

CAPABILITIES: Final = {
    "steers": "asks the loop for something through the control",
    "stops": "asks for the end of a training before its last step",
    "state": "keeps something in the checkpoint",
    "prints": "writes to standard output, for a person",
    "sdk": "needs a package that its own does not install, or imports only when it is used",
    "resume": "goes on in its run when a training is resumed",
    "rewinds": "forgets what a training logged that died, and that a resumed one has replaced",
    "status": "keeps how a training ended",
    "parameters": "keeps the arguments of a training",
    "non_finite": "keeps NaN and infinities",
    "text": "keeps strings that are logged",
    "files": "keeps checkpoints",
    "unreachable": "can be made so that its service is not there",
    "flow": "asks for what the strategies of the arguments say is due, and for the end",
    "patience": "stops a training that gets no better; `make_patient` says how it is made",
    "reasons": "tells by its control's requests why it stops, as this library's does",
    "prints_logs": "prints each log as a line, in the form that this library has for people",
    "bars": "shows in a terminal how far a training and its evaluations are",
    "tracking": "is a `TrackerCallback`, with a journal that is delivered to its tracker",
    "settings": "reads settings from arguments and environment variables; `settings` names them",
}
"""What a callback may be able to do; `Contract.capabilities` names those that it is."""


class Deviation(NamedTuple):
    """A rule that a callback is known to break. It turns red once that is mended.

    Attributes:
        reason: Why.
        issue: Where it is followed up.
    """

    reason: str
    issue: str = ""


_ON: Final = ("1", "ON", "YES", "TRUE")
_OFF: Final = ("0", "OFF", "NO", "FALSE")


def _in_each_case(words: Sequence[str], meant: bool) -> list[tuple[str, bool]]:
    forms = [form for word in words for form in (word, word.lower(), word.capitalize())]
    return [(form, meant) for form in dict.fromkeys(forms)]


class Setting(NamedTuple):
    """A setting of a callback, by its argument, an environment variable, or a default.

    Attributes:
        argument: The constructor's argument, and the attribute that has the value that counts, of
            the callback or of its tracker.
        variable: The environment variable.
        default: The value where nothing is said.
        examples: What the variable may be, and the value that it means.
        given: Values that the argument may be.
        wrong: What the variable may not be.
        wrong_given: What the argument may not be.
        choices: What the message of what is wrong has to name.
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
        """Return one that is on or off, in the forms that `settings.flag` of the core reads.

        Args:
            argument: The constructor's argument.
            variable: The environment variable.
            default: The value where nothing is said.
            only_variable: Whether there is no such argument, but the attribute alone.
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
        points: For each name, steps and values in the order in which the store has them.
        text: The same of strings.
        summary: Values that a run has one of.
        files: What was uploaded: paths below the run, with slashes.
        status: `finished`, `failed`, `interrupted`, or `running` while it is open; `None` where the
            store keeps none.
    """

    id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    text: Mapping[str, list[tuple[int, str]]] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    status: str | None = None


class Subject:
    """What is checked: how to make the callback, and what it can do.

    Attributes:
        capabilities: Those of `CAPABILITIES` that it has.
        arguments: What the arguments of its trainings have to be, by their names.
        module: The module that its users import; where it is not given, the one that has its class.
        sdk: The module that it sends through, for example `wandb`; asked of those with an `sdk`.
        flush_limit: Seconds that the end of training waits for a service that is not there: those
            that `make_unreachable` makes its callback with. Few, so that the suite is quick.
        patience: Seconds by which the store holds what was logged while no training went on, since
            nothing ends that could wait for it.
        settings: The settings that it reads; asked of those with `settings`.
    """

    capabilities: frozenset[str] | set[str] = frozenset()
    arguments: Mapping[str, Any] = MappingProxyType({})
    module: str | None = None
    sdk: str | None = None
    flush_limit: float = 30.0
    patience: float = 30.0
    settings: Sequence[Setting] = ()

    def make(self, output_dir: Path) -> Any:
        """Return a new callback, for a training that writes to `output_dir`.

        Two for one directory send to one store.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how to make its callback.")

    def make_unreachable(self, output_dir: Path) -> Any:
        """Return one whose service is not there; asked of those that are `unreachable`."""
        raise NotImplementedError(f"{type(self).__name__} must make one that is unreachable.")

    def train_until_it_stops(self, training: Training) -> None:
        """Train so that it asks for the end; asked of those that are able to (`stops`).

        Here: twenty evaluations of which none is better than the first.
        """
        training.state.max_steps = 40
        training.run(steps=40)

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        """Return one that is made with these arguments; asked of those with `settings`."""
        raise NotImplementedError(f"{type(self).__name__} must make one with these arguments.")

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        """Return one that stops after so many evaluations without an improvement by so much.

        Asked of those that have `patience`.
        """
        raise NotImplementedError(f"{type(self).__name__} must make one that has this patience.")

    def read(self, output_dir: Path) -> list[RecordedRun]:
        """Return the runs that the callbacks for `output_dir` have stored, oldest first.

        Asked of trackers. Read it as somebody else would: not with the code that wrote it.
        """
        raise NotImplementedError(f"{type(self).__name__} must read what its tracker stored.")

    def stored_name(self, name: str) -> str:
        """Return what the store calls a value that is logged as `name`.

        By default as transformers' trackers do: `loss` is `train/loss`, `eval_loss` `eval/loss`.
        """
        for split in ("eval", "test"):
            if name.startswith(f"{split}_"):
                return f"{split}/{name[len(split) + 1 :]}"
        return f"train/{name}"

    def deliver_later(self, output_dir: Path) -> None:
        """Deliver what the service of `make_unreachable` has not got, now that it is there.

        Bring the service back first. By default it is done by `callback_core.tracking.replay`.
        """
        from callback_core.tracking import replay

        replay.main([str(output_dir)])
