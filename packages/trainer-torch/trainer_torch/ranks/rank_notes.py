"""`Progress` of a rank, its `RankNote` in the store, and the text that names the late ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from trainer_torch.messages import listed

_MOST_NAMED: Final = 8
"""If a text names more ranks than this, it has only their numbers."""


class Progress:
    """The progress that the training's thread notes, by assignments only.

    Attributes:
        turns: How often it has entered and left collective operations.
        events: The number of events since it last entered or left one.
        event: The last event.
        step: The update step at that event.
    """

    def __init__(self) -> None:
        self.turns = self.events = self.step = 0
        self.event = ""

    def turn(self) -> None:
        """Note that a collective operation begins or ends."""
        self.events = 0
        self.turns += 1

    def note(self, event: str, step: int) -> None:
        """Note an event."""
        self.event, self.step = event, step
        self.events += 1


@dataclass(frozen=True)
class RankNote:
    """Where a rank was when it wrote this.

    Attributes:
        rank: The number of the rank.
        host: The name of its machine.
        pid: The number of its process.
        turns: How often it has entered and left collective operations. This is odd while the rank
            waits for the others.
        events: The number of events since it last entered or left one.
        step: The update step.
        event: The last event.
        code: The line that it executes, if it has not moved on for a while.
        still: The seconds for which it has not moved on.
        has_left: Whether it is outside `train`, `evaluate` and `predict`.
        failure: The error that ends its training, if any.
        answers: Whether it has answered an alarm.
    """

    rank: int
    host: str
    pid: int
    turns: int
    events: int
    step: int
    event: str
    code: str
    still: float
    has_left: bool
    failure: str | None
    answers: bool

    @property
    def place(self) -> tuple[int, int]:
        """The position in the sequence of operations and events, which is the same in all ranks."""
        return self.turns, self.events

    @property
    def waits(self) -> bool:
        """Whether the rank waits for the others."""
        return self.turns % 2 == 1

    def to_json(self) -> str:
        """Return a text for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> RankNote:
        """Return the note that `to_json` has written."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        doing = "waits for the others" if self.waits else f"after {self.event or 'the start'}"
        if self.has_left:
            doing = "has left the Trainer"
        code = f", in {self.code}" if self.code and not self.has_left else ""
        return (
            f"rank {self.rank} ({self.host}, process {self.pid}): step {self.step}, {doing}{code}"
        )


def explanation(notes: Mapping[int, RankNote], size: int, limit: float | None) -> str:
    """Return a text that says which ranks are lost or late, or have failed.

    Args:
        notes: The last note of each rank that has written one.
        size: The number of ranks.
        limit: The limit in seconds, if a rank has waited longer than that.
    """
    answering = [note for note in notes.values() if _answers(note)]
    lost = [notes.get(rank, rank) for rank in range(size) if not _answers(notes.get(rank))]
    parts = []
    if limit is not None:
        parts.append(f"The training has not moved on for {limit:g} seconds, its ddp_timeout.")
    if lost:
        parts.append(f"These do not answer: {_described(lost)}.")
    elif failed := [note for note in answering if note.failure]:
        errors = [f"rank {note.rank} ({note.host}): {note.failure}" for note in failed]
        parts.append(f"{'Errors' if len(errors) > 1 else 'An error'} ended {listed(errors)}.")
    if limit is not None and (late := late_ranks(answering)):
        first = max(answering, key=lambda note: note.place)
        parts.append(f"Late: {_described(late)}. Of the others, the furthest is {first}.")
    elif limit is not None and answering:
        parts.append(f"These are at the same place: {_described(answering)}.")
    return " ".join(parts)


def late_ranks(notes: Sequence[RankNote]) -> list[RankNote]:
    """Return the notes of the ranks that are behind; none if all are at the same place."""
    places = {note.place for note in notes}
    return [note for note in notes if note.place == min(places)] if len(places) > 1 else []


def _answers(note: RankNote | None) -> bool:
    return note is not None and (note.answers or note.has_left)


def _described(ranks: Sequence[RankNote | int]) -> str:
    """Return a description of each rank, or only their numbers if there are many."""
    if len(ranks) > _MOST_NAMED:
        numbers = [one if isinstance(one, int) else one.rank for one in ranks]
        return f"{len(numbers)} ranks: {listed(map(str, numbers))}"
    return "; ".join(f"rank {one}" if isinstance(one, int) else str(one) for one in ranks)
