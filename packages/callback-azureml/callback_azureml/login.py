"""Who the user is to Azure, found without asking a person."""

from __future__ import annotations

import sys
from typing import Any, Final

from callback_core import NotConfigured

_NOBODY: Final = (
    "Nobody is logged in to Azure, and AzureMLCallback does not let Azure's SDK ask, since a "
    "training may have no one to answer. Call: az login, or set the variables of azure-identity, "
    "AZURE_CLIENT_ID and so on."
)


def check_logged_in(client: Any) -> None:
    """Do nothing where Azure's plugin gets a token for this client without asking a person.

    Otherwise it would open a browser, or print a code in the terminal, and wait.

    Raises:
        NotConfigured: Nobody is logged in.
        azure.core.exceptions.ClientAuthenticationError: Azure refuses who is, or is away.
    """
    identity = sys.modules["azure.identity"]  # which the plugin has imported
    try:  # where the plugin looks for them itself
        workspace = client._tracking_client.store.service_context  # noqa: SLF001
        login, scope = workspace.auth, workspace.cloud._get_default_scope()  # noqa: SLF001
    except AttributeError:
        return  # another version, which is left to ask
    if not isinstance(login, identity.ChainedTokenCredential):
        return  # the token of a job, or what the user has chosen
    asking = (identity.InteractiveBrowserCredential, identity.DeviceCodeCredential)
    if any(isinstance(way, asking) and way._auth_record for way in login.credentials):  # noqa: SLF001
        return  # somebody has answered in this process already
    silent = [way for way in login.credentials if not isinstance(way, asking)]
    nobody = _Nobody()
    try:
        identity.ChainedTokenCredential(*silent, nobody).get_token(scope)
    except sys.modules["azure.core.exceptions"].ClientAuthenticationError as error:
        if nobody.is_reached:
            raise NotConfigured(_NOBODY) from error
        raise


class _Nobody:
    """Stands in a chain of credentials after those that ask no one, and has no token either.

    Attributes:
        is_reached: Whether none of those before it is set up.
    """

    def __init__(self) -> None:
        self.is_reached = False

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Note that it is asked, and say that it cannot tell."""
        self.is_reached = True
        raise sys.modules["azure.identity"].CredentialUnavailableError("nobody is logged in")
