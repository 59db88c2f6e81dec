"""What the methods of authentication share: what is shown, what was found out, what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from polder.apiserver.tenancy import Tenants
from polder.apiserver.types import Connection, Identity
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.system.pki import RESERVED

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
SYSTEM = "system:"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""Key of an identity's extra: which credential it was."""

NODE_ADDRESSES = "polder.dev/addresses"
"""Key of a node's extra: the addresses that its certificate is for, which are the only ones it may claim."""


class CredentialError(PermanentError):
    """A credential that is not accepted, and why: for the server's log, never for the caller."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows: its connection, its headers, and the bearer token among these (empty if there is none).
    ``audiences`` are those that the caller will take a token for.
    """

    connection: Connection
    headers: Mapping[str, str]
    token: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """Whose a credential is, and for which of the audiences it is good."""

    who: Identity
    audiences: tuple[str, ...]


class Method(Protocol):
    """One way to say who asks."""

    async def authenticate(self, shown: Shown) -> Verified | None:
        """None if nothing of this method is shown. Raises CredentialError for something of it that is not good."""
        ...


@runtime_checkable
class Closable(Protocol):
    """A method that keeps connections."""

    async def close(self) -> None:
        """Ends them."""
        ...


def values_of(headers: Mapping[str, str], name: str) -> list[str]:
    """Every value of a header, whatever the case of its name."""
    return [value for key, value in headers.items() if key.casefold() == name.casefold()]


def prefixed(headers: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    """What follows the prefix in a header's name (in lower case), and its value, for every header that begins so."""
    start = prefix.casefold()
    for key, value in headers.items():
        if key.casefold().startswith(start):
            yield key[len(prefix) :].lower(), value


def check_groups(groups: tuple[str, ...]) -> None:
    """Raises CredentialError for groups that only Polder gives out, by its own certificates."""
    for group in groups:
        if group.casefold().startswith(RESERVED):
            raise CredentialError(f"it claims the group {group}")


async def check_tenant(tenants: Tenants, tenant: TenantName, uid: str) -> None:
    """Raises CredentialError unless the tenant that a credential is tied to lives, with that UID."""
    record = await tenants.get(tenant)
    if record is None or not uid or record.uid != uid or tenant == ROOT:
        raise CredentialError("its tenant is gone")
