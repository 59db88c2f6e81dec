"""Signing requests, renewing pairs, foreign keys, and clocks that are off."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification

from polder.base.ids import ROOT, TenantName
from polder.system.pki import (
    Leaf,
    PkiError,
    PublicKey,
    ensure_pki,
    needs_renewal,
    new_request,
    parse_client,
    pin_of,
    pinned,
    read_request,
    settle_pair,
)

ACME = TenantName("acme")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return ensure_pki(tmp_path_factory.mktemp("pki"))


def certificate(pem):
    return x509.load_pem_x509_certificate(pem)


def request(subject, names=(), key=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


CN = x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")


def test_a_tenants_certificate_carries_the_tenant_and_the_usages_asked(pki):
    names = [x509.DNSName("a.b"), x509.UniformResourceIdentifier("spiffe://a/b"), x509.RFC822Name("a@b.c")]
    pem = pki.sign_tenant_client(
        request([CN], names), ACME, "7", ["key encipherment", "client auth"], timedelta(hours=1)
    )
    found = certificate(pem)
    name = parse_client(ssl.PEM_cert_to_DER_cert(pem.decode()))
    assert name.uris == ("urn:polder:tenant:acme:7", "spiffe://a/b")
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_encipherment, usage.digital_signature, usage.key_cert_sign) == (True, False, False)
    extended = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert timedelta(hours=1) <= found.not_valid_after_utc - found.not_valid_before_utc <= timedelta(hours=1, minutes=6)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    root = pki.sign_tenant_client(request([CN]), ROOT, "root")
    assert parse_client(ssl.PEM_cert_to_DER_cert(root.decode())).uris == ("urn:polder:tenant:root",)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"nonsense", "cannot be read"),
        (lambda: b"x" * 100_000, "too long"),
        (lambda: request([]), "names no user"),
        (lambda: request([CN, CN]), "names no user"),
        (lambda: request([CN, x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "polder:x")]), "platform only"),
        (
            lambda: request([CN, x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "polder:tenant-admins")]),
            "platform only",
        ),
        (lambda: request([CN], [x509.UniformResourceIdentifier("urn:polder:tenant:globex:1")]), "signer only"),
        (lambda: request([CN], [x509.UniformResourceIdentifier("URN:Polder:tenant:root")]), "signer only"),
        (lambda: request([CN], key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (lambda: request([CN], key=ec.generate_private_key(ec.SECP192R1())), "secp192r1"),
    ],
)
def test_requests_that_are_not_signed(pki, make, says):
    with pytest.raises(PkiError, match=says):
        pki.sign_tenant_client(make(), ACME, "7")


def test_a_request_whose_sender_does_not_hold_the_key_is_refused():
    der = x509.load_pem_x509_csr(request([CN])).public_bytes(serialization.Encoding.DER)
    broken = x509.load_der_x509_csr(der[:-3] + bytes([der[-3] ^ 1, der[-2], der[-1]]))
    with pytest.raises(PkiError, match=r"own key|cannot be read"):
        read_request(broken.public_bytes(serialization.Encoding.PEM))


def test_usages_that_nobody_may_have(pki):
    for usages in (["cert sign"], ["crl sign"], ["server auth", "nonsense"], ["encipher only"]):
        with pytest.raises(PkiError):
            pki.sign_tenant_client(request([CN]), ACME, "7", usages)


def test_no_leaf_outlives_its_authority(pki):
    pem = pki.sign_tenant_client(request([CN]), ACME, "7", life=timedelta(days=10_000))
    assert certificate(pem).not_valid_after_utc == certificate(pki.clients.certificate).not_valid_after_utc


def test_an_agents_request_is_for_one_name(pki):
    asked = new_request("system:node:n1", ["system:nodes"], ["192.0.2.1"])
    name = parse_client(ssl.PEM_cert_to_DER_cert(pki.sign_agent(asked.certificate, "system:node:n1").decode()))
    assert (name.common_name, name.addresses) == ("system:node:n1", ("192.0.2.1",))
    assert name.key == read_request(asked.certificate).key_mark
    for name_, groups in (("system:node:n2", ["system:nodes"]), ("system:node:n1", ["system:nodes", "x"])):
        with pytest.raises(PkiError, match="is not for"):
            pki.sign_agent(new_request(name_, groups, ["192.0.2.1"]).certificate, "system:node:n1")


@pytest.mark.parametrize(("minutes", "good"), [(-4.9, True), (-5.1, False), (5, True), (90 * 24 * 60 - 1, True)])
def test_a_clock_that_is_five_minutes_behind_trusts_a_fresh_certificate(pki, minutes, good):
    leaf = certificate(pki.issue_serving(["api"], ["192.0.2.1"]).certificate)
    store = verification.Store([certificate(pki.serving.certificate)])
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    builder = verification.PolicyBuilder().store(store).time(when.replace(tzinfo=None))
    verifier = builder.build_server_verifier(x509.DNSName("api"))
    if good:
        assert verifier.verify(leaf, [])
    else:
        with pytest.raises(verification.VerificationError):
            verifier.verify(leaf, [])


def test_renewal_is_at_two_thirds():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    end = begin + timedelta(days=90)
    assert not needs_renewal(begin, end, begin + timedelta(days=59, hours=23))
    assert needs_renewal(begin, end, begin + timedelta(days=60))


def test_a_pair_that_is_replaced_always_fits(tmp_path):
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"
    Leaf(b"c1", b"k1").write(crt, key)
    Leaf(b"c2", b"k2").replace(crt, key)
    assert (crt.read_bytes(), key.read_bytes()) == (b"c2", b"k2")
    (tmp_path / "a.key.next").write_bytes(b"k3")  # cut after the key was written
    settle_pair(crt, key)
    assert (crt.read_bytes(), key.read_bytes()) == (b"c2", b"k2")
    (tmp_path / "a.key.next").write_bytes(b"k3")
    (tmp_path / "a.crt.next").write_bytes(b"c3")  # cut before the first took its place
    settle_pair(crt, key)
    assert (crt.read_bytes(), key.read_bytes()) == (b"c3", b"k3")
    key.write_bytes(b"k4")
    (tmp_path / "a.crt.next").write_bytes(b"c4")  # cut between the two
    settle_pair(crt, key)
    assert (crt.read_bytes(), key.read_bytes()) == (b"c4", b"k4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.crt", "a.key"]


def test_a_pin_names_one_authority_among_several(pki, tmp_path):
    other = ensure_pki(tmp_path)
    bundle = (pki.trust + other.trust).encode()
    assert pinned(bundle, pin_of(other.trust.encode())).decode().strip() == other.trust.strip()
    with pytest.raises(PkiError, match="has the pin"):
        pinned(pki.trust.encode(), pin_of(other.trust.encode()))
    for broken in (b"", b"nonsense"):
        with pytest.raises(PkiError):
            pin_of(broken)


@pytest.mark.parametrize(
    "raw",
    [
        {}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}, {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
    ],
)  # fmt: skip
def test_keys_that_cannot_be_used(raw):
    with pytest.raises(PkiError):
        PublicKey(raw)
