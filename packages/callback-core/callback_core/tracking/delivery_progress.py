"""`DeliveryProgress`: how much of a journal one tracker has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from callback_core.tracking.tracker import Status


@dataclass
class DeliveryProgress:
    """How much of a journal one tracker has. The run's folder keeps it in the tracker's file.

    Attributes:
        run_id: The run in the tracker.
        run_url: The address of its page, if it has one.
        adopted: Whether the user opened that run.
        offset: How many bytes of the journal are delivered.
        passed_over: The parts of them that were skipped because a resumed training replaced them.
        parameters: The parameters that the tracker got last.
        left_out: The names of what was cut or left out, each with the reason.
        status: How the run was closed in the tracker; `None` while it is open.
        runs_gone: How many runs the tracker has lost, so that new ones took their place.
        failure: Why the process that delivered ended too early.
        refused: Whether it ended because the tracker will never open its run.
    """

    run_id: str | None = None
    run_url: str | None = None
    adopted: bool = False
    offset: int = 0
    passed_over: list[list[int]] = field(default_factory=list)
    parameters: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    status: Status | None = None
    runs_gone: int = 0
    failure: str | None = None
    refused: bool = False
