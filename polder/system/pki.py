"""Certificates and signing keys: the only file that imports ``cryptography``.

Two authorities, so that neither can stand in for the other: ``serving`` signs what servers show, ``clients`` what
callers show. Keys are P-256; authorities last ten years, leaves ninety days. Everything written is mode 0600 and
replaced atomically.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polder.base.errors import PermanentError

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
SKEW = timedelta(minutes=5)
"""How far back a certificate begins, for machines whose clock is behind."""
KEY_SIZE = 32
"""Bytes of one P-256 coordinate."""


class PkiError(PermanentError):
    """A certificate or key that cannot be read or used."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, certificate: Path, key: Path) -> None:
        """Writes both files, 0600, each atomically; the key first."""
        write_private(key, self.key)
        write_private(certificate, self.certificate)


@dataclass(frozen=True, slots=True)
class ClientName:
    """What a client certificate says of its holder; ``not_after`` in UTC."""

    common_name: str
    organizations: tuple[str, ...]
    uris: tuple[str, ...]
    not_after: datetime


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` with ``content``, mode 0600, durable, never seen half written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@lru_cache(maxsize=4096)
def parse_client(der: bytes) -> ClientName:
    """Reads a client certificate that TLS has already verified. Raises PkiError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject
        common = [_text(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        organizations = tuple(_text(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        except x509.ExtensionNotFound:
            uris = ()
    except ValueError as error:
        raise PkiError(f"the client certificate cannot be read: {error}") from error
    return ClientName(common[0] if len(common) == 1 else "", organizations, uris, certificate.not_valid_after_utc)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Authority:
    """A certificate authority: its certificate (PEM) and the key that signs leaves."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            private = serialization.load_pem_private_key(key, None)
        except ValueError as error:
            raise PkiError(f"the authority cannot be read: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise PkiError("the authority's key is not an elliptic-curve key")
        self._key = private
        self.certificate = certificate

    def issue(self, subject: x509.Name, names: list[x509.GeneralName], usage: x509.ObjectIdentifier) -> Leaf:
        """A leaf of ninety days with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = _builder(subject, self._certificate.subject, key.public_key(), now - SKEW, now + LEAF_LIFE)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Leaf(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


class Pki:
    """The cluster's authorities, kept in ``directory``."""

    def __init__(self, directory: Path, serving: Authority, clients: Authority) -> None:
        self.directory = directory
        self.serving = serving
        self.clients = clients

    @property
    def serving_ca(self) -> Path:
        """The file that clients trust servers by."""
        return self.directory / "serving-ca.crt"

    @property
    def clients_ca(self) -> Path:
        """The file that servers trust clients by."""
        return self.directory / "clients-ca.crt"

    def issue_serving(self, names: Iterable[str], ips: Iterable[str]) -> Leaf:
        """A server's certificate for DNS names and addresses; the first of them is its common name."""
        dns, addresses = list(names), [ipaddress.ip_address(ip) for ip in ips]
        general: list[x509.GeneralName] = [*map(x509.DNSName, dns), *map(x509.IPAddress, addresses)]
        if not general:
            raise PkiError("a serving certificate needs a name or an address")
        common = dns[0] if dns else str(addresses[0])
        return self.serving.issue(_subject(common, ()), general, ExtendedKeyUsageOID.SERVER_AUTH)

    def issue_client(self, common_name: str, organizations: Iterable[str], tenant_uri: str = "") -> Leaf:
        """A caller's certificate. ``tenant_uri`` (``urn:polder:tenant:…``) ties it to one tenant."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(tenant_uri)] if tenant_uri else []
        subject = _subject(common_name, tuple(organizations))
        return self.clients.issue(subject, names, ExtendedKeyUsageOID.CLIENT_AUTH)


def ensure_pki(directory: Path) -> Pki:
    """Loads the authorities below ``directory``, making those that are missing. Idempotent. Raises PkiError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Pki(directory, _ensure_authority(directory, "serving"), _ensure_authority(directory, "clients"))


def _ensure_authority(directory: Path, name: str) -> Authority:
    certificate, key = directory / f"{name}-ca.crt", directory / f"{name}-ca.key"
    if not certificate.exists():
        _new_authority(f"polder-{name}").write(certificate, key)
    if not key.exists():
        raise PkiError(f"{key} is missing beside {certificate.name}")
    return Authority(certificate.read_bytes(), key.read_bytes())


def _new_authority(name: str) -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = _subject(name, ()), datetime.now(UTC)
    builder = (
        _builder(subject, subject, key.public_key(), now - SKEW, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Leaf(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, organizations: tuple[str, ...]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Jwk:
    """The public half of a signing key as RFC 7517 says it."""

    kid: str
    x: str
    y: str


class SigningKey:
    """ES256 (RFC 7518, 3.4): P-256 with SHA-256, signatures as two 32-byte numbers."""

    def __init__(self, pem: bytes) -> None:
        try:
            private = serialization.load_pem_private_key(pem, None)
        except ValueError as error:
            raise PkiError(f"the signing key cannot be read: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise PkiError("the signing key is not a P-256 key")
        self._private = private
        self._public = private.public_key()
        self.jwk = _jwk(self._public)

    @staticmethod
    def generate() -> bytes:
        """A new key, PEM."""
        return _key_pem(ec.generate_private_key(ec.SECP256R1()))

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        r, s = utils.decode_dss_signature(self._private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(KEY_SIZE, "big") + s.to_bytes(KEY_SIZE, "big")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``."""
        if len(signature) != 2 * KEY_SIZE:
            return False
        r, s = int.from_bytes(signature[:KEY_SIZE], "big"), int.from_bytes(signature[KEY_SIZE:], "big")
        try:
            self._public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def _jwk(key: ec.EllipticCurvePublicKey) -> Jwk:
    numbers = key.public_numbers()
    x, y = (_b64(n.to_bytes(KEY_SIZE, "big")) for n in (numbers.x, numbers.y))
    thumbprint = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'  # RFC 7638: members in this order
    return Jwk(_b64(hashlib.sha256(thumbprint.encode()).digest()), x, y)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def server_context(leaf: Leaf, client_ca: Path) -> ssl.SSLContext:
    """A TLS server's context that asks for a client certificate but does not need one.

    OpenSSL's binding reads keys from files only, so the pair stands in a private directory for a moment.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix=".leaf.", dir=client_ca.parent) as directory:
        certificate, key = Path(directory) / "crt", Path(directory) / "key"
        leaf.write(certificate, key)
        context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
