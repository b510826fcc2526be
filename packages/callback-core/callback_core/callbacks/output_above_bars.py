"""`OutputAboveBars`: writes what others print above tqdm's bars, so that no line tears them."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from threading import get_ident
from typing import Any


class OutputAboveBars:
    """Replaces `sys.stdout` and `sys.stderr` where they are terminals, until `end`.

    SDKs print and log while a training shows its bar, from other threads too. Whole lines appear
    above the bars. The handlers of loggers that write to these streams are included.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty() and not isinstance(stream, _Stream):
                self._streams[name] = _Stream(stream)
                setattr(sys, name, self._streams[name])
        originals = {stream.original: stream for stream in self._streams.values()}
        for handler in _stream_handlers():
            if handler.stream in originals:
                self._handlers.append((handler, handler.stream))
                handler.setStream(originals[handler.stream])

    def end(self) -> None:
        """Restore the streams, unless the program has replaced them since."""
        for name, stream in self._streams.items():
            stream.end()
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.original)
        for handler, before in self._handlers:
            if isinstance(handler.stream, _Stream):
                handler.setStream(before)


class _Stream:
    """Writes whole lines above the bars. The rest of a line waits for its end or for `flush`.

    Args:
        original: The terminal.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self._begun = ""  # a line without its end
        self._ended = False
        self._process = os.getpid()
        self._writer: int | None = None  # the thread that writes now

    def write(self, text: str) -> int:
        if self._ended or self._is_drawing():
            self.original.write(text)
        else:
            with self._lock():
                self._write_whole_lines(text)
        return len(text)

    def flush(self) -> None:
        """Show what waits instead of the bars, until they are drawn again. It may be a question."""
        if self._begun and not (self._ended or self._is_drawing()):
            with self._lock():
                self._clear_bars()
                self.original.write(self._begun)
        self.original.flush()

    def _is_drawing(self) -> bool:
        """Return whether tqdm draws, which holds its lock meanwhile, or this writes already."""
        if self._is_inherited():
            return False
        lock = _lock_of_bars()
        holds = getattr(getattr(lock, "th_lock", lock), "_is_owned", lambda: True)
        return self._writer == get_ident() or holds()

    def _is_inherited(self) -> bool:
        """Return whether this process was forked, as a worker is.

        Its copies of the bars are out of date, and nobody may ever release its copy of their lock.
        """
        return self._process != os.getpid()

    def _lock(self) -> Any:
        return nullcontext() if self._is_inherited() else _lock_of_bars()

    def _write_whole_lines(self, text: str) -> None:
        if "\r" in text:
            begun, self._begun = self._begun, ""
            self.original.write(begun + text)
            return
        lines, end, self._begun = (self._begun + text).rpartition("\n")
        if not end:
            return
        if self._is_inherited():
            self._clear_bars()
            self.original.write(lines + end)
            return
        from tqdm import tqdm

        self._writer = get_ident()
        try:
            with tqdm.external_write_mode(file=self, nolock=True):
                self.original.write(lines + end)
        finally:
            self._writer = None

    def _clear_bars(self) -> None:
        if self._is_inherited():
            self.original.write("\r\x1b[K")  # the line of the cursor
            return
        from tqdm import tqdm

        for bar in list(getattr(tqdm, "_instances", ())):
            if hasattr(bar, "start_t"):
                bar.clear(nolock=True)

    def end(self) -> None:
        """Write what waits, and write through from now on: a logger may still have this stream."""
        self._ended = True
        begun, self._begun = self._begun, ""
        self.original.write(begun)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def _lock_of_bars() -> Any:
    from tqdm import tqdm

    return tqdm.get_lock()


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(one for one in known if isinstance(one, logging.Logger))]
    handlers = {id(handler): handler for logger in loggers for handler in logger.handlers}
    return [one for one in handlers.values() if isinstance(one, logging.StreamHandler)]
