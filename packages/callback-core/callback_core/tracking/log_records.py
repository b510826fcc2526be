"""`LogRecords`: makes the records of logs that a journal keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from callback_core.tracking.limits import distinct_name
from callback_core.tracking.member import Member
from callback_core.tracking.objects import Objects
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.scrubbing import REDACTED, scrubbed
from callback_core.tracking.tracker import Limits
from callback_core.tracking.values import plain


class LogRecords:
    """Makes the records of a session's logs.

    Args:
        members: The trackers that get the records, by name. More of them may join.
        redaction: Removes secrets.
        objects: Keeps the values that only this process has.
        epoch_step: The step whose epoch is recorded already, if there is one.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        redaction: Redaction,
        objects: Objects,
        epoch_step: int | None,
    ) -> None:
        self._members, self._redaction, self._objects = members, redaction, objects
        self._epoch_step = epoch_step
        self._names: dict[Any, str] = {}  # of logs -> without what looks like a secret

    def of(
        self, logs: Mapping[str, Any], step: int, epoch: float | None, *, summary: bool = False
    ) -> dict[str, Any]:
        """Return the record of `logs`, without secrets.

        Args:
            logs: What was logged, by name.
            step: The update step.
            epoch: The epochs that are done by then, if known.
            summary: Whether a training logs each value only once, so that it needs no curve.
        """
        values: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        objects: dict[str, Any] = {}
        for name, value, is_listed in self._entries(logs):
            if name == "epoch":  # every log has it, and a step may have several logs
                if step == self._epoch_step:
                    continue
                self._epoch_step = step
            if name not in self._names:
                self._name_of(name, left_out)
            name, made_plain = self._names[name], plain(value)
            if is_listed:
                values[name] = REDACTED
            elif name in values:
                left_out[name] = "one log has the name twice"
            elif made_plain is None:
                large = isinstance(value, int)
                what = "too large" if large else f"a {type(value).__name__}, not a number"
                if takers := [who for who, one in self._members.items() if one.takes(value)]:
                    number = self._objects.keep(value, takers)
                    objects[name] = {"number": number, "for": takers, "what": what}
                else:
                    left_out[name] = what
            elif isinstance(made_plain, str):
                values[name] = self._redaction.of(made_plain, name)
            else:
                values[name] = made_plain
        record = {"kind": "logs", "step": step, "time": time.time(), "epoch": epoch, "logs": values}
        if left_out:
            record["left_out"] = left_out
        if objects:
            record["objects"] = objects
        if summary:
            record["summary"] = True
        return record

    def _entries(
        self, logs: Mapping[str, Any], outer: str = "", listed: bool = False
    ) -> Iterator[tuple[Any, Any, bool]]:
        """Yield name, value and whether a list of secrets names it, also for entries of dicts.

        The entry `b` of a dict that is logged as `a` has the name `a/b`.
        """
        for key, value in logs.items():
            if isinstance(value, Mapping) and value:
                is_listed = listed or self._redaction.lists(str(key))
                yield from self._entries(value, f"{outer}{key}/", is_listed)
            elif outer:
                yield f"{outer}{key}", value, listed or self._redaction.lists(str(key))
            else:
                yield key, value, False

    def _name_of(self, name: Any, left_out: dict[str, str]) -> None:
        """Choose the name under which the journal has what is logged as `name`.

        Two names may be the same as text or without their secrets: `1` and `"1"`.
        """
        text = scrubbed(str(name))
        self._names[name] = distinct_name(text, Limits(), self._names.values())
        if self._names[name] != text:
            left_out[text] = f"another value has its name, so it is recorded as {self._names[name]}"
