"""The reference tracker as others are: how it is delivered to, and what it can take."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_core.tracking import Limits


class InlineCallback(ReferenceCallback):
    """Is delivered to by the training's own thread."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, delivery="inline", **settings)


class Inline(Reference):
    """The reference, delivered to by the training's own thread."""

    __test__ = False
    callback = InlineCallback


class ProcessCallback(ReferenceCallback):
    """Is delivered to by a process of its own."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, delivery="process", **settings)


class InAProcess(Reference):
    """The reference, delivered to by a process of its own."""

    __test__ = False
    callback = ProcessCallback
    flush_limit = 0.5


class PlainTracker(FileTracker):
    """Forgets nothing, and takes neither text nor what is not finite, a few points at a time."""

    name: ClassVar[str] = "plain"
    limits = Limits(
        batch_size=3,
        parameter_length=120,
        parameter_count=60,
        key_characters=r"\w/",
        key_length=40,
        non_finite=False,
    )
    rewinds: ClassVar[bool] = False
    takes_checkpoints = False


class Plain(Reference):
    """A tracker that can do little."""

    __test__ = False
    tracker = PlainTracker
    capabilities = Reference.capabilities - {"rewinds", "non_finite", "text", "files"}

    def stored_name(self, name: str) -> str:
        return super().stored_name(name)[:40]

    def make(self, output_dir: Path) -> Any:
        return super().make(output_dir)
