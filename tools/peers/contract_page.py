"""Make the page about transformers' callbacks and the contract from the results of each rule."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from transformers_callbacks import PEERS, Peer

from callback_contract import RULES

LONGEST: Final = 200
"""The most characters of a rule's message on the page."""

INTRODUCTION: Final = """\
# transformers' callbacks and the contract

This page shows the results of checking transformers' own callbacks against
[the contract](contract.md). The callbacks are older than the contract. Each callback is made as
transformers' Trainer makes it, with the environment variables that it documents. It claims the
[capabilities](contract.md#capabilities) that it documents or that its code names.

{versions}.

Each SDK was in an environment of its own, and each rule was checked in a process of its own. A rule
that took more than {limit} seconds counts as broken. TensorBoard's event files, W&B's offline files
and the databases of MLflow and Trackio were read from disk. Comet and ClearML sent to the stand-in
servers of the tests in `packages`. Before the stores were read, the SDKs wrote everything that was
pending, for example with `experiment.end()` or `wandb.finish()`. They did not during a training,
and not for DEL-001, which asks what is stored when `on_train_end` returns.

- One defect can break several rules. For example, a tracker that ends a training when it cannot
  write a value breaks each rule that logs such a value.
- A callback is reported together with its SDK. For example, an SDK may start a thread that the
  callback does not end.
- IMP-002, about a missing SDK, was checked in an interpreter that never imported the SDK.
- The rules about trackers that extend this library's `Tracker` do not apply.
- No callback documents `resume`, `rewinds`, `redacts` or `scalars`, and no tracker documents
  `state`, so none claims them. `reasons` is a feature of this library.
- `adopts`, `settings` and the trackers' `unreachable` need hooks that nobody wrote for this page.

`tools/peers/contract_of_transformers.py` makes this page. Its docstring has the commands.
"""

NOT_RUN: Final = """\
Not run:

- `AzureMLCallback`, `DagsHubCallback` and `NeptuneCallback` need a workspace or an account.
- `SwanLabCallback` was not tried.
- `DVCLiveCallback` stores its own count of logs instead of the training's step. The rules for
  trackers look up values by step, so most of them would only report that.
"""


def page(results: Path, limit: float) -> Iterator[str]:
    """Yield the lines of the page. Each rule had `limit` seconds."""
    of_all = {
        name: json.loads((results / f"{name}.json").read_text())
        for name in PEERS
        if (results / f"{name}.json").exists()
    }
    versions = {n: v for of in of_all.values() for n, v in of["versions"].items()}
    yield INTRODUCTION.format(
        versions=", ".join(f"{name} {number}" for name, number in sorted(versions.items())),
        limit=f"{limit:.0f}",
    ).rstrip("\n")
    yield from (
        "",
        "| callback | kept | broken | does not apply | not claimed |",
        "|---|---:|---:|---:|---:|",
    )
    for name, of in of_all.items():
        counts = Counter(outcome for _, outcome, _ in of["results"])
        cells = (counts[o] for o in ("kept", "broken", "does not apply", "not claimed"))
        yield f"| [{name}](#{name.lower()}) | {' | '.join(map(str, cells))} |"
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
        yield from ("", "It keeps every rule that was checked.")
        return
    yield from ("", "| rule | demand | what happened |", "|---|---|---|")
    for rule, message in broken:
        happened = cell(short(message))
        yield f"| {linked(rule)} | {cell(first(RULES[rule].demands))} | {happened} |"


def linked(rule: str) -> str:
    """Return a rule's id with a link to its description."""
    return f"[{rule}](contract.md#{rule.lower()})"


def first(demands: str) -> str:
    """Return the first sentence of a demand."""
    return re.split(r"(?<=\.) (?=[A-Z])", demands)[0]


def short(message: str) -> str:
    """Return the first line of a message, cut to `LONGEST` characters."""
    line = " ".join(message.split("\n")[0].split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def cell(text: str) -> str:
    """Return text for a table cell, with all markup escaped except code."""
    if text.count("`") % 2:
        text = text.replace("`", "'")
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")
