"""`Work`: a call that runs at once, or in a thread of lower priority than the training."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from trainer_torch.ranks.hang_error import HangError

_POLITE: Final = 5
"""The niceness that is added for a thread that works beside the training."""


class Work:
    """A call of `do`. Its error is kept, and not raised, unless it is a `HangError`.

    Args:
        do: A function without arguments.
        in_thread: Whether to call it in a thread. Otherwise, the constructor calls it.

    Attributes:
        result: What `do` returned.
        error: The error that it raised, if any.

    Raises:
        HangError: The training hangs, and `do` is not called in a thread.
    """

    def __init__(self, do: Callable[[], Any], in_thread: bool) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._do: Callable[[], Any] | None = do
        self._thread: threading.Thread | None = None
        if in_thread:
            # Whoever starts the thread waits for it, so the interpreter need not wait at exit.
            self._thread = threading.Thread(target=self._run_politely, name="save", daemon=True)
            self._thread.start()
        else:
            self._run()

    @property
    def is_done(self) -> bool:
        """Whether it has ended, with a result or an error."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self, patience: float | None = None, tell: Callable[[], None] | None = None) -> None:
        """Wait for the end. After `patience` seconds, call `tell` and wait on, or return."""
        if self._thread is None:
            return
        self._thread.join(patience)
        if tell is not None and self._thread.is_alive():
            tell()
            self._thread.join()

    def _run_politely(self) -> None:
        # On Linux, this sets the priority of one thread. Elsewhere, it would be the whole process.
        if sys.platform == "linux":
            thread = threading.get_native_id()
            with suppress(OSError):  # then it only slows the training more
                niceness = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness + _POLITE))
        self._run()

    def _run(self) -> None:
        assert self._do is not None
        try:
            self.result = self._do()
        except HangError:  # raised in the thread of the training only, which then ends
            raise
        except Exception as error:
            self.error = error
        finally:
            self._do = None  # this frees the values that it has written
