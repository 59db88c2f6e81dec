"""TLS contexts, and the pin of an authority."""

from __future__ import annotations

import hmac
import ssl
import tempfile
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from polder.system.pki.caller import key_mark
from polder.system.pki.files import Leaf, PkiError

PIN_PREFIX = "sha256:"


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


def pin_of(pem: bytes) -> str:
    """``sha256:HEX`` over the public key of a certificate (SubjectPublicKeyInfo, DER), as kubeadm writes its pins. Of
    several certificates the first counts. Raises PkiError.
    """
    return f"{PIN_PREFIX}{key_mark(_first(pem).public_key())}"


def pinned(bundle: bytes, pin: str) -> bytes:
    """The certificate (PEM) among several that has the pin. Raises PkiError if none has."""
    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        raise PkiError(f"the authorities cannot be read: {error}") from error
    for certificate in found:
        if hmac.compare_digest(f"{PIN_PREFIX}{key_mark(certificate.public_key())}", pin):
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise PkiError(f"no authority that the server names has the pin {pin}")


def read_times(pem: bytes) -> tuple[datetime, datetime]:
    """When a certificate begins and ends, in UTC. Raises PkiError."""
    certificate = _first(pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _first(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError) as error:
        raise PkiError(f"the certificate cannot be read: {error}") from error
