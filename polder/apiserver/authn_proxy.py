"""A front proxy: it has authenticated its caller and says in headers who it was; we believe it by its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from polder.apiserver.authn_method import (
    AUTHENTICATED,
    CredentialError,
    Shown,
    Verified,
    check_groups,
    prefixed,
    values_of,
)
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT
from polder.system.pki import FRONT_PROXY, Pki, PkiError, parse_client

OWN_PREFIX = "system:polder:"
"""How the names of our own proxy's certificates begin, which aggregated APIs see: never believed here, so that an
aggregated API that points back at this server gains nothing."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Whom to believe and by which headers. ``names`` are common names; none is believed that is not there."""

    names: frozenset[str]
    user: tuple[str, ...] = ("X-Remote-User",)
    uid: tuple[str, ...] = ("X-Remote-Uid",)
    group: tuple[str, ...] = ("X-Remote-Group",)
    extra: tuple[str, ...] = ("X-Remote-Extra-",)


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """The method. Its users are the platform's: what they are in a tenant, its members say."""

    settings: ProxySettings
    pki: Pki
    clock: Clock

    async def authenticate(self, shown: Shown) -> Verified | None:
        """The user that the headers name. Without a proxy's certificate they mean nothing."""
        der = shown.connection.certificate
        try:
            if der is None or self.pki.issuer(der) != FRONT_PROXY:
                return None
            name = parse_client(der)
        except PkiError as error:
            raise CredentialError(str(error)) from error
        if self.clock.now() >= name.not_after:
            raise CredentialError("the proxy's certificate is expired")
        if name.common_name not in self.settings.names or name.common_name.startswith(OWN_PREFIX):
            raise CredentialError(f"the proxy {name.common_name} is not believed")
        user = next((v for h in self.settings.user for v in values_of(shown.headers, h) if v), "")
        if not user:
            raise CredentialError(f"the proxy {name.common_name} names no user")
        return Verified(self._identity(shown, user), shown.audiences)

    def _identity(self, shown: Shown, user: str) -> Identity:
        headers = shown.headers
        groups = tuple(v for h in self.settings.group for v in values_of(headers, h) if v)
        check_groups(groups)
        uid = next((v for h in self.settings.uid for v in values_of(headers, h) if v), "")
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self.settings.extra:
            for key, value in prefixed(headers, prefix):
                extra[unquote(key)] = (*extra.get(unquote(key), ()), value)
        added = () if AUTHENTICATED in groups else (AUTHENTICATED,)
        return Identity(user, Role.USER, ROOT, (*groups, *added), uid=uid, extra=extra)
