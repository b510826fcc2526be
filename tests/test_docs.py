"""The guide to events matches the table of events, and the tracker of the other guide works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from callback_core import COMMON_KEYWORDS, EVENTS
from trainer_torch.testing import small_trainer

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "events.md"


def code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_the_page_of_events_has_the_rows_of_the_table_in_its_order() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## In the loop")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `on_")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        [f"`{event.name}`", event.when, code(event.passes), code(event.resets)]
        for event in EVENTS.values()
    ]


def test_the_page_of_events_names_every_common_keyword() -> None:
    introduction = PAGE.read_text(encoding="utf-8").partition("| event |")[0]
    assert all(f"`{name}`" in introduction for name in COMMON_KEYWORDS)


def test_the_tracker_of_the_guide_keeps_a_training(tmp_path: Path) -> None:
    guide = (DOCS / "tracking.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(guide.partition("```python\n")[2].partition("```")[0], names)
    path = tmp_path / "runs.jsonl"
    small_trainer(tmp_path / "run", names["LinesCallback"](str(path)), max_steps=2).train()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = [point for line in lines for point in line.get("points", [])]
    assert [step for name, _, step, *_ in points if name == "train/loss"] == [1, 2]
    assert lines[-1]["status"] == "finished"
