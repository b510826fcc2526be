"""A store in memory whose calls fail or wait as a test says: `failing://bucket/run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

Before = Callable[[str, str], None]
"""A function of the name of a call and a path. What it raises, the call raises.

The calls are `put`, `get` and `rm`, and `answer` after all bytes of a `put` are sent."""


class FailingStore(MemoryFileSystem):  # type: ignore[misc, unused-ignore]
    """A file system in memory that tells a function of each call before it is done.

    Attributes:
        before: The function.
    """

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    before: ClassVar[Before]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return super()._strip_protocol(str(path).removeprefix("failing://"))

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        type(self).before("put", rpath)
        super().put_file(lpath, rpath, **kwargs)
        type(self).before("answer", rpath)

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        type(self).before("put", path)
        super().pipe_file(path, value, **kwargs)

    def cat_file(self, path: str, **kwargs: Any) -> bytes:
        type(self).before("get", path)
        return bytes(super().cat_file(path, **kwargs))

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        type(self).before("get", rpath)
        super().get_file(rpath, lpath, **kwargs)

    def rm_file(self, path: str) -> None:
        type(self).before("rm", path)
        super().rm_file(path)

    def rm(self, path: Any, **kwargs: Any) -> None:
        type(self).before("rm", str(path))
        super().rm(path, **kwargs)


def empty_store(before: Before = lambda call, path: None) -> type[FailingStore]:
    """Register and return the store, which is empty then."""
    fsspec.register_implementation("failing", FailingStore, clobber=True)
    FailingStore.store.clear()
    FailingStore.pseudo_dirs[:] = [""]
    FailingStore.before = staticmethod(before)
    return FailingStore


def refusing(call: str, part: str, times: int = 1000) -> Before:
    """Return a function that refuses the first `times` calls for paths that contain `part`.

    Args:
        call: The name of the call.
        part: A part of the path.
        times: How many calls are refused.
    """
    refused: list[str] = []

    def refuse(name: str, path: str) -> None:
        if name == call and part in path and len(refused) < times:
            refused.append(path)
            raise PermissionError(f"{call} of {path} is denied")

    return refuse
