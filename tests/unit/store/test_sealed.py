"""Secrets at rest: what the backend holds, keys that change, and envelopes that were moved."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import aclosing

import pytest

from polder.base.errors import PermanentError
from polder.main.config import ServerConfig
from polder.main.config_storage import SealingConfig
from polder.main.storage import open_store
from polder.store.memory import MemoryStore
from polder.store.protocol import (
    EVERYTHING,
    NO_TERMS,
    ConflictError,
    Delete,
    Indexer,
    Key,
    Prefix,
    Put,
    StoreFailedError,
)
from polder.store.sealed import SealedStore, Seals, SealSettings
from polder.store.sqlite import open_sqlite
from polder.system.pki.sealing import Keyring, SealError, ensure_keyring, is_sealed, key_id, read_keyring

PASSWORD = b'{"data":{"password":"cGVzY2FkbyByYWJpb3Nv"}}'
SECRET = Key("secrets", "acme", "default", "db")


@pytest.fixture
def ring(tmp_path):
    ensure_keyring(tmp_path / "keyring")
    return tmp_path / "keyring"


def seals(ring):
    return Seals(SealSettings(ring))


async def test_the_backend_sees_envelopes_and_the_caller_what_it_wrote(ring):
    inner = MemoryStore()
    store = SealedStore(inner, seals(ring))
    pod = Key("pods", "acme", "default", "p")
    key = Key("internal:keys", "acme", "", "k")
    await store.commit([Put(SECRET, PASSWORD, 0, ("t",)), Put(pod, b"{}"), Put(key, b"{}")])
    assert [is_sealed((await inner.get(k)).value) for k in (SECRET, key, pod)] == [True, True, False]
    assert b"password" not in (await inner.get(SECRET)).value
    assert (await store.get(SECRET)).value == PASSWORD
    assert [e.value for e in (await store.list(Prefix("secrets"))).entries] == [PASSWORD]
    assert await store.by_term("t") == [SECRET]
    with pytest.raises(ConflictError) as caught:
        await store.commit([Put(SECRET, b"x", 0)])
    assert caught.value.current == await store.get(SECRET)
    await store.commit([Put(SECRET, b"{}")])
    await store.commit([Delete(SECRET)])
    async with aclosing(store.watch(Prefix("secrets"), 1)) as watch:
        seen = (await anext(watch)).changes
    assert [(c.value, c.previous) for c in seen] == [(PASSWORD, None), (b"{}", PASSWORD), (b"{}", b"{}")]
    async with aclosing(store.watch(EVERYTHING, 1)) as watch:
        assert not any(is_sealed(c.value) for c in (await anext(watch)).changes)


async def test_an_envelope_opens_only_where_it_was_sealed(ring):
    inner = MemoryStore()
    store = SealedStore(inner, seals(ring))
    await store.commit([Put(SECRET, PASSWORD)])
    stolen = (await inner.get(SECRET)).value
    for thief in (
        Key("secrets", "globex", "default", "db"),
        Key("secrets", "acme", "mine", "db"),
        Key("configmaps", "acme", "default", "db"),
    ):
        await inner.commit([Put(thief, stolen)])
        with pytest.raises(StoreFailedError, match="moved from another place"):
            await store.get(thief)
    await inner.commit([Put(SECRET, stolen[:-1] + bytes([stolen[-1] ^ 1]))])
    with pytest.raises(StoreFailedError, match="was changed"):
        await store.get(SECRET)


async def test_rotation_reads_old_keys_and_rewrites_with_the_newest(ring):
    inner = MemoryStore()
    await inner.commit([Put(Key("secrets", "acme", "default", "plain"), PASSWORD, 0, ("plain",))])
    first, second = SealedStore(inner, seals(ring)), SealedStore(inner, seals(ring))
    for number in range(500):
        await first.commit([Put(Key("secrets", "acme", "default", f"s{number}"), PASSWORD)])
    old = read_keyring(ring)
    old.with_new_key().writing().write(ring)
    first.seals.reload()
    first_terms = Indexer(1, lambda key, value: ("has-password",) if b"password" in value else ())
    assert await first.reseal(first_terms) == 501
    assert await first.reseal(first_terms) == 0
    assert len(await inner.by_term("has-password")) == 501
    new = read_keyring(ring)
    assert {key_id(e.value) for e in (await inner.list(Prefix("secrets"))).entries} == {new.writes} != {old.writes}
    # Another server that did not reload finds the new key by itself.
    second.seals._read_at = float("-inf")
    assert len((await second.list(Prefix("secrets"))).entries) == 501
    new.pruned().write(ring)
    alone = SealedStore(inner, seals(ring))
    assert (await alone.get(Key("secrets", "acme", "default", "s7"))).value == PASSWORD
    stale = old.seal(b"x", b"place")
    with pytest.raises(SealError, match=f"key {old.writes}"):
        new.pruned().open(stale, b"place")


async def test_nothing_of_a_secret_is_in_the_files(tmp_path, ring):
    store = SealedStore(open_sqlite(tmp_path / "db"), seals(ring))
    for _ in range(3):
        await store.commit([Put(SECRET, PASSWORD)])
    found = [path.name for path in tmp_path.iterdir() if b"cGVzY2Fkby" in path.read_bytes()]
    await store.close()
    assert found == []
    with sqlite3.connect(tmp_path / "db") as file:
        assert file.execute("SELECT count(*) FROM log WHERE previous IS NOT NULL").fetchone() == (2,)
    file.close()


async def test_rows_are_indexed_by_what_is_in_the_envelope(tmp_path, ring):
    found = seals(ring)
    store = SealedStore(open_sqlite(tmp_path / "db"), found)
    await store.commit([Put(SECRET, PASSWORD)])
    await store.close()
    terms = found.indexer(Indexer(7, lambda key, value: (f"length/{len(value)}",)))
    store = SealedStore(open_sqlite(tmp_path / "db", indexer=terms), found)
    assert await store.by_term(f"length/{len(PASSWORD)}") == [SECRET]
    assert NO_TERMS.terms(SECRET, PASSWORD) == ()
    await store.close()


def test_a_keyring_is_private_and_whole(ring):
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert ensure_keyring(ring) == read_keyring(ring)
    assert "keys" not in repr(Keyring.new())
    text = ring.read_text()
    ring.chmod(0o640)
    with pytest.raises(SealError, match="chmod 600"):
        read_keyring(ring)
    ring.chmod(0o600)
    for broken in ("", "{}", text.replace('"writes": "', '"writes": "0'), text.replace("=", "")):
        ring.write_text(broken)
        with pytest.raises(SealError, match="keyring"):
            read_keyring(ring)


async def test_a_server_seals_what_was_written_before_it_had_a_keyring(tmp_path, ring):
    plain = ServerConfig(listen=[], pki="", store=str(tmp_path / "db"))
    store = await open_store(plain)
    await store.commit([Put(SECRET, PASSWORD), Put(Key("pods", "acme", "default", "p"), b"{}")])
    await store.close()
    sealing = SealingConfig(keyring=str(ring))
    config = ServerConfig(listen=[], pki="", store=str(tmp_path / "db"), sealing=sealing)
    store = await open_store(config)
    assert (await store.get(SECRET)).value == PASSWORD
    first = (await store.inner.get(SECRET)).value
    assert is_sealed(first)
    assert not is_sealed((await store.inner.get(Key("pods", "acme", "default", "p"))).value)
    await store.close()
    # A key that this server's own keyring does not write with is left alone: another server may be ahead.
    read_keyring(ring).with_new_key().writing().write(ring)
    store = await open_store(config)
    assert (await store.inner.get(SECRET)).value == first
    await store.close()
    with pytest.raises(PermanentError, match="without the keyring they cannot be read"):
        await open_store(plain)
