"""Signing keys and JSON Web Keys: our own ES256, and what issuers of others sign with (RFC 7515, 7517, 7518, 8037)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from polder.system.pki.files import PkiError
from polder.system.pki.leaves import key_of, key_pem, new_key
from polder.system.pki.requests import RSA_BITS

KEY_SIZE: Final = 32
"""Bytes of one P-256 coordinate."""
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, str, int]]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
    "P-521": (ec.SECP521R1(), "ES512", 66),
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS: Final = frozenset({*_RSA, "ES256", "ES384", "ES512", "EdDSA"})


@dataclass(frozen=True, slots=True)
class Jwk:
    """The public half of a P-256 signing key as RFC 7517 says it."""

    kid: str
    x: str
    y: str


class SigningKey:
    """ES256 (RFC 7518, 3.4): P-256 with SHA-256, signatures as two 32-byte numbers."""

    def __init__(self, pem: bytes) -> None:
        self._private = key_of(pem)
        if self._private.curve.name != "secp256r1":
            raise PkiError("the signing key is not a P-256 key")
        self._public = self._private.public_key()
        self.jwk = _jwk(self._public)

    @staticmethod
    def generate() -> bytes:
        """A new key, PEM."""
        return key_pem(new_key())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        r, s = utils.decode_dss_signature(self._private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(KEY_SIZE, "big") + s.to_bytes(KEY_SIZE, "big")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``."""
        return _verify_ec(self._public, "256", KEY_SIZE, message, signature)


class PublicKey:
    """A key of somebody else, out of a JWK Set. It verifies only the algorithms that its type is for, whatever a token's
    header says.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Raises PkiError for a key that cannot be used to check signatures."""
        try:
            self._key, algorithms, self._size = _read(raw)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise PkiError(f"the JSON Web Key cannot be read: {error}") from error
        named = raw.get("alg")
        if raw.get("use", "sig") != "sig" or (named is not None and named not in algorithms):
            raise PkiError("the JSON Web Key is not for signatures")
        self.algorithms = frozenset({named}) if named is not None else algorithms

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message`` by that algorithm."""
        if algorithm not in self.algorithms:
            return False
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return _verify_ec(self._key, algorithm[2:], self._size, message, signature)
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                digest = _HASHES[algorithm[2:]]
                self._key.verify(signature, message, _padding(algorithm, digest), digest)
        except InvalidSignature:
            return False
        return True


def _padding(algorithm: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if algorithm.startswith("PS"):
        return padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def _read(
    raw: Mapping[str, Any],
) -> tuple[rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, frozenset[str], int]:
    kind = raw["kty"]
    if kind == "RSA":
        key = rsa.RSAPublicNumbers(_number(raw["e"]), _number(raw["n"])).public_key()
        if key.key_size not in RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits")
        return key, _RSA, 0
    if kind == "EC":
        curve, algorithm, size = _CURVES[raw["crv"]]
        numbers = ec.EllipticCurvePublicNumbers(_number(raw["x"]), _number(raw["y"]), curve)
        return numbers.public_key(), frozenset({algorithm}), size
    if kind == "OKP" and raw["crv"] == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_unb64(raw["x"])), frozenset({"EdDSA"}), 0
    raise ValueError(f"its type {kind!r} is not known")


def _verify_ec(key: ec.EllipticCurvePublicKey, bits: str, size: int, message: bytes, signature: bytes) -> bool:
    if len(signature) != 2 * size:
        return False
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(_HASHES[bits]))
    except InvalidSignature:
        return False
    return True


def _jwk(key: ec.EllipticCurvePublicKey) -> Jwk:
    numbers = key.public_numbers()
    x, y = (_b64(n.to_bytes(KEY_SIZE, "big")) for n in (numbers.x, numbers.y))
    thumbprint = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'  # RFC 7638: members in this order
    return Jwk(_b64(hashlib.sha256(thumbprint.encode()).digest()), x, y)


def _number(text: str) -> int:
    return int.from_bytes(_unb64(text), "big")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
