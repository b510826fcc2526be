"""Reads the user's credentials from DagsHub's and MLflow's own settings, without prompting.

The SDK's own functions open a browser and wait if there is no token, and delete the user's login if
DagsHub answers with an error. This module therefore only reads the token that the SDK stored.
"""

from __future__ import annotations

import os
from base64 import b64encode
from importlib import import_module
from typing import Any, NamedTuple

from callback_core import NotConfigured
from callback_core.tracking import import_sdk
from callback_dagshub.repository import Repository, dagshub_host, from_address


class Login(NamedTuple):
    """A user name and a password."""

    username: str
    password: str


def import_dagshub(module: str) -> Any:
    """Return a module of DagsHub's SDK.

    Args:
        module: Its name, without the leading `dagshub.`.

    Raises:
        ModuleNotFoundError: The SDK is not installed.
    """
    import_sdk("dagshub", install="dagshub", needed_by="DagsHubCallback")
    return import_module(f"dagshub.{module}")


def check_mlflow_variables(repository: Repository) -> None:
    """Refuse credentials in the environment that belong to another MLflow server.

    Raises:
        ValueError: MLflow would send such credentials to DagsHub.
    """
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    given = [name for name in names if os.environ.get(name)]
    if uri and given and from_address(uri) != repository:
        raise ValueError(
            f"MLFLOW_TRACKING_URI names another server than {repository.url}, but MLflow would "
            f"send {' and '.join(given)} to both. Unset these to log to DagsHub."
        )


def token_of(repository: Repository) -> str | None:
    """Return the user's token: `DAGSHUB_USER_TOKEN`, or the one that `dagshub login` stored."""
    given = os.environ.get("DAGSHUB_USER_TOKEN")
    if given and repository.host == dagshub_host():  # never send it to another host
        return given
    kept = import_dagshub("auth.tokens").TokenStorage()._load_cache_file()  # noqa: SLF001
    valid = [token for token in kept.get(repository.host, []) if not token.is_expired]
    return min(valid, key=lambda token: token.priority).token_text if valid else None


def mlflow_login() -> Login | None:
    """Return the name and password that MLflow reads from the environment or from its own file."""
    found = import_sdk(
        "mlflow.utils.credentials", install="mlflow", needed_by="DagsHubCallback"
    ).read_mlflow_creds()
    return Login(*found) if found.username and found.password else None


def headers_for_mlflow(repository: Repository) -> dict[str, str]:
    """Return the headers that sign a request; none if MLflow has its own credentials.

    Raises:
        NotConfigured: There is no token.
        RuntimeError: DagsHub rejects the token.
    """
    if mlflow_login() is not None or os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {}
    token = token_of(repository)
    if token is None:
        raise _no_token(repository)
    signature = b64encode(f"{_username_of(token, repository)}:{token}".encode()).decode()
    return {"Authorization": f"Basic {signature}"}


def make_uploader(repository: Repository, branch: str | None) -> Any:
    """Return DagsHub's `Repo`, which commits files to a branch.

    Raises:
        NotConfigured: There is neither a token nor an MLflow login.
    """
    token, login = token_of(repository), mlflow_login()
    if token is not None:
        credentials = {"token": token}
    elif login is not None:
        credentials = login._asdict()
    else:
        raise _no_token(repository)
    config, upload = import_dagshub("common.config"), import_dagshub("upload")
    previous_host = config.host
    config.set_host(repository.host)  # the constructor of Repo copies the global host
    try:
        return upload.Repo(repository.owner, repository.name, branch=branch, **credentials)
    finally:
        config.set_host(previous_host)


def _username_of(token: str, repository: Repository) -> str:
    """Return the name of the token's user.

    Raises:
        RuntimeError: DagsHub rejects the token.
    """
    http_request = import_dagshub("common.helpers").http_request
    auth = import_dagshub("auth.token_auth").HTTPBearerAuth(token)
    # The SDK uses DAGSHUB_HTTP_TIMEOUT as a number, but reads it as a string.
    timeout = float(import_dagshub("common.config").http_timeout)
    answer = http_request("GET", f"{repository.host}/api/v1/user", auth=auth, timeout=timeout)
    if answer.status_code in (401, 403):
        raise RuntimeError(
            f"{repository.host} rejected the token. Set DAGSHUB_USER_TOKEN to another one, or run "
            "`dagshub login`."
        )
    answer.raise_for_status()
    return str(answer.json()["username"])


def _no_token(repository: Repository) -> NotConfigured:
    variable = "" if repository.host == dagshub_host() else " with DAGSHUB_CLIENT_HOST"
    return NotConfigured(
        f"{repository.host} needs a token: set DAGSHUB_USER_TOKEN{variable}, or run `dagshub login`"
    )
