"""Who the user is to DagsHub, by DagsHub's and MLflow's own settings. Nobody is ever asked.

The functions of the SDK open a browser and wait where there is no token, and forget the user's
login where DagsHub answers with an error. So what it has kept is only read here.
"""

from __future__ import annotations

import os
from base64 import b64encode
from importlib import import_module
from typing import Any, NamedTuple

from callback_core import NotConfigured
from callback_core.tracking import import_sdk
from callback_dagshub.repository import Repository, at_address, dagshub_host


class Login(NamedTuple):
    """A name and a password."""

    username: str
    password: str


def imported_dagshub(module: str) -> Any:
    """Return a module of DagsHub's SDK.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    import_sdk("dagshub", install="dagshub", needed_by="DagsHubCallback")
    return import_module(f"dagshub.{module}")


def check_mlflow_variables(repository: Repository) -> None:
    """Refuse credentials in the environment that are those of another MLflow server.

    Raises:
        ValueError: MLflow would send them to DagsHub.
    """
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    given = [name for name in names if os.environ.get(name)]
    if uri and given and at_address(uri) != repository:
        raise ValueError(
            f"MLflow sends {' and '.join(given)} to every server, also to {repository.url}, and "
            "MLFLOW_TRACKING_URI names another one. Unset them where a training is sent to DagsHub."
        )


def token_of(repository: Repository) -> str | None:
    """Return the user's token: `DAGSHUB_USER_TOKEN`, or what `dagshub login` has kept."""
    given = os.environ.get("DAGSHUB_USER_TOKEN")
    if given and repository.host == dagshub_host():  # and is for no other
        return given
    kept = imported_dagshub("auth.tokens").TokenStorage()._load_cache_file()  # noqa: SLF001
    valid = [token for token in kept.get(repository.host, []) if not token.is_expired]
    return min(valid, key=lambda token: token.priority).token_text if valid else None


def login_of_mlflow() -> Login | None:
    """Return the name and password that MLflow has of the environment, or of its own file."""
    found = import_sdk(
        "mlflow.utils.credentials", install="mlflow", needed_by="DagsHubCallback"
    ).read_mlflow_creds()
    return Login(*found) if found.username and found.password else None


def headers_for_mlflow(repository: Repository) -> dict[str, str]:
    """Return the headers that sign a request; none where MLflow signs it by itself.

    Raises:
        NotConfigured: There is no token.
        RuntimeError: DagsHub does not take it.
    """
    if login_of_mlflow() is not None or os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {}
    token = token_of(repository)
    if token is None:
        raise _no_token(repository)
    signature = b64encode(f"{_username_of(token, repository)}:{token}".encode()).decode()
    return {"Authorization": f"Basic {signature}"}


def uploader_of(repository: Repository, branch: str | None) -> Any:
    """Return DagsHub's `Repo`, through which files are committed to a branch.

    Raises:
        NotConfigured: There is no token, and no login of MLflow's either.
    """
    token, login = token_of(repository), login_of_mlflow()
    if token is not None:
        who = {"token": token}
    elif login is not None:
        who = login._asdict()
    else:
        raise _no_token(repository)
    config, upload = imported_dagshub("common.config"), imported_dagshub("upload")
    host_of_others = config.host
    config.set_host(repository.host)  # the only way to tell Repo, which keeps it
    try:
        return upload.Repo(repository.owner, repository.name, branch=branch, **who)
    finally:
        config.set_host(host_of_others)


def _username_of(token: str, repository: Repository) -> str:
    """Return whose token it is.

    Raises:
        RuntimeError: DagsHub does not take it, or answers with an error.
    """
    http_request = imported_dagshub("common.helpers").http_request
    auth = imported_dagshub("auth.token_auth").HTTPBearerAuth(token)
    # The SDK takes DAGSHUB_HTTP_TIMEOUT for a number, which it is not.
    timeout = float(imported_dagshub("common.config").http_timeout)
    answer = http_request("GET", f"{repository.host}/api/v1/user", auth=auth, timeout=timeout)
    if answer.status_code in (401, 403):
        raise RuntimeError(
            f"{repository.host} does not take the token. Set DAGSHUB_USER_TOKEN to another one, or "
            "call: dagshub login"
        )
    answer.raise_for_status()
    return str(answer.json()["username"])


def _no_token(repository: Repository) -> NotConfigured:
    variable = "" if repository.host == dagshub_host() else " with DAGSHUB_CLIENT_HOST"
    return NotConfigured(
        f"There is no token for {repository.host}. Set DAGSHUB_USER_TOKEN{variable}, or call: "
        "dagshub login"
    )
