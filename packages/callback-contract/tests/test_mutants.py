"""Every rule has a mutant, and every mutant is in the share of one file."""

from __future__ import annotations

import test_mutants_1
import test_mutants_2
import test_mutants_3
import test_mutants_4
from mutants import all_mutants

from callback_contract import RULES

FILES = (test_mutants_1, test_mutants_2, test_mutants_3, test_mutants_4)


def test_every_rule_has_a_mutant() -> None:
    assert sorted({mutant.rule_id for mutant in all_mutants()}) == sorted(RULES)


def test_every_mutant_is_in_one_share() -> None:
    checked = [mutant.suite.__name__ for file in FILES for mutant in file.TestMutants.share]
    assert sorted(checked) == sorted({mutant.suite.__name__ for mutant in all_mutants()})


def test_there_are_fifty_rules_and_more() -> None:
    assert len(RULES) >= 50
    assert all(len(rule.demands) > 20 and rule.why and rule.mend for rule in RULES.values())
