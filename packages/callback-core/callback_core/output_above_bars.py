"""`OutputAboveBars`: writes what others print above tqdm's bars, so that no line tears them."""

from __future__ import annotations

import logging
import sys
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
    """Writes whole lines above the bars. The rest of a line waits for its end.

    Args:
        original: The terminal.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self._begun = ""  # a line without its end
        self._ended = False
        self._writer: int | None = None  # the thread that writes now

    def write(self, text: str) -> int:
        from tqdm import tqdm

        lock = tqdm.get_lock()
        # tqdm holds its lock while it draws.
        is_drawing = getattr(getattr(lock, "th_lock", lock), "_is_owned", lambda: True)()
        if self._ended or is_drawing or self._writer == get_ident() or "\r" in text:
            self.original.write(text)
            return len(text)
        with lock:
            lines, end, rest = (self._begun + text).rpartition("\n")
            self._begun = rest
            if end:
                self._writer = get_ident()
                try:
                    with tqdm.external_write_mode(file=self, nolock=True):
                        self.original.write(lines + end)
                finally:
                    self._writer = None
        return len(text)

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


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(one for one in known if isinstance(one, logging.Logger))]
    handlers = {id(handler): handler for logger in loggers for handler in logger.handlers}
    return [one for one in handlers.values() if isinstance(one, logging.StreamHandler)]
