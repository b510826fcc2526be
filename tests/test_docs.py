"""What the guides say about the events is what the table of events says."""

from __future__ import annotations

from pathlib import Path

from callback_core import COMMON_KEYWORDS, EVENTS

PAGE = Path(__file__).parents[1] / "docs" / "events.md"


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
