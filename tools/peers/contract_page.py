"""The page about transformers' callbacks and the contract, made of what each rule came to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from transformers_callbacks import NOT_ASKED, PEERS, Peer, asked

from callback_contract import RULES

LONGEST: Final = 200
"""Characters of what a rule said that are shown."""

INTRODUCTION: Final = """\
# transformers' callbacks and the contract

What comes of it when transformers' own callbacks are put through [the contract](contract.md),
which is younger than they are. Each is made as transformers' Trainer makes it, with the
variables of the environment that it documents, and claims the
[capabilities](contract.md#capabilities) that it documents or that its code names.

{versions}.

Each rule was checked in a process of its own and had {limit} seconds; one that took longer counts
as broken. TensorBoard's event files, W&B's offline files and the databases of MLflow and Trackio
were read from disk. Comet and ClearML sent to stand-in servers, those of the tests in `packages`.
What Comet and W&B still had to write was waited for before their stores were read
(`experiment.end()`, `wandb.finish()`), but for DEL-001, which asks what is there when
`on_train_end` returns.

- One defect can break several rules: a tracker that ends a training when a value cannot be
  written breaks each rule that logs one.
- Rules that ask for what transformers has no means for are not asked, and not counted:
{not_asked}
- IMP-002, about a missing SDK, was checked in an interpreter of its own that never had it.
- `unreachable`, `resume`, `rewinds` and the trackers' `state` are claimed by none, since none
  documents them. `tracking`, `settings`,
  `reasons` and `prints_logs` are about what this library has, and were not claimed either.

This page is written by `tools/peers/contract_of_transformers.py`, whose docstring has the commands.
"""

NOT_RUN: Final = """\
Not run:

- `AzureMLCallback`, `DagsHubCallback` and `NeptuneCallback` need a workspace or an account.
- `SwanLabCallback` was not tried.
- `DVCLiveCallback` stores its own count of logs in place of the training's step. The rules for
  trackers look a value up by its step, so that most of them would say just this.
"""


def page(results: Path, limit: float) -> Iterator[str]:
    """Yield the lines of the page, about rules that had `limit` seconds each."""
    of_all = {
        name: json.loads((results / f"{name}.json").read_text())
        for name in PEERS
        if (results / f"{name}.json").exists()
    }
    versions = {n: v for of in of_all.values() for n, v in of["versions"].items()}
    yield INTRODUCTION.format(
        versions=", ".join(f"{name} {number}" for name, number in sorted(versions.items())),
        limit=f"{limit:.0f}",
        not_asked="\n".join(f"  {linked(rule)}: {why}" for rule, why in NOT_ASKED.items()),
    ).rstrip("\n")
    yield from (
        "",
        "| callback | rules run | kept | broken | not claimed |",
        "|---|---:|---:|---:|---:|",
    )
    for name, of in of_all.items():
        outcomes = [outcome for _, outcome, _ in of["results"]]
        kept, broken = outcomes.count("kept"), outcomes.count("broken")
        rules = len(asked(PEERS[name], claimed=False))
        shown = f"[{name}](#{name.lower()})"
        yield f"| {shown} | {kept + broken} | {kept} | {broken} | {rules - kept - broken} |"
    yield from ("", NOT_RUN.rstrip("\n"))
    for name, of in of_all.items():
        yield from ("", f"## {name}", "")
        yield from section(PEERS[name], of["results"])


def section(peer: type[Peer], results: list[list[str]]) -> Iterator[str]:
    """Yield the lines about one callback."""
    claims = ", ".join(f"`{name}`" for name in sorted(peer.capabilities)) or "nothing"
    yield f"It claims {claims}."
    broken = [(rule, message) for rule, outcome, message in results if outcome == "broken"]
    if not broken:
        yield from ("", "It keeps every rule that was run.")
        return
    yield from ("", "| rule | demand | what happened |", "|---|---|---|")
    for rule, message in broken:
        happened = cell(short(message))
        yield f"| {linked(rule)} | {cell(first(RULES[rule].demands))} | {happened} |"


def linked(rule: str) -> str:
    """Return a rule's id with a link to what is written of it."""
    return f"[{rule}](contract.md#{rule.lower()})"


def first(demands: str) -> str:
    """Return the first sentence of a demand."""
    return re.split(r"(?<=\.) (?=[A-Z])", demands)[0]


def short(message: str) -> str:
    """Return the first line of a message, or what of it is enough."""
    line = " ".join(message.split("\n")[0].split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def cell(text: str) -> str:
    """Return text for a cell of a table, in which nothing is markup but code."""
    if text.count("`") % 2:
        text = text.replace("`", "'")
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")
