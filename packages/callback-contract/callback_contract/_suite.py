"""The base classes that a package's test subclasses: one test for each rule."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from callback_contract import rules as _rules  # noqa: F401  which registers them
from callback_contract._case import Case
from callback_contract._ending import process_put_back
from callback_contract._result import Result, outcome_of
from callback_contract._rule import RULES, ContractViolation, Rule, Version
from callback_contract._subject import CAPABILITIES, Deviation, Subject
from callback_contract._watching import silence

if TYPE_CHECKING:
    import pytest

_OURS = ("test_contract", "test_as_many_rules_ran_as_expected", "pytest_generate_tests")
"""What checks, which a subclass may not have another of."""


class CallbackContract(Subject):
    """Checks a callback against the contract, a test for each rule.

    Subclass it in a test module, say how to `make` the callback, and pytest does the rest. A class
    that is only there for others to be made of has `__test__ = False`.

    Attributes:
        contract: The version of the contract that it is to pass: rules that came later are not run.
        capabilities: What the callback can do, of `CAPABILITIES`. Rules that need another one are
            not run, and counted.
        deviations: Rules that it is known to break, by their ids.
        expect: What the count must be, as `"31 run, 2 not claimed, 1 deviates"`: a rule that no
            longer runs is noticed.

    Raises:
        TypeError: When it is subclassed: an id, a capability or a version that does not exist, a
            deviation without a reason or from a rule that is not run, or a test of the contract
            that is overridden.
    """

    contract: ClassVar[Version]
    deviations: ClassVar[Mapping[str, Deviation]] = {}
    expect: ClassVar[str]
    __test__: ClassVar[bool]
    _of_trackers: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what would quietly check less than it seems to."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            return
        # pytest collects it whatever it is called; one that others are made of says `False` itself.
        if "__test__" not in vars(cls):
            cls.__test__ = True
        if faults := list(_faults(cls)):
            raise TypeError(f"{cls.__name__}: {'; '.join(faults)}.")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each rule. pytest calls this on test classes, without any plugin."""
        import pytest

        if "rule" in metafunc.fixturenames:
            parameters = []
            for rule, fate in fates(type(self)):
                marks = []
                if fate == "deviates":
                    deviation = self.deviations[rule.id]
                    reason = f"{deviation.reason} {deviation.issue}".strip()
                    marks.append(
                        pytest.mark.xfail(strict=True, raises=ContractViolation, reason=reason)
                    )
                elif fate == "not claimed":
                    missing = ", ".join(sorted(rule.needs - set(self.capabilities)))
                    marks.append(pytest.mark.skip(reason=f"not claimed: {missing}"))
                parameters.append(pytest.param(rule, id=rule.id, marks=marks))
            metafunc.parametrize("rule", parameters)

    def test_contract(self, rule: Rule, tmp_path: Path) -> None:
        """The callback keeps the rule."""
        keep(rule, self, tmp_path)

    def test_as_many_rules_ran_as_expected(self) -> None:
        """The number of rules that are run is what the package says it is."""
        counted = count(type(self))
        assert counted == self.expect, f"expect is {self.expect!r}, but it is {counted!r}"


class TrackerContract(CallbackContract):
    """Checks a tracker's callback, whose store can be read: the rules for trackers too."""

    _of_trackers = True


def _faults(suite: type[CallbackContract]) -> Iterator[str]:
    """Yield what is wrong with how `suite` was written."""
    yield from (f"{name} may not be overridden" for name in _OURS if name in vars(suite))
    yield from (f"there is no capability {c!r}" for c in set(suite.capabilities) - {*CAPABILITIES})
    newest = max(rule.since for rule in RULES.values())
    if not suite.__test__:
        return
    if not (1, 0) <= getattr(suite, "contract", (0, 0)) <= newest:
        yield f"contract must be a version from (1, 0) to {newest}"
        return
    run = {rule.id for rule, fate in fates(suite) if fate != "not claimed"}
    for rule_id, deviation in suite.deviations.items():
        if rule_id not in RULES:
            yield f"there is no rule {rule_id}"
        elif rule_id not in run:
            yield f"{rule_id} is not run, so nothing can deviate from it"
        elif not isinstance(deviation, Deviation) or not deviation.reason.strip():
            yield f"the deviation from {rule_id} must be a Deviation with a reason"
    if not isinstance(getattr(suite, "expect", None), str):
        yield f"expect must say what runs; here it is: {count(suite)!r}"


def keep(rule: Rule, subject: Subject, folder: Path) -> None:
    """Check one rule, and leave nothing of it that the next one could meet.

    Raises:
        ContractViolation: The callback breaks it; the message begins with its id.
    """
    if subject.sdk is not None:
        with suppress(ImportError):  # what it takes to import it is no part of a rule's time
            import_module(subject.sdk)
    case = Case(subject, folder)
    with process_put_back():
        try:
            rule.check(case)
        except ContractViolation as violation:
            raise ContractViolation(
                f"[{rule.id}] {violation}. Demanded: {rule.demands} To mend it: {rule.mend}"
            ) from violation.__cause__
        finally:
            case.end()


def fates(suite: type[CallbackContract]) -> Iterator[tuple[Rule, str]]:
    """Yield each rule that `suite` has opted into, and whether it is run, deviates or is not."""
    for rule in sorted(RULES.values(), key=lambda rule: rule.id):
        if rule.since <= suite.contract and (suite._of_trackers or not rule.of_trackers):
            if not rule.needs <= set(suite.capabilities):
                yield rule, "not claimed"
            else:
                yield rule, "deviates" if rule.id in suite.deviations else "run"


def count(suite: type[CallbackContract]) -> str:
    """Return how many rules are run, not claimed and deviated from, as `expect` says it."""
    fate_of = [fate for _, fate in fates(suite)]
    return ", ".join(f"{fate_of.count(fate)} {fate}" for fate in ("run", "not claimed", "deviates"))


def check(
    suite: type[CallbackContract],
    folder: Path | None = None,
    rules: Collection[str] | None = None,
) -> list[Result]:
    """Check a callback against the contract without pytest, and return what came of each rule.

    Args:
        suite: What is checked, as a subclass says it.
        folder: An empty directory to work in; a temporary one where it is not given.
        rules: The ids of the rules to check; all that apply where they are not given.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        at = Path(temporary) if folder is None else folder
        subject = suite()
        with silence():  # as pytest does with what the callback prints
            return [
                outcome_of(rule, fate, subject, at / rule.id, keep)
                for rule, fate in fates(suite)
                if rules is None or rule.id in rules
            ]
