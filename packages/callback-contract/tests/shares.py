"""The mutants in shares, so that processes can check them beside each other: a file has one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, ClassVar

import pytest
from mutants import Mutant, all_mutants, failures_of
from reach import of_the_reference, rules_to_check

from callback_contract import RULES

WORKERS = 6
"""More than there may be processors: mutants of trackers mostly wait for their threads."""


def shares() -> list[list[Mutant]]:
    """Return all mutants in shares that take about as long.

    Those of the whole reference are in half of them: in each of these, it is checked itself first.
    """
    whole = of_the_reference(all_mutants())
    others = [mutant for mutant in all_mutants() if mutant not in whole]
    return [whole[0::2], whole[1::2], others[0::2], others[1::2]]


class ChecksAShare:
    """Checks that each mutant of a share fails its rule, and no other."""

    share: ClassVar[list[Mutant]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each mutant."""
        if "mutant" in metafunc.fixturenames:
            ids = [f"{mutant.rule_id}-{mutant.suite.__name__}" for mutant in self.share]
            metafunc.parametrize("mutant", self.share, ids=ids)

    @pytest.fixture(scope="class")
    @classmethod
    def failures(cls, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
        """What the mutants fail, by their names; they are checked in processes of their own."""
        chosen: list[Mutant] = [
            item.callspec.params["mutant"]
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.cls is cls
        ]
        whole = of_the_reference(chosen)
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as workers:
            ids = sorted(RULES) if whole else []
            parts = [workers.submit(rules_to_check, ids[n::WORKERS]) for n in range(WORKERS)]
            failures = {
                mutant.suite.__name__: workers.submit(failures_of, mutant.suite.__name__)
                for mutant in chosen
                if mutant not in whole
            }
            for mutant in whole:
                name = mutant.suite.__name__
                rules = {rule for part in parts for rule in part.result()[name]}
                failures[name] = workers.submit(failures_of, name, rules)
            yield failures

    @pytest.mark.slow
    def test_a_mutant_fails_its_rule_and_no_other(
        self, mutant: Mutant, failures: dict[str, Future[dict[str, str]]]
    ) -> None:
        """It fails its own, and that is no error of the mutant's."""
        failed = failures[mutant.suite.__name__].result()
        assert [*failed] == [mutant.rule_id], failed
        assert failed[mutant.rule_id].startswith("broken: ")
