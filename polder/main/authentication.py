"""From the configuration of authentication, and the files it names, to the API server's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, assert_never

from polder.apiserver.authn import Anonymous, CredentialError
from polder.apiserver.authn_build import (
    AuthnSettings,
    Use,
    UseBootstrapTokens,
    UseCertificates,
    UseFrontProxy,
    UseOidc,
    UsePasswords,
    UseServiceAccounts,
    UseStaticTokens,
    UseWebhook,
)
from polder.apiserver.authn_proxy import ProxySettings
from polder.apiserver.authn_static import parse_passwords, parse_static_tokens
from polder.apiserver.authn_webhook import WebhookSettings
from polder.base.errors import PermanentError
from polder.main import config_authn as config
from polder.main.config_oidc import issuers_of

T = TypeVar("T")


def read_methods(methods: Sequence[config.Method]) -> AuthnSettings:
    """The chain's settings. Raises PermanentError naming the file."""
    found, anonymous = [], Anonymous(enabled=False)
    for method in methods:
        if isinstance(method, config.Anonymous):
            anonymous = Anonymous(paths=tuple(method.paths))
        else:
            found.append(_use(method))
    kinds = [type(m) for m in methods if not isinstance(m, config.TokenFile | config.PasswordFile)]
    if len(set(kinds)) != len(kinds):
        raise PermanentError("configuration: authentication names a method twice")
    return AuthnSettings(tuple(found), anonymous)


def files_of(methods: Sequence[config.Method]) -> tuple[str, ...]:
    """The files that methods name."""
    named: list[str] = []
    for method in methods:
        if isinstance(method, config.TokenFile | config.PasswordFile):
            named.append(method.file)
        elif isinstance(method, config.Webhook):
            named += (method.authority_file, method.certificate_file, method.key_file, method.token_file)
    return tuple(name for name in named if name)


def _use(method: config.Method) -> Use:
    match method:
        case config.Certificate():
            return UseCertificates()
        case config.ServiceAccount():
            return UseServiceAccounts()
        case config.BootstrapToken():
            return UseBootstrapTokens()
        case config.TokenFile(file=file):
            return UseStaticTokens(_parse(file, parse_static_tokens))
        case config.PasswordFile(file=file):
            return UsePasswords(_parse(file, parse_passwords))
        case config.FrontProxy():
            return UseFrontProxy(_proxy(method))
        case config.OpenIdConnect():
            return UseOidc(issuers_of(method))
        case config.Webhook():
            return UseWebhook(_webhook(method))
        case config.Anonymous():
            raise AssertionError("is no link of the chain")
    assert_never(method)


def _parse(file: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(Path(file).read_text())
    except OSError as error:
        raise PermanentError(f"configuration: authentication file {file}: {error.strerror}") from error
    except (CredentialError, UnicodeDecodeError) as error:
        raise PermanentError(f"{file}: {error}") from error


def _proxy(method: config.FrontProxy) -> ProxySettings:
    if not method.allowed_names:
        raise PermanentError("configuration: authentication FrontProxy needs allowedNames: whom to believe")
    return ProxySettings(
        frozenset(method.allowed_names),
        method.username_headers,
        method.uid_headers,
        method.group_headers,
        method.extra_header_prefixes,
    )


def _webhook(method: config.Webhook) -> WebhookSettings:
    if not method.url.startswith("https://"):
        raise PermanentError(f"configuration: authentication Webhook url {method.url!r} is no https URL")
    return WebhookSettings(
        method.url,
        _text(method.authority_file),
        method.certificate_file,
        method.key_file,
        _text(method.token_file).strip(),
        method.cache_seconds,
        method.timeout_seconds,
        method.tenant,
    )


def _text(file: str) -> str:
    return _parse(file, str) if file else ""
