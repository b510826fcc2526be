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


def test_the_callbacks_are_found() -> None:
    assert len(CALLBACKS) >= 20
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


@every_callback
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # their __del__
def test_a_callback_trains_as_far_as_its_own_sdk_lets_it(
    callback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        made = callback()
    except (ImportError, RuntimeError, ValueError) as error:
        pytest.skip(f"needs its SDK: {error}")
    often: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    best: dict[str, Any] = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    # CodeCarbon's needs a directory that exists. transformers' Trainer makes it on construction.
    trainer = build("ours", tmp_path, made, **often, **best)
    trainer.train()
    assert trainer.state.global_step == 10
