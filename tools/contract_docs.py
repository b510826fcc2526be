"""Print the page of the rules: `tools/pants run tools/contract_docs.py > docs/contract.md`."""

import re
from collections.abc import Iterator

from callback_contract import CAPABILITIES, GROUPS, RULES, TRACKER_CAPABILITIES, Rule

INTRODUCTION = """\
# The contract of callbacks

The contract has {count} rules for training callbacks. Their ids never change.
[Check your callback](contract-for-yours.md) explains how to run them.

This page is made from the rules: `tools/pants run tools/contract_docs.py > docs/contract.md`.

The last line about a rule says when it runs:

- *Since* is the first version of the contract that has the rule. The rule does not run for a
  callback with an older `contract`.
- *Of trackers*: The rule reads the store of a tracker. It runs only for a `TrackerContract`.
- *Needs*: The rule runs only if the callback claims these capabilities.
- *Unless*: The rule runs only if the callback does not claim this capability.

## Capabilities

| capability | a callback claims it if it |
|---|---|
"""

THREAD = re.compile(r"(?<![\w/-])([A-Za-z0-9][\w.-]*/[\w.-]+)#(\d+)")


def page() -> str:
    """Return the whole page."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    yield INTRODUCTION.format(count=len(RULES)).rstrip("\n")
    capabilities = {**CAPABILITIES, **TRACKER_CAPABILITIES}
    yield from (f"| `{name}` | {what} |" for name, what in capabilities.items())
    by_id = sorted(RULES.values(), key=lambda rule: rule.id)
    for letters, group in GROUPS.items():
        yield from ("", f"## {letters}: {group}")
        for rule in by_id:
            if rule.group == letters:
                yield from section(rule)


def section(rule: Rule) -> Iterator[str]:
    """Yield the lines about one rule."""
    yield from ("", f"### {rule.id}", "", rule.demands, "")
    yield f"- **Why:** {linked(rule.why)}"
    yield f"- **To fix it:** {rule.fix}"
    applies = [f"since {rule.since[0]}.{rule.since[1]}"]
    if rule.of_trackers:
        applies.append("of trackers")
    if rule.needs:
        applies.append("needs " + ", ".join(f"`{name}`" for name in sorted(rule.needs)))
    if rule.unless:
        applies.append(f"unless `{rule.unless}`")
    yield f"- {'; '.join(applies).capitalize()}."


def linked(text: str) -> str:
    """Return `text` with each `owner/name#number` as a link to that issue."""
    return THREAD.sub(r"[\1#\2](https://github.com/\1/issues/\2)", text)


if __name__ == "__main__":
    print(page(), end="")
