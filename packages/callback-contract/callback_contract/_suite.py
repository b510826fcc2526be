"""The base classes that a test of a callback subclasses: one test for each rule."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from callback_contract import rules as _rules  # noqa: F401  which registers them
from callback_contract._case import Case
from callback_contract._ending import RuleTookTooLong, time_limit
from callback_contract._process import process_put_back, silence
from callback_contract._registry import RULES, Rule, Version
from callback_contract._result import Outcome, Result
from callback_contract._subject import (
    CAPABILITIES,
    PRECISIONS,
    TRACKER_CAPABILITIES,
    Deviation,
    Subject,
)
from callback_contract._violation import ContractViolation, DoesNotApply

if TYPE_CHECKING:
    import pytest

_OURS = ("test_contract", "pytest_generate_tests")
"""The tests themselves, which a subclass must not replace."""


class CallbackContract(Subject):
    """Checks a callback against the contract, with one test for each rule.

    Subclass it in a test module, say how to `make` the callback, and pytest does the rest. A class
    that only serves as a base of others has `__test__ = False`.

    Attributes:
        contract: The version of the contract that the callback passes. Newer rules do not run.
        capabilities: What the callback does. Rules that need another capability are skipped.
        not_claimed: All other capabilities, if given: a new one turns the test red then.
        deviations: Rules that the callback is known to break, by id.

    Raises:
        TypeError: A subclass names a rule, a capability or a version that does not exist, has a
            deviation without a reason or from a rule that does not run, or replaces a test.
    """

    contract: ClassVar[Version]
    deviations: ClassVar[Mapping[str, Deviation]] = {}
    not_claimed: ClassVar[Collection[str] | None] = None
    __test__: ClassVar[bool]
    of_trackers: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class that checks less than it seems to."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            return
        if "__test__" not in vars(cls):
            cls.__test__ = True  # pytest collects it whatever its name is
        if faults := list(_faults(cls)):
            raise TypeError(f"{cls.__name__}: {'; '.join(faults)}.")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each rule. pytest calls this on test classes without any plugin."""
        import pytest

        if "rule" not in metafunc.fixturenames:
            return
        parameters = []
        for planned in plan(type(self)):
            marks = []
            if planned.fate == "deviates":
                deviation = self.deviations[planned.rule.id]
                reason = f"{deviation.reason} {deviation.issue}".strip()
                marks.append(
                    pytest.mark.xfail(strict=True, raises=ContractViolation, reason=reason)
                )
            elif planned.fate == "not claimed":
                marks.append(pytest.mark.skip(reason=f"not claimed: {planned.missing}"))
            parameters.append(pytest.param(planned.rule, id=planned.rule.id, marks=marks))
        metafunc.parametrize("rule", parameters)

    def test_contract(self, rule: Rule, tmp_path: Path) -> None:
        """The callback keeps the rule."""
        import pytest

        warn_of_what_is_not_claimed(type(self))
        try:
            keep(rule, self, tmp_path, _causes_of(type(self)))
        except DoesNotApply as reason:
            pytest.skip(f"does not apply: {reason}")


class TrackerContract(CallbackContract):
    """Checks a tracker's callback, whose store can be read: the rules for trackers too."""

    of_trackers = True


Fate = Literal["run", "deviates", "not claimed"]


class Planned(NamedTuple):
    """A rule that a callback has opted into.

    Attributes:
        rule: The rule.
        fate: Whether it runs, runs and is known to be broken, or is skipped.
        missing: The capabilities that it needs and the author does not claim.
    """

    rule: Rule
    fate: Fate
    missing: str = ""


def plan(suite: type[CallbackContract]) -> Iterator[Planned]:
    """Yield each rule that `suite` has opted into. A rule for those without a claim is left out."""
    for rule in sorted(RULES.values(), key=lambda rule: rule.id):
        if rule.since > suite.contract or (rule.of_trackers and not suite.of_trackers):
            continue
        if rule.unless in suite.capabilities:
            continue
        if missing := rule.needs - set(suite.capabilities):
            yield Planned(rule, "not claimed", ", ".join(sorted(missing)))
        else:
            yield Planned(rule, "deviates" if rule.id in suite.deviations else "run")


def capabilities_of(suite: type[CallbackContract]) -> dict[str, str]:
    """Return the capabilities that a suite may claim, with what they mean."""
    return {**CAPABILITIES, **(TRACKER_CAPABILITIES if suite.of_trackers else {})}


def _faults(suite: type[CallbackContract]) -> Iterator[str]:
    """Yield the mistakes in how `suite` is written."""
    yield from (f"{name} must not be overridden" for name in _OURS if name in vars(suite))
    if isinstance(suite.capabilities, str):
        yield f"capabilities must be a set of names, not the string {suite.capabilities!r}"
        return
    known = capabilities_of(suite)
    for name in sorted(set(suite.capabilities) - known.keys()):
        yield f"there is no capability {name!r}; there are {', '.join(known)}"
    if suite.precision not in PRECISIONS:
        yield f"precision must be one of {', '.join(PRECISIONS)}, not {suite.precision!r}"
    if not suite.__test__ and not hasattr(suite, "contract"):
        return
    newest = max(rule.since for rule in RULES.values())
    if not (2, 0) <= getattr(suite, "contract", (0, 0)) <= newest:
        yield f"contract must be a version from (2, 0) to {newest}"
        return
    if suite.not_claimed is not None:
        rest = known.keys() - set(suite.capabilities)
        if set(suite.not_claimed) != rest:
            yield f"not_claimed must name all other capabilities: {sorted(rest)}"
    for hook, capability in _HOOKS.items():
        claims = suite.__test__ and capability in suite.capabilities  # others may yet complete it
        if claims and _is_default(suite, hook):
            yield f"the capability {capability!r} needs `{hook}`"
    run = {planned.rule.id for planned in plan(suite) if planned.fate != "not claimed"}
    for rule_id, deviation in suite.deviations.items():
        if rule_id not in RULES:
            yield f"there is no rule {rule_id}"
        elif rule_id not in run:
            yield f"{rule_id} does not run, so nothing can deviate from it"
        elif not isinstance(deviation, Deviation) or not deviation.reason.strip():
            yield f"the deviation from {rule_id} must be a Deviation with a reason"


