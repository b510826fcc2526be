"""Every rule has a mutant that fails it, and no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from mutants import Mutant, all_mutants, failures_of

from callback_contract import RULES

WORKERS = 8
"""More than there may be processors: mutants of trackers mostly wait for their threads."""


@pytest.fixture(scope="module")
def failures(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[dict[str, str]]]]:
    """What the mutants fail, by their names; they are checked in processes of their own."""
    chosen = [
        item.callspec.params["mutant"].suite.__name__
        for item in request.session.items
        if isinstance(item, pytest.Function) and "failures" in item.fixturenames
    ]
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as workers:
        yield {name: workers.submit(failures_of, name) for name in chosen}


def test_every_rule_has_a_mutant() -> None:
    assert sorted({mutant.rule_id for mutant in all_mutants()}) == sorted(RULES)


def test_there_are_fifty_rules_and_more() -> None:
    assert len(RULES) >= 50
    assert all(len(rule.demands) > 20 and rule.why and rule.mend for rule in RULES.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant", all_mutants(), ids=lambda mutant: f"{mutant.rule_id}-{mutant.suite.__name__}"
)
def test_a_mutant_fails_its_rule_and_no_other(
    mutant: Mutant, failures: dict[str, Future[dict[str, str]]]
) -> None:
    failed = failures[mutant.suite.__name__].result()
    assert [*failed] == [mutant.rule_id], failed
    assert failed[mutant.rule_id].startswith("broken: ")
