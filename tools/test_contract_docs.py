"""The page of the contract matches its rules."""

import re
from pathlib import Path

from contract_docs import linked, page

from callback_contract import CAPABILITIES, RULES, TRACKER_CAPABILITIES

PAGE = Path(__file__).parents[1] / "docs" / "contract.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_it_has_every_rule_once_and_every_capability() -> None:
    assert sorted(re.findall(r"^### (\S+)$", page(), re.M)) == sorted(RULES)
    assert all(f"| `{name}` |" in page() for name in {**CAPABILITIES, **TRACKER_CAPABILITIES})


def test_threads_are_linked() -> None:
    link = "[a/b-c#12](https://github.com/a/b-c/issues/12)"
    assert linked("It hangs (a/b-c#12).") == f"It hangs ({link})."
