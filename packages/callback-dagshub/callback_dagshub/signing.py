"""Signs MLflow's requests to DagsHub, and no other requests of this process.

MLflow reads credentials from the environment, and sends them to any server. As an alternative, it
accepts providers of request headers, registered as entry points. `RequestHeaders` provides headers
only in a thread in which a `SignedClient` is making a request.
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
    """Provides MLflow with the headers of a `SignedClient` that is making a request."""

    def in_context(self) -> bool:
        """Return whether there are headers."""
        return bool(_HEADERS.get())

    def request_headers(self) -> dict[str, str]:
        """Return the headers."""
        return dict(_HEADERS.get())


class SignedClient:
    """An `MlflowClient` that adds headers to its requests.

    Args:
        client: The client.
        headers: The headers.
    """

    def __init__(self, client: Any, headers: Mapping[str, str]) -> None:
        self._client = client
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        """Return the client's attribute. A method adds the headers to its requests."""
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def signed(*args: Any, **kwargs: Any) -> Any:
            token = _HEADERS.set(self._headers)
            try:
                return found(*args, **kwargs)
            finally:
                _HEADERS.reset(token)

        return signed
