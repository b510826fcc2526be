"""Signing what MLflow sends to DagsHub, and nothing else that it sends from this process.

MLflow takes credentials from the environment, and sends them to any server. What it offers beside
that are providers of headers for its requests, which it finds by an entry point. Ours provides
headers only while a `SignedClient` is at work, in the thread in which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType
from typing import Any, Final

_HEADERS: Final[ContextVar[Mapping[str, str]]] = ContextVar(
    "callback_dagshub.headers", default=MappingProxyType({})
)


class RequestHeaders:
    """Provides MLflow with the headers of the request that a `SignedClient` is making."""

    def in_context(self) -> bool:
        """Return whether there are any."""
        return bool(_HEADERS.get())

    def request_headers(self) -> dict[str, str]:
        """Return them."""
        return dict(_HEADERS.get())


class SignedClient:
    """An `MlflowClient` whose requests have headers of their own.

    Args:
        client: The client.
        headers: The headers.
    """

    def __init__(self, client: Any, headers: Mapping[str, str]) -> None:
        self._client = client
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        """Return what the client has, where that is a method, so that it is signed."""
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def signed(*args: Any, **kwargs: Any) -> Any:
            before = _HEADERS.set(self._headers)
            try:
                return found(*args, **kwargs)
            finally:
                _HEADERS.reset(before)

        return signed
