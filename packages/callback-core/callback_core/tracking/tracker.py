"""`Tracker`: what an experiment tracker has to do, and all that a package for one has to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

Status = Literal["finished", "failed", "interrupted"]
"""How a training ended: by itself, by an error, or by a person or a signal."""


class Rejected(Exception):
    """Raised by a tracker that will never take what it was given, however often it is tried.

    Any other error means "not now": the same is tried again later.
    """


class Point(NamedTuple):
    """One value of a curve.

    Attributes:
        name: What the tracker shows it as.
        value: The value; `log_text` is given strings, all others numbers.
        step: The update step.
        time: When it was logged, in seconds since 1970. A point that is delivered twice has the
            same, by which a tracker can tell duplicates.
        epoch: Epochs done by then, if known.
    """

    name: str
    value: Any
    step: int
    time: float
    epoch: float | None = None


class Upload(NamedTuple):
    """A directory to keep with the run, which nobody changes or deletes meanwhile.

    Attributes:
        path: Where it lies now.
        name: What it is called, for example `checkpoint-500`.
        step: The update step at which it was written.
    """

    path: Path
    name: str
    step: int


@dataclass(frozen=True)
class Limits:
    """What a tracker can take. What goes beyond is cut or left out, and reported.

    Attributes:
        batch_size: Points that are delivered in one call, at most.
        parameter_length: Characters of a parameter's value as a string. Longer ones are cut.
        parameter_count: Parameters of a run. Those beyond are left out.
        key_characters: The inside of a regular expression's `[…]`: what names are made of. Others
            become underscores.
        key_length: Characters of a name. Longer ones are cut.
        non_finite: Whether NaN and infinities can be points. Otherwise they are left out.
        text: Whether strings can be logged at a step, by `log_text`. Otherwise they are left out.
        deliver_every: Seconds between two deliveries while the training goes on. What is logged
            meanwhile comes in one call.
        retry_after: Seconds before a call that failed is made again. They double with each failure
            in a row, to 30 at most; once the training has ended, they do not.
    """

    batch_size: int = 1000
    parameter_length: int | None = None
    parameter_count: int | None = None
    key_characters: str | None = None
    key_length: int | None = None
    non_finite: bool = True
    text: bool = False
    deliver_every: float = 0.2
    retry_after: float = 1.0


@dataclass(frozen=True)
class Opening:
    """What a tracker is told when it opens a run.

    Attributes:
        name: The run's name, as `args.run_name` gives it.
        output_dir: Where the training writes to.
        folder: A directory of the tracker's own in it.
        run_id: The run to go on with, as `open` returned it before; `None` for a new one.
        adopted: Whether that run is one that the user has opened.
        step: The update step that the training begins at or goes on from.
        time: When it began there, in seconds since 1970.
        rewind_to: For a tracker that `rewinds`: forget all points from this step on; they, and no
            others, are delivered anew.
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


class Tracker:
    """A run in an experiment tracker.

    The methods are called by one thread, or in a process of its own, never by the training, unless
    it says otherwise below. They may block and they may raise: neither costs the training anything.
    All names, values and parameters they are given are plain, redacted and within `limits`.

    Attributes:
        name: Its name in files and messages; that of its entry point.
        limits: What it can take.
        rewinds: Whether `open` can forget points from a step on. Where it cannot, points that it
            has already are not sent again.
    """

    name: ClassVar[str]
    limits: Limits = Limits()
    rewinds: ClassVar[bool] = False

    @property
    def disabled(self) -> bool:
        """Whether the user has switched it off, so that nothing is recorded for it."""
        return False

    @property
    def takes_checkpoints(self) -> bool:
        """Whether `log_files` is to be called for each checkpoint."""
        return False

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments that make an equal tracker elsewhere, as values that JSON knows.

        `None` where it is bound to this process. Secrets do not belong here: it goes to a file.
        """
        return {}

    def adopt(self) -> str | None:
        """Return the id of a run that the user has opened, which is used and not closed.

        Called in the training's thread when training begins; must be quick.
        """
        return None

    def begin(self) -> None:
        """Be told that a training begins, in its thread; `release` follows. Must be quick."""

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what `log_parameters` is given, before it is fitted into the limits."""
        return {**model_config, **arguments}

    def open(self, opening: Opening) -> str:
        """Open a new run, or the one with `opening.run_id` again, and return its id.

        Raises:
            NotConfigured: Nothing says where, or who one is. It is tried again as any error is, but
                the end of training does not wait for it.
        """
        raise NotImplementedError

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep the parameters of the run. Called again where a resumed training has others."""
        raise NotImplementedError

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add `points`, which are in the order of their logging, `limits.batch_size` at most."""
        raise NotImplementedError

    def log_text(self, points: Sequence[Point]) -> None:
        """Add points whose values are strings; called only where `limits.text` is set."""
        raise NotImplementedError

    def log_summary(self, points: Sequence[Point]) -> None:
        """Keep values that a training has one of; as points, where there is no better place."""
        self.log_metrics(points)

    def log_files(self, upload: Upload) -> None:
        """Keep a copy of a directory; called only where `takes_checkpoints` is true."""
        raise NotImplementedError

    def close(self, status: Status | None) -> None:
        """Hand over what is left, and end the run.

        Args:
            status: How the training ended. `None` for a run of the user's own, which stays open.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Undo what this run has left in the training's thread; called there when it has ended.

        The run is closed by then, or was given up. Must be quick.
        """
