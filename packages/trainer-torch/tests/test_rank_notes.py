"""Which ranks are late, lost or have failed, by what the ranks have written."""

from __future__ import annotations

from typing import Any

import pytest

from trainer_torch.ranks.rank_notes import RankNote, explanation, late_ranks


def note(rank: int, turns: int, events: int = 0, **changed: Any) -> RankNote:
    usual: dict[str, Any] = {
        "host": f"host-{rank}",
        "pid": 1000 + rank,
        "step": 7,
        "event": "on_step_begin",
        "code": "wait (file.py:12)",
        "still": 60.0,
        "has_left": False,
        "failure": None,
        "answers": True,
    }
    return RankNote(rank=rank, turns=turns, events=events, **{**usual, **changed})


def test_a_note_is_the_same_after_it_was_written() -> None:
    one = note(3, turns=5, events=2, failure="ValueError('é')")
    assert RankNote.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("places", "late"),
    [
        ({0: (5, 0), 1: (4, 2), 2: (5, 0)}, [1]),  # 1 has left the last operation, others wait
        ({0: (4, 1), 1: (4, 1), 2: (4, 0)}, [2]),  # 2 has not come to the last event
        ({0: (9, 0), 1: (6, 3), 2: (6, 3)}, [1, 2]),
        ({0: (5, 0), 1: (5, 0), 2: (5, 0)}, []),
    ],
)
def test_the_ranks_behind_the_others_are_late(
    places: dict[int, tuple[int, int]], late: list[int]
) -> None:
    notes = [note(rank, *place) for rank, place in places.items()]
    assert [one.rank for one in late_ranks(notes)] == late


def test_a_rank_between_entering_and_leaving_an_operation_waits() -> None:
    assert note(0, turns=5).waits
    assert not note(0, turns=6).waits


def test_ranks_that_do_not_answer_or_never_wrote_are_named() -> None:
    notes = {0: note(0, 5), 1: note(1, 4, answers=False)}
    text = explanation(notes, size=3, limit=None)
    assert "rank 1 (host-1" in text
    assert "rank 2" in text
    assert "rank 0" not in text


def test_the_error_of_another_rank_is_told() -> None:
    notes = {0: note(0, 5), 1: note(1, 4, failure="ValueError('broken')")}
    text = explanation(notes, size=2, limit=None)
    assert "rank 1" in text
    assert "ValueError('broken')" in text


def test_the_errors_of_the_others_are_not_told_if_a_rank_is_lost() -> None:
    """They are errors of connections to the lost one."""
    notes = {0: note(0, 5, failure="connection closed"), 1: note(1, 4, answers=False)}
    assert "connection closed" not in explanation(notes, size=2, limit=None)


def test_a_rank_that_is_outside_the_trainer_is_not_lost_but_late() -> None:
    notes = {0: note(0, 5), 1: note(1, 4, has_left=True, answers=False)}
    text = explanation(notes, size=2, limit=60)
    assert "rank 1" in text
    assert [one.rank for one in late_ranks(list(notes.values()))] == [1]


def test_of_many_ranks_only_some_are_described() -> None:
    notes = {rank: note(rank, 4, answers=False) for rank in range(1024)}
    assert len(explanation(notes, size=1024, limit=60)) < 300
