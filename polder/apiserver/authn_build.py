"""The chain of authentication, built from settings: which methods there are, and in which order they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from polder.apiserver.authn import Anonymous, Authenticator
from polder.apiserver.authn_bootstrap import BootstrapTokens
from polder.apiserver.authn_method import Method
from polder.apiserver.authn_proxy import FrontProxy, ProxySettings
from polder.apiserver.authn_static import Passwords, StaticTokens, StaticUser
from polder.apiserver.authn_webhook import Webhook, WebhookSettings
from polder.apiserver.authn_x509 import Certificates
from polder.apiserver.oidc import Issuer, Oidc
from polder.apiserver.tenancy import Tenants
from polder.apiserver.tokens import AUDIENCE, Tokens
from polder.base.clock import Clock
from polder.store.protocol import Store
from polder.system.pki import Pki


@dataclass(frozen=True, slots=True)
class UseCertificates:
    """Client certificates of the cluster's own authorities."""


@dataclass(frozen=True, slots=True)
class UseServiceAccounts:
    """Tokens of service accounts."""


@dataclass(frozen=True, slots=True)
class UseBootstrapTokens:
    """Bootstrap tokens."""


@dataclass(frozen=True, slots=True)
class UseStaticTokens:
    """A token file, read (``authn_static.parse_static_tokens``)."""

    users: Mapping[bytes, StaticUser] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UsePasswords:
    """A password file, read (``authn_static.parse_passwords``)."""

    users: Mapping[str, tuple[str, StaticUser]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UseFrontProxy:
    """A proxy that says in headers who asks."""

    proxy: ProxySettings


@dataclass(frozen=True, slots=True)
class UseOidc:
    """Tokens of OpenID Connect issuers."""

    issuers: tuple[Issuer, ...]


@dataclass(frozen=True, slots=True)
class UseWebhook:
    """A service that answers TokenReviews."""

    webhook: WebhookSettings = field(repr=False)


Use = (
    UseCertificates
    | UseServiceAccounts
    | UseBootstrapTokens
    | UseStaticTokens
    | UsePasswords
    | UseFrontProxy
    | UseOidc
    | UseWebhook
)


@dataclass(frozen=True, slots=True)
class AuthnSettings:
    """The methods in their order."""

    methods: tuple[Use, ...] = (UseCertificates(), UseServiceAccounts(), UseBootstrapTokens())
    anonymous: Anonymous = field(default_factory=Anonymous)


@dataclass(frozen=True, slots=True)
class Known:
    """What methods look things up in."""

    store: Store
    pki: Pki
    tenants: Tenants
    tokens: Tokens
    clock: Clock

    def chain(self, settings: AuthnSettings) -> Authenticator:
        """The authenticator."""
        return Authenticator([self.method(use) for use in settings.methods], settings.anonymous)

    def method(self, use: Use) -> Method:
        """One method."""
        match use:
            case UseCertificates():
                return Certificates(self.pki, self.store, self.tenants, self.clock)
            case UseServiceAccounts():
                return self.tokens
            case UseBootstrapTokens():
                return BootstrapTokens(self.store, self.clock, AUDIENCE)
            case UseStaticTokens(users):
                return StaticTokens(users, self.tenants, AUDIENCE)
            case UsePasswords(passwords):
                return Passwords(passwords, self.tenants, self.clock)
            case UseFrontProxy(proxy):
                return FrontProxy(proxy, self.pki, self.clock)
            case UseOidc(issuers):
                return Oidc(issuers, self.tenants, self.clock, AUDIENCE)
            case UseWebhook(webhook):
                return Webhook(webhook, self.tenants, self.clock, AUDIENCE)
        assert_never(use)
