"""Backups as files: one moment, whole or refused; everything into another backend."""

from __future__ import annotations

import gzip

import pytest

from polder.main.config import ServerConfig
from polder.main.config_storage import EtcdConfig, SealingConfig
from polder.main.restore import LEAP, everything
from polder.main.storage import open_raw, open_store
from polder.main.storage_etcd import advance
from polder.store.backup import VERSION, BackupError, Header, _framed, check, read_store, rows_of
from polder.store.memory import MemoryStore
from polder.store.protocol import EVERYTHING, CompactedError, Delete, Key, Put
from polder.store.sealed import SealedStore, Seals, SealSettings
from polder.system.pki.sealing import Keyring, ensure_keyring, read_keyring
from tests.etcd import Etcd

CREATED = "2026-01-01T00:00:00Z"
TENANT = Key("tenants.polder.dev", "root", "", "acme")


def pod(name, tenant="acme"):
    return Key("pods", tenant, "default", name)


async def save(path, store, tenant=None):
    with path.open("wb") as file:
        async for chunk in read_store(store, tenant, CREATED):
            file.write(chunk)
    return path


async def test_a_backup_is_of_one_moment(tmp_path):
    store = MemoryStore()
    for number in range(1200):
        await store.commit([Put(pod(f"p{number}"), b"%d" % number)])
    path = tmp_path / "b"
    with path.open("wb") as file:
        async for chunk in read_store(store, None, CREATED):
            file.write(chunk)
            await store.commit([Put(pod("p1199"), b"later"), Put(pod(f"q{file.tell()}"), b"")])
            entry = await store.get(pod("p700"))
            if entry:
                await store.commit([Delete(pod("p700"))])
    summary = check(path)
    assert (summary.rows, summary.header.revision, summary.header.tenant) == (1200, 1201, "")
    found = {row.key: (row.value, row.revision) for row in rows_of(path)}
    assert found == {pod(f"p{n}"): (b"%d" % n, n + 2) for n in range(1200)}


async def test_a_tenants_backup_has_its_rows_and_its_own_object(tmp_path):
    store = MemoryStore()
    others = [Key("tenants.polder.dev", "root", "", "globex"), pod("x", "globex"), pod("x", "root")]
    await store.commit([Put(k, b"{}") for k in (TENANT, pod("a"), pod("b"), *others)])
    path = await save(tmp_path / "b", store, TENANT)
    assert check(path).header.tenant == "acme"
    assert [row.key for row in rows_of(path)] == [TENANT, pod("a"), pod("b")]


async def test_a_backup_that_lasts_longer_than_history_is_kept_fails(tmp_path):
    store = MemoryStore()
    for number in range(1200):
        await store.commit([Put(pod(f"p{number}"), b"")])
    chunks = read_store(store, None, CREATED)
    await anext(chunks)
    await store.commit([Put(pod("p0"), b"")])
    await store.compact(1202)
    with pytest.raises(CompactedError):
        async for _ in chunks:
            pass


