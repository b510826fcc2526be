"""`Progress`: how far a tracker has come with a journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from callback_core.tracking.tracker import Status


@dataclass
class Progress:
    """How far a tracker has come: what is kept in its file.

    Attributes:
        run_id: The tracker's run; `adopted` where it is the user's.
        offset: Bytes of the journal that are delivered.
        passed_over: The parts of them that were not, since a resumed training has replaced them.
        parameters: The parameters that the tracker was given last.
        left_out: What was cut or left out, and why.
        status: How the run was closed in the tracker; `None` while it is open.
    """

    run_id: str | None = None
    adopted: bool = False
    offset: int = 0
    passed_over: list[list[int]] = field(default_factory=list)
    parameters: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    status: Status | None = None
