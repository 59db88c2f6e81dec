"""What a client certificate says of its holder, and the names that certificates carry."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from polder.base.ids import ROOT, TenantName
from polder.system.pki.files import PkiError

SERVING: Final = "serving"
CLIENTS: Final = "clients"
AGENTS: Final = "agents"
FRONT_PROXY: Final = "front-proxy"

PLATFORM_ADMINS: Final = "polder:platform-admins"
TENANT_ADMINS: Final = "polder:tenant-admins"
COMPONENTS: Final = "polder:components"
RESERVED: Final = "polder:"
"""How the groups begin that only Polder gives out."""
NODES: Final = "system:nodes"
NODE_PREFIX: Final = "system:node:"
URN: Final = "urn:polder:tenant:"
ROOT_URN: Final = f"{URN}{ROOT}"


def tenant_urn(name: TenantName, uid: str) -> str:
    """The URI that ties a certificate to one tenant, and not to a successor of the same name."""
    return ROOT_URN if name == ROOT else f"{URN}{name}:{uid}"


@dataclass(frozen=True, slots=True)
class ClientName:
    """What a client certificate says of its holder; times in UTC. ``uris`` and ``addresses`` are all of its subject
    alternative names of these types. ``key`` is the SHA-256 of its public key (SubjectPublicKeyInfo) in hexadecimal digits.
    """

    common_name: str
    organizations: tuple[str, ...]
    uris: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    addresses: tuple[str, ...] = ()
    key: str = ""


@lru_cache(maxsize=4096)
def parse_client(der: bytes) -> ClientName:
    """Reads a client certificate that TLS has already verified. Raises PkiError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        common, organizations = subject_of(certificate.subject)
        uris, addresses = uris_of(certificate.extensions), addresses_of(certificate.extensions)
        key = key_mark(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"the client certificate cannot be read: {error}") from error
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return ClientName(common, organizations, uris, begin, end, addresses, key)


def subject_of(subject: x509.Name) -> tuple[str, tuple[str, ...]]:
    """The one common name (empty where there is none or several), and the organizations."""
    common = [_text(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = tuple(_text(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return common[0] if len(common) == 1 else "", organizations


def uris_of(extensions: x509.Extensions) -> tuple[str, ...]:
    """The URIs among the subject alternative names."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def addresses_of(extensions: x509.Extensions) -> tuple[str, ...]:
    """The IP addresses among the subject alternative names."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))


def key_mark(key: CertificatePublicKeyTypes) -> str:
    """The SHA-256 of a public key, in hexadecimal digits."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
