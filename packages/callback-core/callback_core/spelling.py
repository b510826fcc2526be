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

OTHER_EVENTS: Final = {
    "on_fit_start": "on_train_begin",
    "on_fit_end": "on_train_end",
    "on_train_epoch_start": "on_epoch_begin",
    "on_train_epoch_end": "on_epoch_end",
    "on_train_batch_start": "on_step_begin",
    "on_train_batch_begin": "on_step_begin",
    "on_train_batch_end": "on_step_end",
    "on_batch_start": "on_step_begin",
    "on_batch_begin": "on_step_begin",
    "on_batch_end": "on_step_end",
    "on_before_optimizer_step": "on_pre_optimizer_step",
    "on_after_backward": "on_pre_optimizer_step",
    "on_validation_batch_end": "on_prediction_step",
    "on_validation_epoch_end": "on_evaluate",
    "on_validation_end": "on_evaluate",
    "on_test_batch_end": "on_prediction_step",
    "on_test_epoch_end": "on_evaluate",
    "on_test_end": "on_evaluate",
    "on_predict_batch_end": "on_prediction_step",
    "on_predict_epoch_end": "on_predict",
    "on_predict_end": "on_predict",
    "on_save_checkpoint": "on_save",
    "on_checkpoint": "on_save",
}
"""Events of Lightning, Keras and Ultralytics, with the event that happens at the same time here."""


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
