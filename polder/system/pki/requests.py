"""Certificate signing requests (RFC 2986): made by agents, read and checked where they are signed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from polder.system.pki.caller import addresses_of, key_mark, subject_of, uris_of
from polder.system.pki.files import Leaf, PkiError
from polder.system.pki.leaves import key_of, key_pem, make_subject, new_key

REQUEST_LIMIT = 64 * 1024
"""Bytes of a request that is looked at."""
RSA_BITS = range(2048, 8193)
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a request asks for, its signature checked. ``addresses`` are canonical IP addresses."""

    common_name: str
    organizations: tuple[str, ...]
    dns: tuple[str, ...]
    addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    subject: x509.Name
    key: CertificatePublicKeyTypes

    @property
    def key_mark(self) -> str:
        """The SHA-256 of the key, as ``ClientName.key``."""
        return key_mark(self.key)


def new_request(
    common_name: str, organizations: Iterable[str], addresses: Iterable[str] = (), key: bytes = b""
) -> Leaf:
    """A request (as ``certificate``) and the key it is for: ``key`` (PEM), or a new one. Raises PkiError."""
    private = key_of(key) if key else new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(make_subject(common_name, organizations))
    names = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    request = builder.sign(private, hashes.SHA256())
    return Leaf(request.public_bytes(serialization.Encoding.PEM), key_pem(private))


def read_request(pem: bytes) -> Request:
    """Reads a request and checks that its sender holds the key, and that the key is strong. Raises PkiError."""
    if len(pem) > REQUEST_LIMIT:
        raise PkiError("the certificate request is too long")
    try:
        request = x509.load_pem_x509_csr(pem)
        good = request.is_signature_valid
        key = request.public_key()
        common, organizations = subject_of(request.subject)
        extensions = request.extensions
        uris = uris_of(extensions)
        addresses = addresses_of(extensions)
        dns, emails = _names(extensions)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as error:
        raise PkiError(f"the certificate request cannot be read: {error}") from error
    if not good:
        raise PkiError("the certificate request is not signed with its own key")
    _check_key(key)
    return Request(common, organizations, dns, addresses, emails, uris, request.subject, key)


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    return tuple(names.get_values_for_type(x509.DNSName)), tuple(names.get_values_for_type(x509.RFC822Name))


def _check_key(key: CertificatePublicKeyTypes) -> None:
    """Checking a signature must stay cheap and its meaning certain."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise PkiError(f"an RSA key of {key.key_size} bits is not signed for")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise PkiError(f"a key on the curve {key.curve.name} is not signed for")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise PkiError("a key of this kind is not signed for")
