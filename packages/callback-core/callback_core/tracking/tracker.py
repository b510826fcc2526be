"""`Tracker`: the class that a tracker package implements, and the values that it receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from callback_core._json import write_atomically

Status = Literal["finished", "failed", "interrupted"]
"""How a training ended: by itself, with an error, or by a person or a signal."""


class Rejected(Exception):
    """Raised by a tracker that will never take what it was given, or never open the run.

    Any other error means "not now": the same call is made again later.
    """


class RunNotFound(Exception):
    """Raised by a tracker whose store says that the run to continue is not there any longer.

    Everything is then delivered to a new run. For a run that a setting names, raise `Rejected`.
    """


class Point(NamedTuple):
    """One value of a curve.

    Attributes:
        name: The name in the tracker.
        value: A string in `log_text`, a number everywhere else.
        step: The update step.
        time: When it was logged, in seconds since 1970. A point that is delivered twice has the
            same time, so that a tracker can recognize duplicates.
        epoch: The epochs done by then, if known.
    """

    name: str
    value: Any
    step: int
    time: float
    epoch: float | None = None


class Upload(NamedTuple):
    """A directory to keep with the run. Nobody changes or deletes it during the call.

    Attributes:
        path: The directory.
        name: The name to keep it under, for example `checkpoint-500`.
        step: The update step at which it was written.
    """

    path: Path
    name: str
    step: int


@dataclass(frozen=True)
class Limits:
    """What a tracker can take. More than that is cut or left out, and reported.

    Names that become the same are kept apart: the second one ends in `_2`, which is reported too.

    Attributes:
        batch_size: The most points that one call delivers.
        parameter_length: The most characters of a parameter's value as a string. Longer values are
            cut.
        parameter_count: The most parameters of a run. Further ones are left out.
        key_characters: The characters of names, as the inside of a regular expression's `[…]`.
            Others become underscores.
        key_length: The most characters of a name. Longer names are cut.
        key_is_path: Whether `/` separates the parts of a name, so that the tracker takes no part
            that is empty, `.` or `..`. Such parts become underscores.
        reserved: Names that the tracker uses for something else.
        non_finite: Whether NaN and infinities can be points. Otherwise they are left out.
        text: Whether strings can be logged at a step, by `log_text`. Otherwise they are left out.
        text_length: The most characters of such a string. Longer ones are cut.
        deliver_every: Seconds between two deliveries during the training. One call delivers what
            was logged meanwhile.
        retry_after: Seconds before a call that failed is made again. They double with each failure
            in a row, up to 30 (5 with `delivery="process"`). After the training has ended, they no
            longer double.
    """

    batch_size: int = 1000
    parameter_length: int | None = None
    parameter_count: int | None = None
    key_characters: str | None = None
    key_length: int | None = None
    key_is_path: bool = False
    reserved: Sequence[str] = ()
    non_finite: bool = True
    text: bool = False
    text_length: int | None = None
    deliver_every: float = 0.2
    retry_after: float = 1.0


@dataclass(frozen=True)
class Opening:
    """Which run a tracker opens, and for which training.

    Attributes:
        name: The name of the run, from `args.run_name`.
        output_dir: The directory to which the training writes.
        folder: The tracker's own directory in it, which need not exist.
        run_id: The run to continue, as `open` returned it before; `None` for a new one.
        adopted: Whether the user opened that run.
        step: The update step at which the training begins or resumes.
        time: When it began there, in seconds since 1970.
        rewind_to: For a tracker that `rewinds`: forget all points from this step on. They, and no
            others, are delivered again.
        trial_name: The trial of a hyperparameter search.
        trial_parameters: Its hyperparameters.
    """

    name: str | None
    output_dir: Path
    folder: Path
    run_id: str | None = None
    adopted: bool = False
    step: int = 0
    time: float = 0.0
    rewind_to: int | None = None
    trial_name: str | None = None
    trial_parameters: Mapping[str, Any] | None = None

    @property
    def training(self) -> str:
        """The id of the training in this tracker: the same whenever its run is opened."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    def recall(self, name: str) -> str | None:
        """Return what `note` kept as `name` when the run was opened before; `None` if nothing."""
        try:
            return (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return None

    def note(self, name: str, text: str) -> str:
        """Keep `text` as `name` for the next time that the run is opened, and return it.

        Note the id of a new run before you open it. If the process is killed in between, the next
        one recalls the id, and does not open a second run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, text)
        return text


class TrainingSide:
    """The part of a tracker that the training's own thread calls. All of it must be quick.

    Attributes:
        name: The tracker's name in files and messages. It is the same as that of its entry point.
        requires: The modules of the SDK, each with the argument of `pip install` that installs it.
            The callback that the user makes checks that they are installed.
        sdk: The module whose own functions reach the open run from the training's thread, such as
            `wandb.log`; `None` if there are none. If the program has imported it, the first step
            waits for the run, for at most `longest_wait`.
    """

    name: ClassVar[str]
    requires: Mapping[str, str] = MappingProxyType({})
    sdk: ClassVar[str | None] = None

    @property
    def longest_wait(self) -> float:
        """The most seconds that the first step waits for the run."""
        return 4.0

    @property
    def disabled(self) -> bool:
        """Whether the user switched the tracker off, so that nothing is recorded for it."""
        return False

    @property
    def takes_checkpoints(self) -> bool:
        """Whether each checkpoint is delivered to `log_files`."""
        return False

    @property
    def in_order(self) -> bool:
        """Whether the training's thread itself delivers each log, while the run is open.

        This is for a run to which the program may log too, and which keeps the order in which both
        log. The methods that log must then be quick.
        """
        return False

    def takes(self, value: Any) -> bool:
        """Return whether `log_objects` takes `value`, which is of a type of the tracker's SDK."""
        return False

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments that make an equal tracker in another process, as JSON values.

        Return `None` if only this process can have the tracker. Leave secrets out: the arguments
        are written to a file.
        """
        return {}

    def adopt(self) -> str | None:
        """Return the id of a run that the user opened, if any. It is used, and stays open."""
        return None

    def begin(self) -> None:
        """Prepare for a training that begins. `release` follows."""

    def release(self) -> None:
        """Undo what the run left in this process. The run is closed by then, or abandoned."""


class Tracker(TrainingSide):
    """A run in an experiment tracker.

    A delivery calls the methods of this class, all from one thread: by default, a thread beside the
    training. The training's thread calls only those of `TrainingSide`, and with `in_order` those
    that log. The methods may block and may raise. Neither holds up the training, except with
    `delivery="inline"`. All names, values and parameters that they get are plain, redacted and
    within `limits`.

    Attributes:
        limits: What the tracker can take.
        rewinds: Whether `open` can forget points from a step on. If it cannot, points that the
            tracker already has are not sent again.
        named_by: The names of the settings that name a run to continue.
        run_url: The address of the run's page. `open` sets it, if there is one.
        ended_at: When the training ended, in seconds since 1970; `None` if that is unknown. It is
            set before `close` is called, which may be much later.
    """

    limits: Limits = Limits()
    rewinds: ClassVar[bool] = False
    named_by: ClassVar[tuple[str, ...]] = ()
    run_url: str | None = None
    ended_at: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Make each copy a new tracker with the same settings, so that this one keeps its run."""
        settings = self.settings()
        return (AbsentTracker, (self.name,)) if settings is None else (_new, (type(self), settings))

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the parameters for `log_parameters`, before they are cut to the limits."""
        return {**model_config, **arguments}

    @property
    def keeps_open(self) -> bool:
        """Whether the open run stays open between evaluations after the training.

        It is closed when the next training begins, or at the interpreter's exit. This is for a
        tracker for which each opening leaves another file or folder behind.
        """
        return False

    @property
    def opens_one_run(self) -> bool:
        """Whether the SDK has at most one open run in a process, and closes it to open another.

        A training then begins only when what is logged after an earlier one has been delivered.
        """
        return False

    @property
    def prints_url(self) -> bool:
        """Whether the SDK itself prints `run_url`."""
        return False

    def open(self, opening: Opening) -> str:
        """Open a new run, or the one with `opening.run_id` again, and return its id.

        Raises:
            NotConfigured: No setting says where to send the run, or with which account. The call is
                made again, as after any error, but the end of training does not wait for it.
            RunNotFound: The store says that the run to continue is not there.
            Rejected: The store refuses, and always will: it denies access, or a setting names a
                run that is not there. The call is not made again.
        """
        raise NotImplementedError

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep the parameters of the run. A resumed training with others calls this again."""
        raise NotImplementedError

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add `points`: at most `limits.batch_size`, in the order in which they were logged."""
        raise NotImplementedError

    def log_text(self, points: Sequence[Point]) -> None:
        """Add points whose values are strings. Only a tracker with `limits.text` gets them."""
        raise NotImplementedError

    def log_objects(self, points: Sequence[Point]) -> None:
        """Add points whose values the tracker `takes`, such as pictures. No replay has them."""
        raise NotImplementedError

    def log_summary(self, points: Sequence[Point]) -> None:
        """Keep values that a training logs only once. By default, they are logged as metrics."""
        self.log_metrics(points)

    def log_files(self, upload: Upload) -> None:
        """Keep a copy of a directory."""
        raise NotImplementedError

    def close(self, status: Status | None) -> None:
        """Send what is left, and end the run.

        Args:
            status: How the training ended; `None` for a run of the user's, which stays open.
        """
        raise NotImplementedError


def check_methods(tracker: Tracker) -> None:
    """Check that a tracker has the methods that each tracker needs.

    Raises:
        TypeError: It lacks some.
    """
    needed = ("open", "log_parameters", "log_metrics", "close")
    missing = [name for name in needed if getattr(type(tracker), name) is getattr(Tracker, name)]
    if missing:
        raise TypeError(
            f"{type(tracker).__name__} does not define {', '.join(missing)}. Each tracker needs "
            f"{', '.join(needed)}. One that keeps no parameters does nothing in log_parameters."
        )


class AbsentTracker(Tracker):
    """Stands in a copy for a tracker that only the original can have. Nothing is recorded for it.

    Args:
        name: The name of the tracker.
    """

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    @property
    def disabled(self) -> bool:
        """True."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"name": self.name}


def _new(kind: type[Tracker], settings: Mapping[str, Any]) -> Tracker:
    return kind(**settings)