async def test_what_is_no_whole_backup_is_refused(tmp_path):
    store = MemoryStore()
    await store.commit([Put(pod(f"p{n}"), bytes(range(256)) * 40) for n in range(50)])
    path = await save(tmp_path / "b", store)
    good, plain = path.read_bytes(), gzip.decompress(path.read_bytes())
    at = plain.index(bytes(range(256)))
    newer = Header(5, CREATED, version=VERSION + 1)
    broken = {
        "cut off": [good[: len(good) // 2], gzip.compress(plain[:-20])],
        "damaged": [
            gzip.compress(plain[:at] + b"\1" + plain[at + 1 :]),
            good[: len(good) // 2] + b"\0\0\0" + good[len(good) // 2 + 3 :],
        ],
        "no backup": [b"hello", b"", gzip.compress(b"\xff\xff\xff\xff hello")],
        "use the newer": [gzip.compress(_framed(newer))],
        "more after its end": [good + good],
        "not in order": [gzip.compress(plain + plain)],
    }
    for why, files in broken.items():
        for content in files:
            path.write_bytes(content)
            with pytest.raises(BackupError, match=why if content else "cut off"):
                check(path)
    path.write_bytes(good)
    assert check(path).rows == 50


@pytest.fixture
def config(tmp_path):
    ensure_keyring(tmp_path / "keyring")
    sealing = SealingConfig(keyring=str(tmp_path / "keyring"))
    return ServerConfig(listen=[], store=str(tmp_path / "db"), pki="", sealing=sealing)


SECRET = Key("secrets", "acme", "default", "s")
OWNED = b'{"kind":"Pod","metadata":{"ownerReferences":[{"uid":"u1"}]}}'


async def fill(store):
    await store.commit([Put(SECRET, b'{"metadata":{}}'), Put(pod("a"), OWNED, None, ("owner/u1", "owned"))])


async def test_everything_comes_back_with_secrets_sealed_and_revisions_ahead(tmp_path, config):
    store = await open_store(config)
    await fill(store)
    await save(tmp_path / "b", store.inner)
    await store.close()
    assert b"metadata" not in {row.key: row.value for row in rows_of(tmp_path / "b")}[SECRET]
    summary = check(tmp_path / "b")
    with pytest.raises(BackupError, match="--force"):
        await everything(tmp_path / "b", config, summary, force=False)
    store = await open_store(config)
    assert await store.revision() == summary.header.revision
    await store.close()

    # Into an empty store, whose keyring has another key that writes.
    ring = Keyring.new()
    other = Keyring(ring.writes, {**read_keyring(tmp_path / "keyring").keys, **ring.keys})
    other.write(tmp_path / "other")
    empty = _replaced(config, store=str(tmp_path / "empty"), sealing=SealingConfig(keyring=str(tmp_path / "other")))
    assert await everything(tmp_path / "b", empty, summary, force=False) == 2
    store = await open_store(empty)
    assert (await store.get(SECRET)).value == b'{"metadata":{}}'
    assert await store.by_term("owner/u1") == [pod("a")]
    assert await store.revision() > summary.header.revision + LEAP
    with pytest.raises(CompactedError):
        await anext(store.watch(EVERYTHING, summary.header.revision + 5))
    await store.close()
    raw = await open_raw(empty)
    assert (await raw.get(SECRET)).value[4:12].hex() == ring.writes
    await raw.close()


async def test_force_replaces_what_is_there(tmp_path, config):
    store = await open_store(config)
    await fill(store)
    await save(tmp_path / "b", store.inner)
    await store.commit([Put(pod(f"later{n}"), b"{}") for n in range(700)])
    await store.close()
    assert await everything(tmp_path / "b", config, check(tmp_path / "b"), force=True) == 2
    store = await open_store(config)
    assert [e.key for e in (await store.list(EVERYTHING)).entries] == [pod("a"), SECRET]
    await store.close()


async def test_a_missing_key_is_said_before_anything_is_written(tmp_path, config):
    ensure_keyring(tmp_path / "lost")
    sealed = SealedStore(MemoryStore(), Seals(SealSettings(tmp_path / "lost")))
    await fill(sealed)
    await save(tmp_path / "b", sealed.inner)
    summary = check(tmp_path / "b")
    for chosen in (config, _replaced(config, sealing=None)):
        with pytest.raises(BackupError, match=f"does not have: {sealed.seals.ring.writes}"):
            await everything(tmp_path / "b", chosen, summary, force=False)
    assert not (tmp_path / "db").exists()


async def test_from_a_file_into_an_etcd_whose_revisions_run_ahead(tmp_path, config, capsys):
    store = await open_store(config)
    await fill(store)
    for _ in range(300):
        await store.commit([Put(pod("busy"), b"{}")])
    await save(tmp_path / "b", store.inner)
    await store.close()
    etcd = Etcd().start()
    try:
        summary = check(tmp_path / "b")
        shared = _replaced(config, store="", etcd=EtcdConfig(endpoints=[etcd.endpoint]))
        assert await everything(tmp_path / "b", shared, summary, force=False) == 3
        store = await open_store(shared)
        assert await store.revision() > summary.header.revision + 5000
        assert (await store.get(SECRET)).value == b'{"metadata":{}}'
        assert await store.by_term("owner/u1") == [pod("a")]
        with pytest.raises(CompactedError):
            await anext(store.watch(EVERYTHING, summary.header.revision + 100))
        await store.close()
        assert capsys.readouterr().out == ""
        assert not await advance(shared.etcd, 10**9)
    finally:
        etcd.stop()


def _replaced(config, **changes):
    return ServerConfig(**{**{f: getattr(config, f) for f in config.__struct_fields__}, **changes})
