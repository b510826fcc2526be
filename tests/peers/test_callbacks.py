"""transformers' callbacks find what they read in our arguments, state and control."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from small_training import build

from callback_core import COMMON_KEYWORDS, EVENTS

MODULES = (
    "transformers.integrations.integration_utils",
    "transformers.trainer_callback",
    "transformers.trainer_jit_checkpoint",
    "transformers.utils.notebook",
)


def callbacks() -> Iterator[type]:
    """Yield each class of a callback that transformers has."""
    for name in MODULES:
        for value in vars(importlib.import_module(name)).values():
            if (
                inspect.isclass(value)
                and issubclass(value, transformers.TrainerCallback)
                and value.__module__ == name
                and value is not transformers.trainer_callback.CallbackHandler
            ):
                yield value


CALLBACKS = list(callbacks())
OF_SERVICES = (
    *("WandbCallback", "TrackioCallback", "CometCallback", "AzureMLCallback", "MLflowCallback"),
    *("DagsHubCallback", "NeptuneCallback", "CodeCarbonCallback", "ClearMLCallback"),
    *("FlyteCallback", "DVCLiveCallback", "SwanLabCallback", "KubeflowCallback"),
)
"""Those that cannot be made here, without their SDK or server. What they read is compared."""

RUN_HERE = [callback for callback in CALLBACKS if callback.__name__ not in OF_SERVICES]

every_callback = pytest.mark.parametrize("callback", CALLBACKS, ids=lambda cls: cls.__name__)


def read(callback: type) -> dict[str, set[str]]:
    """Return the attributes that the code of a callback reads from `args`, `state` and `control`.

    Those that it asks for with `getattr` and a default, or `hasattr`, are not among them.
    """
    names: dict[str, set[str]] = {"args": set(), "state": set(), "control": set()}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(callback)))):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in names
        ):
            names[node.value.id].add(node.attr)
    return names


def needed(method: Any) -> set[str]:
    """Return what is passed by keyword to the method of an event, and has no default."""
    found = inspect.signature(method).parameters if method is not None else {}
    return {
        name
        for name, one in list(found.items())[4:]
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }


def test_the_callbacks_are_found() -> None:
    assert len(CALLBACKS) == len(OF_SERVICES) + len(RUN_HERE) >= 20
    assert "project" in read(transformers.integrations.TrackioCallback)["args"]


@every_callback
def test_what_a_callback_reads_is_there(callback: type, tmp_path: Path) -> None:
    trainer = build("ours", tmp_path)
    parts = {"args": trainer.args, "state": trainer.state, "control": trainer.control}
    missing = {
        f"{part}.{name}"
        for part, names in read(callback).items()
        for name in names
        if not hasattr(parts[part], name)
    }
    assert missing == set()


@pytest.mark.parametrize("callback", RUN_HERE, ids=lambda cls: cls.__name__)
def test_a_callback_trains(callback: Any, tmp_path: Path) -> None:
    often: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    best: dict[str, Any] = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = build("ours", tmp_path, callback(), **often, **best)
    trainer.train()
    assert trainer.state.global_step == 10


@every_callback
def test_what_a_callback_needs_is_passed_to_it(callback: type) -> None:
    missing = {
        f"{event.name}: {name}"
        for event in EVENTS.values()
        for name in needed(getattr(callback, event.name, None))
        if name not in COMMON_KEYWORDS and name not in event.passes
    }
    assert missing == set()
