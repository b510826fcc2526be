"""Train the digits example in a Flyte task on this machine, without a cluster.

TRACKER=flyte tools/pants run docs/examples/digits_in_flyte.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import digits
from flytekit import FlyteContextManager, task


@task(enable_deck=True, deck_fields=())
def train(arguments: list[str]) -> None:
    """Train as `digits.py` does with these arguments."""
    digits.main(arguments)


if __name__ == "__main__":
    train(arguments=sys.argv[1:])
    files = FlyteContextManager.current_context().file_access
    for deck in Path(files.local_sandbox_dir).rglob("deck.html"):
        print(f"flyte: {deck} is the deck; open it in a browser")
