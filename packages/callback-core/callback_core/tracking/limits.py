"""Flattens parameters, and cuts names and values to the limits of a tracker."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from callback_core.tracking.tracker import Limits


def fitting_name(name: str, limits: Limits) -> str:
    """Return `name` within `limits`."""
    if limits.key_characters is not None:
        name = re.sub(f"[^{limits.key_characters}]", "_", name)
    if not limits.key_is_path:
        return name[: limits.key_length]
    return _with_real_parts(_with_real_parts(name)[: limits.key_length].rstrip("/"))


def _with_real_parts(name: str) -> str:
    """Return `name` with underscores in place of the parts that are empty, `.` or `..`."""
    return re.sub(r"(?<![^/])\.{0,2}(?![^/])", lambda part: "_" * len(part[0]) or "_", name)


def distinct_name(name: str, limits: Limits, taken: Container[str]) -> str:
    """Return `name` within `limits`, with `_2`, `_3` and so on if that is among `taken`."""
    fitting = sent_as = fitting_name(name, limits)
    number = 1
    while sent_as in taken or sent_as in limits.reserved:
        number += 1
        suffix = f"_{number}"
        end = None if limits.key_length is None else limits.key_length - len(suffix)
        sent_as = fitting[:end] + suffix
    return sent_as


def shortened(text: str, length: int | None) -> str:
    """Return `text`, cut to `length` characters if it is longer."""
    return text if length is None or len(text) <= length else text[: length - 1] + "…"


def fitting_parameters(
    parameters: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `parameters` within `limits`, and what was cut or left out, by name.

    Of names that become the same, one that need not change keeps its name.
    """
    cut: dict[str, str] = {}
    fitting: dict[str, Any] = {}
    taken = {name for name in parameters if distinct_name(name, limits, ()) == name}
    for number, (name, value) in enumerate(parameters.items()):
        if limits.parameter_count is not None and number >= limits.parameter_count:
            cut[name] = f"left out: more than {limits.parameter_count} parameters"
            continue
        short = shortened(str(value), limits.parameter_length)
        if short != str(value):
            value = short
            cut[name] = f"cut to {limits.parameter_length} characters"
        sent_as = name if name in taken else distinct_name(name, limits, taken)
        taken.add(sent_as)
        if why := change_of_name(name, sent_as, limits):
            cut[name] = why
        fitting[sent_as] = value
    return fitting, cut


def change_of_name(name: str, sent_as: str, limits: Limits) -> str | None:
    """Return what to report about a name sent as `sent_as`; `None` if it only fits better."""
    if sent_as != fitting_name(name, limits):
        return f"is sent as {sent_as}, because another value has its name"
    return f"its name is cut to {sent_as}" if len(sent_as) < len(name) else None


def flattened(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return `values` with nested mappings as single entries, their keys joined by `separator`.

    Keys that become the same are kept apart, as `Limits` says.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        parts = {str(key): value}
        if isinstance(value, Mapping) and value:
            inner = flattened(value, separator)
            parts = {f"{key}{separator}{name}": part for name, part in inner.items()}
        for name, part in parts.items():
            flat[distinct_name(name, Limits(), flat)] = part
    return flat
