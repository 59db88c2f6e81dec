"""TLS contexts, and the pin of an authority."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from polder.system.pki.files import Leaf, PkiError


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
    try:
        key = x509.load_pem_x509_certificates(pem)[0].public_key()
    except (ValueError, IndexError) as error:
        raise PkiError(f"the authority cannot be read: {error}") from error
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"
