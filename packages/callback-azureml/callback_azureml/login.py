"""Checks for an Azure login without prompting the user."""

from __future__ import annotations

import sys
from typing import Any, Final

from callback_core import NotConfigured

_NOT_LOGGED_IN: Final = (
    "Azure needs a login. AzureMLCallback does not prompt for one, because a training may run "
    "unattended. Run `az login`, or set the variables of azure-identity, such as AZURE_CLIENT_ID."
)


def check_logged_in(client: Any) -> None:
    """Check that Azure's plugin can get a token for this client without prompting.

    Without a login, the plugin opens a browser, or prints a code in the terminal, and waits.

    Args:
        client: An `MlflowClient` that the plugin serves.

    Raises:
        NotConfigured: There is no login.
        azure.core.exceptions.ClientAuthenticationError: Azure rejects the login, or is unreachable.
    """
    identity = sys.modules["azure.identity"]  # the plugin has imported it
    try:  # the plugin keeps its credentials here
        workspace = client._tracking_client.store.service_context  # noqa: SLF001
        login, scope = workspace.auth, workspace.cloud._get_default_scope()  # noqa: SLF001
    except AttributeError:
        return  # an unknown version of the plugin; let it prompt
    if not isinstance(login, identity.ChainedTokenCredential):
        return  # a job's token, or the user's own credential
    interactive = (identity.InteractiveBrowserCredential, identity.DeviceCodeCredential)
    credentials = login.credentials
    if any(isinstance(one, interactive) and one._auth_record for one in credentials):  # noqa: SLF001
        return  # the user has already logged in interactively in this process
    silent = [one for one in credentials if not isinstance(one, interactive)]
    end = _EndOfChain()
    try:
        identity.ChainedTokenCredential(*silent, end).get_token(scope)
    except sys.modules["azure.core.exceptions"].ClientAuthenticationError as error:
        if end.is_reached:
            raise NotConfigured(_NOT_LOGGED_IN) from error
        raise


class _EndOfChain:
    """Ends a chain of credentials, in place of the interactive ones. It never has a token.

    Attributes:
        is_reached: Whether the chain has tried it, so that no credential before it is set up.
    """

    def __init__(self) -> None:
        self.is_reached = False

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Note the call, and raise the error of a credential that is not set up."""
        self.is_reached = True
        raise sys.modules["azure.identity"].CredentialUnavailableError("there is no login")
