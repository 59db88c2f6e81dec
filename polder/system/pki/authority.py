"""One authority: the pair that signs, and the certificates that are trusted beside it while it is rolled over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from polder.system.pki.files import Leaf, PkiError
from polder.system.pki.leaves import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    SKEW,
    certificate_pem,
    key_of,
    key_pem,
    key_usage,
    make_subject,
    new_key,
    usages_of,
    utc_now,
)
from polder.system.pki.requests import Request


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a leaf shall say. ``usages`` in the words of certificates.k8s.io/v1."""

    subject: x509.Name
    names: Sequence[x509.GeneralName]
    usages: Sequence[str]
    life: timedelta = LEAF_LIFE


class Authority:
    """``certificate`` (PEM) and its key sign leaves; ``others`` (PEM) are trusted too."""

    def __init__(self, certificate: bytes, key: bytes, others: Sequence[bytes] = ()) -> None:
        try:
            self._own = x509.load_pem_x509_certificate(certificate)
            self._trusted = [self._own, *map(x509.load_pem_x509_certificate, others)]
        except ValueError as error:
            raise PkiError(f"the authority cannot be read: {error}") from error
        self._key = key_of(key)
        if self._key.public_key() != self._own.public_key():
            raise PkiError("the authority's key is not its certificate's")
        self.certificate = certificate
        self.bundle = b"".join([certificate, *others])

    def issued(self, der: bytes) -> bool:
        """Whether this authority, in any certificate that is trusted now, signed the leaf. Raises PkiError."""
        try:
            leaf = x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise PkiError(f"the certificate cannot be read: {error}") from error
        return any(_signed(leaf, authority) for authority in self._trusted)

    def is_current(self, der: bytes) -> bool:
        """Whether the pair that signs now signed the leaf. Raises PkiError."""
        try:
            return _signed(x509.load_der_x509_certificate(der), self._own)
        except ValueError as error:
            raise PkiError(f"the certificate cannot be read: {error}") from error

    def issue(self, wanted: Wanted) -> Leaf:
        """A leaf with a new key. Raises PkiError."""
        key = new_key()
        return Leaf(self._sign(wanted, key.public_key()), key_pem(key))

    def sign(self, request: Request, wanted: Wanted) -> bytes:
        """A leaf (PEM) for the request's key; what it says, ``wanted`` decides. Raises PkiError."""
        return self._sign(wanted, request.key)

    def _sign(self, wanted: Wanted, key: CertificatePublicKeyTypes) -> bytes:
        usage, extended = usages_of(wanted.usages)
        now, last = utc_now(), self._own.not_valid_after_utc
        builder = (
            x509.CertificateBuilder()
            .subject_name(wanted.subject)
            .issuer_name(self._own.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(min(now + wanted.life, last))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        if extended is not None:
            builder = builder.add_extension(extended, critical=False)
        if wanted.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
        try:
            return certificate_pem(builder.sign(self._key, hashes.SHA256()))
        except ValueError as error:
            raise PkiError(f"the certificate cannot be made: {error}") from error


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def new_authority(name: str) -> Leaf:
    """A self-signed authority. Its common name carries a part of its key, so that two of one name can stand together."""
    key, now = new_key(), utc_now()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = make_subject(f"{name}-{identifier.digest.hex()[:8]}")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage({"digital_signature", "key_cert_sign", "crl_sign"}), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Leaf(certificate_pem(builder.sign(key, hashes.SHA256())), key_pem(key))


def common_name(pem: bytes) -> str:
    """An authority's own name. Raises PkiError."""
    try:
        subject = x509.load_pem_x509_certificate(pem).subject
    except ValueError as error:
        raise PkiError(f"the authority cannot be read: {error}") from error
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
