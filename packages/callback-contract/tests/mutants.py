"""Mutants: callbacks that are wrong in one way each, and so fail exactly one rule.

Modules named `mutants_*.py` hold them. `@mutant("LIF-001")` stands above a callback's class, made
without arguments, or above a contract of it (a subclass of `CallbackContract` or
`TrackerContract`), where more has to be said than its class and capabilities.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from callback_contract import CallbackContract, check
from callback_contract._ending import process_put_back


class Mutant(NamedTuple):
    """What fails exactly the rule `rule_id`, of all that apply to it."""

    rule_id: str
    suite: type[CallbackContract]


MUTANTS: list[Mutant] = []

MEMORY = Path("/dev/shm")
"""Where files are kept in memory on Linux: a journal on a disk waits for it at each record."""


def mutant(rule_id: str, *, capabilities: Iterable[str] = ()) -> Callable[[type], type]:
    """Register the decorated class as what breaks just this rule."""

    def register(decorated: type) -> type:
        suite: Any = decorated
        if not issubclass(decorated, CallbackContract):

            def make(self: Any, output_dir: Path) -> Any:
                return decorated()

            members = {
                "__test__": False,
                "contract": (1, 1),
                "expect": "",
                "capabilities": frozenset(capabilities),
                "make": make,
            }
            suite = type(decorated.__name__, (CallbackContract,), members)
        MUTANTS.append(Mutant(rule_id, suite))
        return decorated

    return register


def all_mutants() -> list[Mutant]:
    """Import all modules of mutants, and return what they hold."""
    # By name, since Pants takes along what is imported, and here, since they import this module.
    import mutants_arguments  # noqa: F401
    import mutants_control  # noqa: F401
    import mutants_core  # noqa: F401
    import mutants_delivery  # noqa: F401
    import mutants_lifecycle  # noqa: F401
    import mutants_process  # noqa: F401
    import mutants_runs  # noqa: F401
    import mutants_state  # noqa: F401
    import mutants_tracking  # noqa: F401
    import mutants_values  # noqa: F401

    return MUTANTS


def failures_of(name: str, rules: Collection[str] | None = None) -> dict[str, str]:
    """Check the mutant of this name, and return which of the rules it fails, and how."""
    mutant = next(mutant for mutant in all_mutants() if mutant.suite.__name__ == name)
    with clean_process() as folder, patched(getattr(mutant.suite, "patches", {})):
        results = check(mutant.suite, folder, rules)
    return {
        result.rule.id: f"{result.outcome}: {result.message}"
        for result in results
        if result.outcome not in ("kept", "not claimed")
    }


@contextmanager
def patched(patches: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Put something else in place of what `module:name` names: what is made of it."""
    were = []
    for target, made in patches.items():
        module, _, path = target.partition(":")
        *owners, name = path.split(".")
        owner: Any = import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        were.append((owner, name, vars(owner)[name]))
        setattr(owner, name, made(vars(owner)[name]))
    try:
        yield
    finally:
        for owner, name, was in reversed(were):
            setattr(owner, name, was)


@contextmanager
def clean_process() -> Iterator[Path]:
    """Yield a directory to work in, and put back what mutants leave behind in the process."""
    sys.path[:] = map(os.path.abspath, sys.path)  # some are relative to where Pants began
    with (
        process_put_back(),
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
    ):
        os.chdir(folder)
        try:
            yield Path(folder, "checked")
        finally:
            os.chdir(tempfile.gettempdir())  # the directory goes
