"""Which rules a mutant can fail: those in which the reference comes to what the mutant changes.

In all others a mutant makes the calls that the reference makes, and the reference keeps them. So
the reference is checked once while its calls are noted, and each mutant where it can differ.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from mutants import Mutant, all_mutants, clean_process
from mutants_tracking import Meddling, Rewording
from reference_tracker import ReferenceCallback, Whole

from callback_contract import RULES, Rule, check
from callback_contract._heard import Heard


def of_the_reference(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Return the mutants of the whole reference: only these can be compared with it."""
    return [mutant for mutant in mutants if issubclass(mutant.suite, Whole)]


def rules_to_check(ids: Iterable[str]) -> dict[str, set[str]]:
    """Return which of these rules each mutant of the reference can fail, by its name.

    Raises:
        AssertionError: The reference breaks one.
    """
    mutants = of_the_reference(all_mutants())
    found: dict[str, set[str]] = {mutant.suite.__name__: set() for mutant in mutants}
    with clean_process() as folder:
        for rule_id in ids:
            seen = _seen_in(rule_id, folder / rule_id, mutants)
            for mutant in mutants:
                name = mutant.suite.__name__
                if f"met {name}" in seen or _changes(mutant, RULES[rule_id], seen):
                    found[name].add(rule_id)
    return found


def _seen_in(rule_id: str, folder: Path, mutants: Iterable[Mutant]) -> set[str]:
    """Check the reference, and return what was called and warned of, and which mutants are met.

    Also in processes that are forked from this one, which end in many ways: they write it down.
    """
    seen: set[str] = set()
    known: set[CodeType] = set()
    folder.parent.mkdir(exist_ok=True)
    here, forked = os.getpid(), folder.with_suffix(".forked").open("ab", buffering=0)

    def see(what: str) -> None:
        if what not in seen:
            seen.add(what)
            if os.getpid() != here:
                forked.write(what.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n")

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code not in known:
                known.add(code)
                see(_called(code))
            if code is logging.Logger.warning.__code__:
                given = frame.f_locals
                see("said " + str(given["msg"] % given["args"] if given["args"] else given["msg"]))

    suite = type("Watched", (Whole,), {"__test__": False, "callback": _watching(mutants, see)})
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        results = check(suite, folder, [rule_id])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        forked.close()
    wrong = [result.message for result in results if result.outcome not in ("kept", "not claimed")]
    assert not wrong, wrong
    return seen | {*Path(forked.name).read_text("utf-8").splitlines()}


def _called(code: CodeType) -> str:
    return f"called {code.co_filename}:{code.co_firstlineno} {code.co_name}"


def _watching(mutants: Iterable[Mutant], see: Callable[[str], None]) -> type[ReferenceCallback]:
    """Return the reference's callback, which notes the mutants that would meddle."""
    meddling: dict[str, Any] = {
        mutant.suite.__name__: mutant.suite.callback  # type: ignore[attr-defined]
        for mutant in mutants
        if _is_meddling(mutant)
    }

    def watched(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            heard = self.tracker
            if isinstance(heard, Heard):
                for mutant, kind in meddling.items():
                    if kind.meets(self, heard, heard._settings):
                        see(f"met {mutant}")
            return getattr(ReferenceCallback, name)(self, *args, **kwargs)

        return method

    overridden = {name for kind in meddling.values() for name in vars(kind)}
    events = [name for name in (*overridden, "on_train_begin") if hasattr(ReferenceCallback, name)]
    members = {name: watched(name) for name in events if not name.startswith("__")}
    return type("Watching", (ReferenceCallback,), members)


def _is_meddling(mutant: Mutant) -> bool:
    return issubclass(mutant.suite.callback, Meddling)  # type: ignore[attr-defined]


def _changes(mutant: Mutant, rule: Rule, seen: set[str]) -> bool:
    """Return whether a rule in which this was seen comes to what the mutant changes."""
    kinds = [kind for kind in mutant.suite.__mro__ if kind not in Whole.__mro__]
    changed = {name for kind in kinds for name in vars(kind) if hasattr(Whole, name)}
    changed = {name for name in changed if not name.startswith("__")}
    if _is_meddling(mutant):
        changed.remove("callback")
    patches: Mapping[str, Any] = getattr(mutant.suite, "patches", {})
    return bool(changed) or any(_is_reached(*patch, rule, seen) for patch in patches.items())


def _is_reached(target: str, made: Any, rule: Rule, seen: set[str]) -> bool:
    """Return whether a rule in which this was seen comes to what is put for `module:name`."""
    if isinstance(made, Rewording):
        return any(what.startswith("said ") and made.old in what for what in seen)
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    codes = _codes_of(vars(owner)[name])
    if codes:
        return any(_called(code) in seen for code in codes)
    of_rules = {each.check.__module__ for each in RULES.values()}
    return rule.check.__module__ == module if module in of_rules else True  # a value is anywhere


def _codes_of(named: Any) -> list[CodeType]:
    """Return what runs where a function, a property or a class is used; nothing of a value."""
    if isinstance(named, type):
        made_by = [vars(named).get("__new__"), vars(named).get("__init__")]
        return [code for made in made_by for code in _codes_of(made)]
    function = getattr(named, "__func__", None) or getattr(named, "fget", None) or named
    code = getattr(function, "__code__", None)
    return [] if code is None else [code]
