"""Imports: a callback costs what it needs when it is used, and nothing before."""

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
from callback_contract._process import log_messages, silence
from callback_contract._python import missing
from callback_contract._registry import rule
from callback_contract._violation import ContractViolation, DoesNotApply, require

_IMPORT: Final = """
import gc, json, logging, os, random, signal, socket, sys, threading, warnings

def look():
    return {
        "its environment variables": dict(os.environ),
        "its signal handlers": [repr(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
        "its threads": sorted(thread.name for thread in threading.enumerate()),
        "sys.excepthook": repr(sys.excepthook),
        "the working directory": os.getcwd(),
        "the root logger": repr((logging.root.handlers, logging.root.level)),
        "logging.disable": logging.root.manager.disable,
        "the recursion limit": sys.getrecursionlimit(),
        "the default time-out of sockets": socket.getdefaulttimeout(),
        "the garbage collector": [gc.isenabled(), gc.get_threshold()],
        "Python's random generator": repr(random.getstate()),
        "what is ignored of all warnings": repr(
            [f for f in warnings.filters if f[0] == "ignore" and f[1] is None and f[2] is Warning]
        ),
    }

module, sdk, answers = sys.argv[1:]
before = look()
try:
    __import__(module)
except ModuleNotFoundError as error:
    answer = {"missing": error.name}
else:
    after = look()
    answer = {
        "changed": [what for what in before if before[what] != after[what]],
        "has_sdk": sdk in sys.modules,
    }
with open(answers, "w") as file:
    json.dump(answer, file)
"""


@rule(
    "IMP-001",
    why="Importing every tracker that is installed took 6 and 9 seconds before anything began "
    "(Lightning-AI/pytorch-lightning#19261, huggingface/transformers#26308).",
    mend="Import the SDK in the method that needs it first.",
    needs=("sdk",),
)
def imports_no_sdk(case: Case) -> None:
    """Importing the callback's module in a fresh interpreter does not import its SDK."""
    answer = _imported(case)
    require(not answer.get("has_sdk"), f"importing it imported {case.subject.sdk}")


@rule(
    "IMP-002",
    why="DagsHub's callback fails with an AttributeError before it comes to the check that "
    "would name what is missing (transformers 4.34.0).",
    mend="Catch ImportError where the SDK is imported; raise or log what to `pip install`.",
    needs=("sdk",),
)
def says_what_to_install(case: Case) -> None:
    """Without its SDK, what the callback raises or logs has the `pip install` that mends it."""
    sdk = case.subject.sdk
    require(sdk, "it claims an `sdk` and does not say which")
    said = []
    with missing(str(sdk)), log_messages() as logged, silence():
        try:
            training = case.training()
            try:
                training.live()
            finally:
                with suppress(ContractViolation):
                    training.end()
        except Exception as error:
            said.append(str(error))
    said += logged
    if not said and _imported(case).get("has_sdk"):
        raise DoesNotApply("its module has its SDK already, which is what IMP-001 is about")
    clear = any("pip install" in message for message in said)
    require(clear, f"without {sdk} it says {' | '.join(said) or 'nothing'!r}")


@rule(
    "IMP-003",
    why="Importing transformers 5.x prints a notice where WANDB_MODE is offline, into the "
    "output of programs that never use wandb.",
    mend="Do at on_train_begin what the module does at its top.",
)
def importing_it_changes_nothing(case: Case) -> None:
    """Importing the callback's module in a fresh interpreter changes nothing else in it.

    It prints nothing, starts no thread, and leaves alone what all code of a process shares, such
    as the environment, logging and the handlers of signals and errors.
    """
    answer = _imported(case)
    require(not answer.get("printed"), f"importing it printed {answer.get('printed')!r}")
    changed = answer.get("changed", ())
    require(not changed, f"importing it changed {', '.join(changed)}")


def _imported(case: Case) -> dict[str, Any]:
    """Return what importing the callback's module did."""
    module = case.subject.module or type(case.make()).__module__
    if module == "__main__":
        return {}  # written in a program or a notebook, there is nothing to import
    answer = _import(module, case.subject.sdk or "", tuple(map(os.path.abspath, sys.path)))
    missing = answer.get("missing")
    require(missing is None, f"{module} cannot be imported: there is no {missing}; set `module`")
    return answer


@lru_cache
def _import(module: str, sdk: str, path: Sequence[str]) -> dict[str, Any]:
    """Import `module` in an interpreter of its own, and return what that did."""
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
