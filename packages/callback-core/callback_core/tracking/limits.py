"""Flattens parameters, and cuts names and values to the limits of a tracker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from callback_core.tracking.tracker import Limits


def fitting_name(name: str, limits: Limits) -> str:
    """Return `name` within `limits`."""
    if limits.key_characters is not None:
        name = re.sub(f"[^{limits.key_characters}]", "_", name)
    return name[: limits.key_length]


def fitting_parameters(
    parameters: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `parameters` within `limits`, and what was cut or left out, by name."""
    cut: dict[str, str] = {}
    fitting: dict[str, Any] = {}
    for number, (name, value) in enumerate(parameters.items()):
        if limits.parameter_count is not None and number >= limits.parameter_count:
            cut[name] = f"left out: more than {limits.parameter_count} parameters"
            continue
        if limits.parameter_length is not None and len(str(value)) > limits.parameter_length:
            value = str(value)[: limits.parameter_length - 1] + "…"
            cut[name] = f"cut to {limits.parameter_length} characters"
        sent_as = fitting_name(name, limits)
        if sent_as in fitting:
            cut[name] = f"left out: has the name of another: {sent_as}"
            continue
        if len(sent_as) < len(name):
            cut[name] = f"its name is cut to {sent_as}"
        fitting[sent_as] = value
    return fitting, cut


def flattened(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return `values` with nested mappings as single entries, their keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            inner = flattened(value, separator)
            flat.update({f"{key}{separator}{name}": part for name, part in inner.items()})
        else:
            flat[str(key)] = value
    return flat
