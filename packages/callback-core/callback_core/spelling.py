"""Finds the known name that a misspelt one means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_NEAR: Final = 0.85
"""The similarity from which a name counts as misspelt, from 0 to 1.

`on_steps_end` and `on_logs` are as near to an event, `on_batch_end` and `on_plot` are not.
"""

_SYNONYMS: Final = {
    "start": "begin",
    "finish": "end",
    "training": "train",
    "eval": "evaluate",
    "evaluation": "evaluate",
    "validation": "evaluate",
}
"""Words of other libraries, and transformers' words for them."""


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `name` is a misspelling of, or `None` if it is near none.

    Capitals, underscores and swapped letters make no difference: `onStepEnd` means `on_step_end`.
    """
    from difflib import SequenceMatcher  # here, because few programs need it

    likeness = {
        one: 1.0 if _letters(name) == _letters(one) else SequenceMatcher(None, name, one).ratio()
        for one in known
    }
    best = max(likeness, key=likeness.__getitem__, default=None)
    return best if best is not None and likeness[best] >= _NEAR else None


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that an error about `name` should suggest, or `None`.

    `name` is known to be wrong, so that less likeness is enough than for `meant_by`.
    """
    from difflib import get_close_matches  # here, because only errors and warnings need it

    names = list(names)
    similar = get_close_matches(name, names, n=1, cutoff=0.7)
    longer = [other for other in names if len(name) > 3 and name in other]
    return next(iter(similar or longer), None)


def _letters(name: str) -> list[str]:
    words = (_SYNONYMS.get(word, word) for word in name.lower().split("_"))
    return sorted("".join(words))
