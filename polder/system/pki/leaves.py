"""How long certificates last and what they may be used for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polder.system.pki.files import PkiError

AUTHORITY_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=90)
SKEW: Final = timedelta(minutes=5)
"""How far back a certificate begins, for machines whose clock is behind."""
RENEW_AT: Final = 2 / 3
"""The part of a leaf's life after which it is made anew."""

_KEY_USAGES: Final = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED: Final = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
}
CLIENT_USAGES: Final = ("digital signature", "client auth")
SERVER_USAGES: Final = ("digital signature", "server auth")


def needs_renewal(begin: datetime, end: datetime, now: datetime) -> bool:
    """Whether two thirds of the time between ``begin`` and ``end`` have gone."""
    return now >= begin + (end - begin) * RENEW_AT


def usages_of(names: Iterable[str]) -> tuple[x509.KeyUsage | None, x509.ExtendedKeyUsage | None]:
    """The extensions that usages in the words of certificates.k8s.io/v1 mean; None for one that would be empty, which
    verifiers take for "no use at all". Raises PkiError for a usage that is not signed for: nothing that Polder signs may
    sign further certificates.
    """
    wanted, extended = set(), []
    for name in names:
        if name in _KEY_USAGES:
            wanted.add(_KEY_USAGES[name])
        elif name in _EXTENDED:
            extended.append(_EXTENDED[name])
        else:
            raise PkiError(f"certificates are not signed for the usage {name!r}")
    if "key_agreement" not in wanted and wanted & {"encipher_only", "decipher_only"}:
        raise PkiError("the usages encipher only and decipher only need the usage key agreement")
    return (
        key_usage(wanted) if wanted else None,
        x509.ExtendedKeyUsage(list(dict.fromkeys(extended))) if extended else None,
    )


def key_usage(wanted: Iterable[str]) -> x509.KeyUsage:
    """The extension with these bits set."""
    names = {*_KEY_USAGES.values(), "key_cert_sign", "crl_sign"}
    return x509.KeyUsage(**dict.fromkeys(names, False) | dict.fromkeys(wanted, True))


def make_subject(common_name: str, organizations: Iterable[str] = ()) -> x509.Name:
    """A subject of organizations and one common name."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_of(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Reads an elliptic-curve key. Raises PkiError."""
    try:
        private = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"the key cannot be read: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise PkiError("the key is not an elliptic-curve key")
    return private


def utc_now() -> datetime:
    """Now, by the machine's clock."""
    return datetime.now(UTC)
