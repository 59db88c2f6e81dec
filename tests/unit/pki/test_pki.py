"""Authorities, leaves and signing keys, against OpenSSL's TLS."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from polder.system.pki import PkiError, SigningKey, ensure_pki, parse_client, server_context, write_private


def test_ensure_pki_is_idempotent_and_private(tmp_path):
    first, second = ensure_pki(tmp_path / "pki"), ensure_pki(tmp_path / "pki")
    assert first.serving.certificate == second.serving.certificate
    assert first.serving.certificate != first.clients.certificate
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "pki").iterdir()} == {0o600}
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    (tmp_path / "pki" / "clients-ca.key").unlink()
    with pytest.raises(PkiError, match=r"clients-ca\.key is missing"):
        ensure_pki(tmp_path / "pki")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "f"
    write_private(path, b"old")
    with pytest.raises(TypeError):
        write_private(path, "text")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_what_a_client_certificate_says(tmp_path):
    pki = ensure_pki(tmp_path)
    leaf = pki.issue_client("system:node:n1", ["system:nodes"], "urn:polder:tenant:acme:1")
    name = parse_client(ssl.PEM_cert_to_DER_cert(leaf.certificate.decode()))
    assert (name.common_name, name.organizations) == ("system:node:n1", ("system:nodes",))
    assert name.uris == ("urn:polder:tenant:acme:1",)
    assert abs(name.not_after - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    with pytest.raises(PkiError):
        parse_client(b"nonsense")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes | None:
    """Runs TLS in memory; returns the client's certificate as the server sees it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert(binary_form=True)


def test_the_two_authorities_do_not_stand_in_for_each_other(tmp_path):
    pki = ensure_pki(tmp_path)
    server = server_context(pki.issue_serving(["kubernetes"], ["10.96.0.1"]), pki.clients_ca)
    for name in ("kubernetes", "10.96.0.1"):
        assert handshake(server, ssl.create_default_context(cafile=pki.serving_ca), name) is None
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ssl.create_default_context(cafile=pki.serving_ca), "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ssl.create_default_context(cafile=pki.clients_ca), "kubernetes")

    pki.issue_client("me", ["x"]).write(tmp_path / "c.crt", tmp_path / "c.key")
    client = ssl.create_default_context(cafile=pki.serving_ca)
    client.load_cert_chain(tmp_path / "c.crt", tmp_path / "c.key")
    der = handshake(server, client, "kubernetes")
    assert parse_client(der).common_name == "me"

    pki.issue_serving(["me"], []).write(tmp_path / "s.crt", tmp_path / "s.key")
    impostor = ssl.create_default_context(cafile=pki.serving_ca)
    impostor.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    with pytest.raises(ssl.SSLError):
        handshake(server, impostor, "kubernetes")


def test_signatures():
    key, other = SigningKey(SigningKey.generate()), SigningKey(SigningKey.generate())
    mark = key.sign(b"message")
    assert len(mark) == 64
    assert key.verify(b"message", mark)
    assert not key.verify(b"messagf", mark)
    assert not other.verify(b"message", mark)
    assert not key.verify(b"message", mark[:-1])
    assert not key.verify(b"message", b"\0" * 64)
    assert key.jwk != other.jwk
    with pytest.raises(PkiError):
        SigningKey(b"nonsense")
