"""Trackers that are wrong in one way each: about arguments, configurations and their secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mutants import mutant
from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_core.tracking import Rejected, Status


class TakesParameters(FileTracker):
    """Has no limits that it declares."""

    limits = replace(FileTracker.limits, parameter_length=None, parameter_count=None)


@mutant("LIM-001")
class RefusesAllForALongOne(Reference):
    class tracker(TakesParameters):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            for name, value in parameters.items():
                if isinstance(value, str) and len(value) > 250:
                    raise Rejected(f"{name} is too long")
            super().log_parameters(parameters)


@mutant("LIM-002")
class CutsWithoutAWord(Reference):
    class tracker(TakesParameters):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            super().log_parameters({name: str(v)[:250] for name, v in parameters.items()})


@mutant("LIM-003")
class RefusesAllForTooMany(Reference):
    class tracker(TakesParameters):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            if len(parameters) > 400:
                raise Rejected(f"too many: {', '.join(parameters)}")
            super().log_parameters(parameters)


@mutant("LIM-004")
class LeavesOutWithoutAWord(Reference):
    class tracker(TakesParameters):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            super().log_parameters(dict(list(parameters.items())[:100]))


@mutant("LIM-005")
class DropsNestedArguments(Reference):
    class tracker(FileTracker):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            super().log_parameters(
                {name: v for name, v in parameters.items() if not isinstance(v, (dict, list))}
            )


def deaf_to(trainings: Callable[[Any, Any], bool]) -> type[ReferenceCallback]:
    """Return a callback that hears nothing of trainings with some arguments and model."""

    class Callback(ReferenceCallback):
        deaf = False

        def on_train_begin(
            self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any
        ) -> None:
            self.deaf = trainings(args, kwargs.get("model"))
            if not self.deaf:
                super().on_train_begin(args, state, control, **kwargs)

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            if not self.deaf:
                super().on_epoch_begin(*args, **kwargs)

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if not self.deaf:
                super().on_log(*args, **kwargs)

    return Callback


def is_odd(args: Any, model: Any) -> bool:
    try:
        json.dumps(args.to_dict())
    except TypeError:
        return True
    return False


@mutant("LIM-006")
class KnowsPlainArguments(Reference):
    callback = deaf_to(is_odd)


@mutant("LIM-007")
class KnowsSmallConfigurations(Reference):
    callback = deaf_to(
        lambda args, model: (
            hasattr(getattr(model, "config", None), "to_dict")
            and len(str(model.config.to_dict())) > 5000
        )
    )


@mutant("LIM-008")
class WantsAConfiguration(Reference):
    callback = deaf_to(lambda args, model: hasattr(model, "config") and model.config is None)


class TellsTracker(FileTracker):
    """Stores what it is told behind the back of the redaction."""

    told: Mapping[str, Any] = {}

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        super().log_parameters({**parameters, **self.told})


class Tells(ReferenceCallback):
    """Tells the tracker some of the arguments and of the configuration as they are."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any
    ) -> None:
        assert isinstance(self.tracker, TellsTracker)
        config = getattr(kwargs.get("model"), "config", None)
        values = {**(config.to_dict() if config else {}), **args.to_dict()}
        self.tracker.told = {n: repr(v) for n, v in values.items() if self.tells(n, v)}
        super().on_train_begin(args, state, control, **kwargs)

    def tells(self, name: str, value: Any) -> bool:
        raise NotImplementedError


def is_named_as_a_secret(name: str) -> bool:
    return name.lower().endswith(("_token", "key", "password", "secret"))


@mutant("RED-001")
class TellsSecrets(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            secret = isinstance(value, str) and is_named_as_a_secret(name)
            return secret and name not in ("download_token", "pad_token")


@mutant("RED-002")
class TellsAddresses(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            return isinstance(value, str) and "://" in value


@mutant("RED-003")
class TellsNestedSecrets(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            return isinstance(value, dict)


@mutant("RED-004")
class TellsSecretsOfTheConfiguration(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            return name == "download_token"


@mutant("RED-005")
class TellsTextAsItIs(Reference):
    class tracker(FileTracker):
        def __init__(self, store: str) -> None:
            super().__init__(store)
            self.heard: list[list[Any]] = []

        def close(self, status: Status | None) -> None:
            self.run["text"] += self.heard
            super().close(status)

    class callback(ReferenceCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, *more: Any, **kwargs: Any
        ) -> None:
            assert isinstance(self.tracker, TellsTextAsItIs.tracker)
            text = {name: value for name, value in logs.items() if isinstance(value, str)}
            self.tracker.heard += [[n, state.global_step, value] for n, value in text.items()]
            super().on_log(args, state, control, logs=logs, **kwargs)


@mutant("RED-006")
class TellsKeys(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            return "hf_" in str(value)


@mutant("RED-007")
class HidesWhatIsNamedToken(Reference):
    class tracker(FileTracker):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            super().log_parameters(
                {name: "[redacted]" if "token" in name else v for name, v in parameters.items()}
            )


@mutant("RED-008")
class TellsWhatObjectsShow(Reference):
    tracker = TellsTracker

    class callback(Tells):
        def tells(self, name: str, value: Any) -> bool:
            return "://" in repr(value) and not isinstance(value, (str, dict, list))
