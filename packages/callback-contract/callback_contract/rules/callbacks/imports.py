"""Imports: importing a callback's module is cheap and has no side effects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._process import captured_output, log_messages
from callback_contract._python import missing
from callback_contract._registry import rule
from callback_contract._violation import ContractViolation, DoesNotApply, require

_IMPORT: Final = """
import gc, json, logging, os, random, signal, socket, sys, threading, warnings

def read():
    return {
        "its environment variables": dict(os.environ),
        "its signal handlers": [repr(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
        "its threads": sorted(thread.name for thread in threading.enumerate()),
        "sys.excepthook": repr(sys.excepthook),
        "the working directory": os.getcwd(),
        "the root logger": repr((logging.root.handlers, logging.root.level)),
        "logging.disable": logging.root.manager.disable,
        "the recursion limit": sys.getrecursionlimit(),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "the garbage collector": [gc.isenabled(), gc.get_threshold()],
        "Python's random generator": repr(random.getstate()),
        "the filters that ignore all warnings": repr(
            [f for f in warnings.filters if f[0] == "ignore" and f[1] is None and f[2] is Warning]
        ),
    }

module, sdk, answers = sys.argv[1:]
before = read()
try:
    __import__(module)
except ModuleNotFoundError as error:
    answer = {"missing": error.name}
else:
    after = read()
    answer = {
        "changed": [part for part in before if before[part] != after[part]],
        "has_sdk": sdk in sys.modules,
    }
with open(answers, "w") as file:
    json.dump(answer, file)
"""


@rule(
    "IMP-001",
    why="Importing all installed trackers delayed programs by 6 and 9 seconds "
    "(Lightning-AI/pytorch-lightning#19261, huggingface/transformers#26308).",
    fix="Import the SDK in the method that first needs it.",
    needs=("sdk",),
)
def imports_no_sdk(case: Case) -> None:
    """Importing the callback's module in a fresh interpreter does not import its SDK."""
    answer = _imported(case)
    require(not answer.get("has_sdk"), f"importing its module imported {case.subject.sdk}")


@rule(
    "IMP-002",
    why="DagsHub's callback raises an AttributeError before it reaches the check that names the "
    "missing package (transformers 4.34.0).",
    fix="Catch the ImportError of the SDK, and raise or log the `pip install` command.",
    needs=("sdk",),
)
def says_what_to_install(case: Case) -> None:
    """Without its SDK, the callback raises or logs the `pip install` command that installs it."""
    sdk = case.subject.sdk
    require(sdk, "it claims the capability `sdk`, but its test does not set the attribute `sdk`")
    messages = []
    with missing(str(sdk)), log_messages() as logged, captured_output():
        try:
            training = case.training()
            try:
                training.live()
            finally:
                with suppress(ContractViolation):
                    training.end()
        except Exception as error:
            messages.append(str(error))
    messages += logged
    if not messages and _imported(case).get("has_sdk"):
        raise DoesNotApply("its module imports the SDK, which IMP-001 reports")
    clear = any("pip install" in message for message in messages)
    require(clear, f"without {sdk}, its messages are {' | '.join(messages) or 'none'!r}")


@rule(
    "IMP-003",
    why="Importing transformers 5.x prints a notice if WANDB_MODE is offline, even in programs "
    "that never use wandb.",
    fix="Move the side effects of the module into on_train_begin.",
)
def importing_it_has_no_side_effects(case: Case) -> None:
    """Importing the callback's module in a fresh interpreter has no side effects.

    It prints nothing, starts no thread, and does not change process-wide state such as the
    environment, logging, and the handlers of signals and errors.
    """
    answer = _imported(case)
    require(not answer.get("printed"), f"importing its module printed {answer.get('printed')!r}")
    changed = answer.get("changed", ())
    require(not changed, f"importing its module changed {', '.join(changed)}")


def _imported(case: Case) -> dict[str, Any]:
    """Return the effects of importing the callback's module."""
    module = case.subject.module or type(case.make()).__module__
    if module == "__main__":
        return {}  # a program or a notebook defines the callback, so no module can be imported
    answer = _import(module, case.subject.sdk or "", tuple(map(os.path.abspath, sys.path)))
    missing = answer.get("missing")
    require(missing is None, f"{module} cannot be imported: {missing} is missing; set `module`")
    return answer


@lru_cache
def _import(module: str, sdk: str, path: Sequence[str]) -> dict[str, Any]:
    """Import `module` in a new interpreter, and return the effects."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder, "answers.json")
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, module, sdk, str(answers)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        require(done.returncode == 0, f"importing {module} failed: {done.stderr}")
        answer: dict[str, Any] = json.loads(answers.read_text(encoding="utf-8"))
    return answer | {"printed": done.stdout}
