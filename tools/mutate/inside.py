"""A warm process that checks rules of the contract with a copy of callback_core, which may change.

`contract.py` starts it: python inside.py COPY. It reads a request a line, as JSON, forks, and in
the fork imports the copy as it is by then and checks what is asked for, up to the first rule that
fails. It answers with a line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from resource import RLIMIT_AS, RLIMIT_FSIZE, setrlimit
from time import monotonic, sleep
from typing import Any

import lines_that_run

COPIED = ("callback_core", "callback_contract")
MARK = "CONTRACT_MUTANT"
"""Environment variable by which what a mutant has started is found."""


def warm(suites: list[str]) -> None:
    """Import what the suites need, and forget what is copied: it is imported in each fork anew."""
    before = set(sys.modules)
    for module in dict.fromkeys(name.partition(":")[0] for name in suites):
        import_module(module)
    here = os.environ["PYTHONPATH"]
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.partition(".")[0] in COPIED or file.startswith(here):
            del sys.modules[name]


def answer(request: dict[str, Any], at: Path) -> dict[str, Any]:
    """Check in a fork what `request` says, and return what came of it."""
    result, folder = at / "result.json", at / "tmp"
    result.unlink(missing_ok=True)
    folder.mkdir()
    child = os.fork()
    if child == 0:
        try:
            begin(folder)
            outcome = check(request, folder)
            result.with_suffix(".part").write_text(json.dumps(outcome))
            result.with_suffix(".part").rename(result)
        finally:
            os._exit(0)  # without waiting for what a mutant has left behind
    deadline = monotonic() + request["limit"]
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"failed": "hangs"}
        sleep(0.002)
    return json.loads(result.read_text()) if result.exists() else {"failed": "dies"}


def begin(folder: Path) -> None:
    """Be a process of its own, which is silent, and which cannot take all there is."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    os.environ["TMPDIR"] = str(folder)
    setrlimit(RLIMIT_AS, (8 << 30, 8 << 30))  # for mutants that append without an end
    setrlimit(RLIMIT_FSIZE, (1 << 28, 1 << 28))
    logging.lastResort = None  # there is nobody to read it, and a mutant may log without an end


def check(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Check what `request` says in this process, up to the first rule that fails."""
    core, traced = Path(os.environ["PYTHONPATH"], "callback_core"), request.get("trace", False)
    trace = lines_that_run.Trace(core, folder / "lines") if traced else None
    seconds, lines = [], []
    try:
        suite_of = {name: made(name) for name, _ in request["checks"]}
        rules, keep = (
            import_module("callback_contract").RULES,
            import_module("callback_contract._suite").keep,
        )
        silence = import_module("callback_contract._watching").silence
        if trace is not None:
            lines.append(trace.taken())
        for number, (name, rule) in enumerate(request["checks"]):
            at, begun = folder / str(number), monotonic()
            at.mkdir()
            try:
                with silence():
                    keep(rules[rule], suite_of[name](), at)
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
                return {"failed": f"{rule} {name}", "said": said[:2000]}
            seconds.append(monotonic() - begun)
            if trace is not None:
                lines.append(trace.taken())
    except BaseException as error:
        return {"failed": "dies", "said": f"{type(error).__name__}: {error}"}
    return {"failed": "", "seconds": seconds, "lines": lines}


def made(name: str) -> Any:
    """Return the suite `module:Class` as one whose rules can be listed and checked."""
    module, _, suite = name.partition(":")
    return getattr(import_module(module), suite)


def rules_of(suites: list[str], at: Path) -> dict[str, Any]:
    """Return, in a fork, which rules each of `suites` is checked against."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        fates = import_module("callback_contract._suite").fates
        found = [
            (name, rule.id) for name in suites for rule, fate in fates(made(name)) if fate == "run"
        ]
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        found = json.loads(answers.read())
    os.waitpid(child, 0)
    return {"checks": found}


def main() -> None:
    """Answer requests until there are no more."""
    at = Path(sys.argv[1])
    threading.settrace(None)
    for line in sys.stdin:
        request = json.loads(line)
        if "suites" in request:
            warm(request["suites"])
            print(json.dumps(rules_of(request["suites"], at)), flush=True)
        else:
            print(json.dumps(answer(request, at)), flush=True)


if __name__ == "__main__":
    main()
