"""Checks one suite of the contract with the copy of callback_core that PYTHONPATH names.

`contract.py` calls it: python inside.py RESULT MODULE SUITE [trace]
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from resource import RLIMIT_AS, RLIMIT_FSIZE, setrlimit
from typing import Any


def first_failure(module: str, name: str) -> str:
    """Return the id of the first rule that fails; nothing where none does."""
    _suite = import_module("callback_contract._suite")

    class Failed(BaseException):
        """Ends the check, which goes on after errors."""

    def keep(rule: Any, *args: Any) -> None:
        try:
            kept(rule, *args)
        except Exception as error:
            raise Failed(rule.id) from error

    kept, _suite.keep = _suite.keep, keep
    suite = type(name, (getattr(import_module(module), name),), {"__test__": True, "expect": ""})
    try:
        _suite.check(suite)
    except Failed as failed:
        return str(failed)
    return ""


def main(result: str, module: str, name: str, trace: str = "") -> None:
    """Check the suite `name` of `module` in this process, until the first rule fails.

    Writes which one failed, and with `trace` which lines of callback_core ran.
    """
    setrlimit(RLIMIT_AS, (8 << 30, 8 << 30))  # for mutants that append without an end
    setrlimit(RLIMIT_FSIZE, (1 << 28, 1 << 28))
    core = str(Path(os.environ["PYTHONPATH"], "callback_core")) + os.sep
    ran: dict[str, set[int]] = {}

    def look(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(core):
            ran.setdefault(frame.f_code.co_filename[len(core) : -3], set()).add(frame.f_lineno)
            return look

    if trace:
        threading.settrace(look)
        sys.settrace(look)
    failed = "dies"
    try:
        failed = first_failure(module, name)
    finally:
        sys.settrace(None)
        lines = {name: sorted(numbers) for name, numbers in ran.items()}
        Path(result).write_text(json.dumps({"failed": failed, "lines": lines}))
        os._exit(0)  # without waiting for what a mutant has left behind


if __name__ == "__main__":
    main(*sys.argv[1:])
