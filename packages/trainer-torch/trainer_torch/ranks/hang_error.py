"""`HangError`: what ends a training whose ranks hang or are lost."""

from __future__ import annotations


class HangError(RuntimeError):
    """The training ends because a rank hangs, has failed or is lost."""