_HOOKS = {
    "make_patient": "patience",
    "make_with": "settings",
    "settings": "settings",
    "make_unreachable": "unreachable",
    "users_run": "adopts",
    "sdk": "sdk",
}
"""The hooks and attributes that a capability needs."""


def _is_default(suite: type[CallbackContract], hook: str) -> bool:
    return getattr(suite, hook) is getattr(Subject, hook)


_WARNED: set[type[CallbackContract]] = set()


def warn_of_what_is_not_claimed(suite: type[CallbackContract]) -> None:
    """Warn once if a tracker claims neither `state` nor `resume`."""
    if (
        suite.of_trackers
        and suite not in _WARNED
        and not {"state", "resume"} & set(suite.capabilities)
    ):
        import warnings

        _WARNED.add(suite)
        warnings.warn(
            f"{suite.__name__} claims neither 'state' nor 'resume': no rule checks where a "
            "resumed training is stored.",
            stacklevel=3,
        )


_CAUSES: dict[type[CallbackContract], dict[str, str]] = {}


def _causes_of(suite: type[CallbackContract]) -> dict[str, str]:
    return _CAUSES.setdefault(suite, {})


def keep(rule: Rule, subject: Subject, folder: Path, causes: dict[str, str] | None = None) -> None:
    """Check one rule, and leave nothing of it that the next one could meet.

    Args:
        rule: The rule.
        subject: The callback under test.
        folder: An empty directory.
        causes: The rules that failed first for each cause so far. A failure for a cause that is
            there names that rule instead of repeating its message.

    Raises:
        ContractViolation: The callback breaks the rule; the message begins with the rule's id.
        DoesNotApply: The rule asks nothing of this callback.
    """
    if subject.sdk is not None:
        with suppress(ImportError):  # the time of its import is no part of a rule's
            import_module(subject.sdk)
    case = Case(subject, folder)
    with process_put_back():
        try:
            with time_limit(subject.time_limit):
                rule.check(case)
        except (ContractViolation, RuleTookTooLong) as broken:
            raise _explained(rule, case, broken, causes) from broken.__cause__
        finally:
            with time_limit(subject.time_limit), suppress(RuleTookTooLong):
                case.end_trainings()


def _explained(
    rule: Rule,
    case: Case,
    broken: ContractViolation | RuleTookTooLong,
    causes: dict[str, str] | None,
) -> ContractViolation:
    """Return the violation with all that helps to mend it."""
    if isinstance(broken, RuleTookTooLong):
        at = case.trainings[-1].history[-1][0] if case.summary() else "a hook"
        seen = f"{at} was not done after {case.subject.time_limit:g} s"
        cause: str | None = f"{at} hangs"
    else:
        seen, cause = str(broken), broken.cause
    first = (causes or {}).get(cause or "")
    if first is not None and first != rule.id:
        return ContractViolation(
            f"[{rule.id}] fails for the same reason as {first}: {cause}", cause
        )
    if cause is not None and causes is not None:
        causes[cause] = rule.id
    lines = [f"[{rule.id}] {rule.demands}", f"  seen: {seen}"]
    if done := case.summary():
        lines.append(f"  done: {done}")
    return ContractViolation("\n".join([*lines, f"  to mend it: {rule.mend}"]), cause)


def check(
    suite: type[CallbackContract],
    folder: Path | None = None,
    rules: Collection[str] | None = None,
) -> list[Result]:
    """Check a callback against the contract without pytest, and return the outcome of each rule.

    Args:
        suite: The callback, as a subclass describes it.
        folder: An empty directory to work in; a temporary one by default.
        rules: The ids of the rules to check; by default all that apply.
    """
    import tempfile

    warn_of_what_is_not_claimed(suite)
    causes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, silence():
        at = Path(temporary) if folder is None else folder
        subject = suite()
        return [
            _outcome(planned, subject, at / planned.rule.id, causes)
            for planned in plan(suite)
            if rules is None or planned.rule.id in rules
        ]


def _outcome(planned: Planned, subject: Subject, folder: Path, causes: dict[str, str]) -> Result:
    rule, fate = planned.rule, planned.fate
    if fate == "not claimed":
        return Result(rule, "not claimed", planned.missing)
    folder.mkdir(parents=True)
    outcome: Outcome = "mended" if fate == "deviates" else "kept"
    try:
        keep(rule, subject, folder, causes)
    except ContractViolation as violation:
        outcome = "deviates" if fate == "deviates" else "broken"
        return Result(rule, outcome, str(violation), violation.cause)
    except DoesNotApply as reason:
        return Result(rule, "does not apply", str(reason))
    except Exception as error:
        return Result(rule, "crashed", f"{type(error).__name__}: {error}", repr(error))
    return Result(rule, outcome)
