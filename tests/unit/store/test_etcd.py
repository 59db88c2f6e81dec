"""What only the etcd backend has: an etcd that dies, comes back, is shared, is compacted by others, or is full."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import aclosing

import pytest

from polder._generated import etcd_pb2 as pb
from polder.store.etcd import open_etcd
from polder.store.etcd_client import COMPACT, TXN, EtcdClient, EtcdRefusedError, EtcdSettings
from polder.store.hub import HubSettings
from polder.store.protocol import (
    CompactedError,
    ConflictError,
    Delete,
    Indexer,
    Key,
    Prefix,
    Put,
    StoreFailedError,
    StoreUnknownError,
    TooLargeError,
)
from polder.system.pki import ensure_pki
from polder.system.rpc import RpcError, Tls
from tests.etcd import Etcd, free_port

PODS = Prefix("pods")
SMALL = HubSettings(recent=20_000, pending=50, progress=0.05)


def pod(name, tenant="acme"):
    return Key("pods", tenant, "default", name)


@pytest.fixture
def start(request):
    def make(*flags, **more):
        etcd = Etcd(flags, **more).start()
        request.addfinalizer(etcd.stop)
        return etcd

    return make


@pytest.fixture
async def opened():
    stores = []

    async def make(settings, **more):
        stores.append(await open_etcd(settings, SMALL, **more))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def put_foreign(client, key, value=b"x"):
    put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))
    return (await client.ask(TXN, pb.TxnRequest(success=[put]))).header.revision


async def take(watch, count):
    seen = []
    async with asyncio.timeout(10):
        async for batch in watch:
            seen += batch.changes
            if len(seen) >= count:
                return seen
    raise AssertionError(f"the watch ended after {seen}")


async def test_kill_9_of_etcd_under_writes_loses_nothing_acknowledged(start, opened):
    etcd = start()
    store = await opened(etcd.settings(attempt=1.0))
    acknowledged, stop = {}, asyncio.Event()
    random.seed(7)

    async def write(worker):
        number = 0
        while not stop.is_set():
            name = f"{worker}-{number}"
            number += 1
            try:
                ops = [Put(pod(name), name.encode(), 0, ("t",)), Put(pod("hot"), b"")]
                acknowledged[name] = await store.commit(ops if worker < 2 else ops[:1])
            except StoreUnknownError:
                continue
            await asyncio.sleep(0.01)

    seen = []

    async def follow():
        async with aclosing(store.watch(PODS, 1)) as watch:
            async for batch in watch:
                seen.extend(batch.changes)

    tasks = [asyncio.create_task(write(n)) for n in range(16)]
    following = asyncio.create_task(follow())
    for _ in range(4):
        enough = len(acknowledged) + random.randrange(50, 200)
        async with asyncio.timeout(20):
            while len(acknowledged) < enough:  # noqa: ASYNC110 - the writers set nothing
                await asyncio.sleep(random.uniform(0.001, 0.01))
        await asyncio.to_thread(etcd.kill)
        await asyncio.to_thread(etcd.start)
    stop.set()
    await asyncio.gather(*tasks)
    found = {e.key.name: e for e in (await store.list(PODS)).entries}
    for name, revision in acknowledged.items():
        assert (found[name].revision, found[name].value) == (revision, name.encode())
    assert len(await store.by_term("t")) == len(found) - 1
    last = await store.commit([Put(pod("last"), b"")])
    async with asyncio.timeout(10):
        while not seen or seen[-1].revision < last:  # noqa: ASYNC110 - the follower sets nothing
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    revisions = [c.revision for c in seen if c.key.name not in ("hot", "last")]
    assert revisions == sorted(set(revisions)), "lost its order, or an event was repeated"
    assert {c.key.name for c in seen} == {*found, "last"}
    second = await opened(etcd.settings())
    async with aclosing(second.watch(PODS, 1)) as watch:
        again = await take(watch, len(seen))
    assert [(c.key, c.revision, c.value, c.previous) for c in again] == [
        (c.key, c.revision, c.value, c.previous) for c in seen
    ]


class Losing:
    """A connection that loses some answers to transactions after they were done."""

    def __init__(self, channel, lose):
        self.channel, self.lose = channel, lose

    async def call(self, method, request, answer, timeout):
        found = await self.channel.call(method, request, answer, timeout)
        if method == TXN and (request.compare or request.success) and self.lose:
            self.lose -= 1
            raise RpcError("UNAVAILABLE", "Connection reset by peer")
        return found

    def converse(self, *args):
        return self.channel.converse(*args)

    async def close(self):
        await self.channel.close()


async def test_a_commit_whose_answer_was_lost_is_recognized(start, opened):
    store = await opened(start().settings())
    store._client._channels[0] = lossy = Losing(store._client._channels[0], 1)
    assert await store.commit([Put(pod("a"), b"1", 0)]) == 2
    lossy.lose = 3
    assert await store.commit([Put(pod("a"), b"2", 2), Put(pod("b"), b"1", 0, ("t",))]) == 3
    assert [c.revision for c in await take(store.watch(PODS, 1), 3)] == [2, 3, 3]
    # Of a removal nothing stays by which it could be recognized.
    lossy.lose = 1
    with pytest.raises(StoreUnknownError):
        await store.commit([Delete(pod("a"), 3)])
    assert await store.get(pod("a")) is None
    with pytest.raises(ConflictError):
        await store.commit([Put(pod("b"), b"2", 2)])


async def test_an_etcd_that_is_away_is_said_and_passes(start, opened):
    etcd = start()
    store = await opened(etcd.settings(attempt=0.2, patience=0.4))
    await store.commit([Put(pod("a"), b"1")])
    watch = store.watch(PODS, 2)
    await anext(watch)
    etcd.kill()
    with pytest.raises(StoreFailedError, match="does not answer"):
        await store.get(pod("a"))
    with pytest.raises(StoreFailedError, match="does not answer"):
        await store.commit([Put(pod("a"), b"2", 2)])
    etcd.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await store.commit([Put(pod("a"), b"3")])
                break
            except StoreFailedError:
                continue
    assert (await take(watch, 1))[-1].value == b"3"
    await watch.aclose()


async def test_the_next_endpoint_is_asked(start, opened):
    etcd = start(port=free_port())
    dead = f"127.0.0.1:{free_port()}"
    store = await opened(EtcdSettings((dead, etcd.endpoint)))
    assert await store.commit([Put(pod("a"), b"1")]) == 2
    assert (await store.get(pod("a"))).revision == 2


async def test_other_users_of_the_etcd_do_not_disturb(start, opened):
    etcd = start()
    client = EtcdClient(etcd.settings())
    try:
        for number in range(20):
            await put_foreign(client, b"/other/%d" % number)
        store = await opened(etcd.settings(prefix="/a"))
        twin = await opened(etcd.settings(prefix="/ab"))
        for number in range(30):
            await store.commit([Put(pod("mine"), b"%d" % number)])
            await twin.commit([Put(pod("theirs"), b"%d" % number)])
            await put_foreign(client, b"/a0")
        for _ in range(1100):
            await put_foreign(client, b"/other/x")
        await store.commit([Put(pod("mine"), b"last")])
        for since in (1, 25, await store.revision() - 1):
            async with aclosing(store.watch(PODS, since)) as watch:
                seen = await take(watch, 1)
                while seen[-1].value != b"last":
                    seen += (await anext(watch)).changes
                assert {c.key.name for c in seen} == {"mine"}
                assert [c.value for c in seen] == [*(b"%d" % n for n in range(31 - len(seen), 30)), b"last"]
        late = await opened(etcd.settings(prefix="/a"))
        await put_foreign(client, b"/other/y")
        async with aclosing(late.watch(PODS, 30)) as watch:
            assert len(await take(watch, 10)) >= 10
        assert dict(await store.resources(None)) == {"pods": 1}
    finally:
        await client.close()


async def test_a_watch_from_what_may_be_no_commit_of_ours_ends_its_way_through_the_past(start, opened):
    etcd = start()
    client = EtcdClient(etcd.settings())
    try:
        first = await opened(etcd.settings())
        for number in range(5):
            await first.commit([Put(pod("a"), b"%d" % number)])
        for _ in range(60):
            last = await put_foreign(client, b"/other/x")
    finally:
        await client.close()
    late = await open_etcd(etcd.settings(), SMALL)
    late._hub.published = last  # as if the store had been opened long after our last commit
    async with asyncio.timeout(5), aclosing(late.watch(PODS, 1)) as watch:
        seen = (await anext(watch)).changes
    assert [c.value for c in seen] == [b"%d" % n for n in range(5)]
    await late.close()


async def test_compaction_by_others_ends_watches_that_it_hits(start, opened):
    etcd = start()
    store = await opened(etcd.settings())
    for number in range(10):
        await store.commit([Put(pod("a"), b"%d" % number)])
    client = EtcdClient(etcd.settings())
    await client.ask(COMPACT, pb.CompactionRequest(revision=8))
    with pytest.raises(CompactedError):
        await store.list(PODS, revision=5)
    late = await opened(etcd.settings())
    assert late._hub.oldest == 8
    with pytest.raises(CompactedError) as caught:
        await anext(late.watch(PODS, 7))
    assert caught.value.oldest == 8
    assert [c.revision for c in await take(late.watch(PODS, 8), 3)] == [9, 10, 11]
    # What a store missed while it was cut off, and is compacted, ends its watches too.
    watch = late.watch(PODS, 11)
    await anext(watch)
    late._feed.cancel()
    await asyncio.gather(late._feed, return_exceptions=True)
    for number in range(5):
        await store.commit([Put(pod("a"), b"%d" % number)])
    await client.ask(COMPACT, pb.CompactionRequest(revision=15))
    late._feed = asyncio.create_task(late._changes.feed(late._hub))
    with pytest.raises(CompactedError):
        await take(watch, 1)
    assert await late.commit([Put(pod("b"), b"")]) == 17
    assert [c.revision for c in await take(late.watch(PODS, 15), 2)] == [16, 17]
    await client.close()


async def test_limits_of_etcd_are_said_with_their_names(start, opened):
    store = await opened(start("--max-txn-ops", "20").settings())
    with pytest.raises(TooLargeError, match="--max-txn-ops"):
        await store.commit([Put(pod(f"p{n}"), b"") for n in range(15)])
    with pytest.raises(TooLargeError, match="--max-request-bytes"):
        await store.commit([Put(pod("big"), bytes(2 << 20))])
    assert await store.commit([Put(pod("big"), bytes(1500 << 10))]) == 2
    assert len((await store.get(pod("big"))).value) == 1500 << 10
    with pytest.raises(StoreFailedError, match="NUL"):
        await store.commit([Put(pod("a\0b"), b"")])


async def test_an_etcd_of_few_operations_is_warned_of(start, opened, caplog):
    await opened(start().settings())
    assert "--max-txn-ops=1024" in caplog.text
    caplog.clear()
    store = await opened(start("--max-txn-ops", "1024").settings())
    assert caplog.text == ""
    assert await store.commit([Put(pod(f"p{n}"), b"", 0, ("t",)) for n in range(300)]) == 2


async def test_a_full_etcd_goes_on_reading(start, opened):
    etcd = start("--quota-backend-bytes", str(1 << 20))
    store = await opened(etcd.settings())
    with pytest.raises(StoreFailedError, match=r"etcd is full.*defragment"):
        for number in range(50):
            await store.commit([Put(pod(f"p{number}"), bytes(200_000))])
    assert (await store.get(pod("p0"))).revision == 2
    assert (await store.list(PODS)).entries
    assert await anext(store.watch(PODS, 1))


async def test_terms_are_computed_for_rows_that_exist(start, opened):
    settings = start().settings()
    store = await opened(settings)
    for number in range(330):
        await store.commit([Put(pod(f"p{number}"), b"%c" % (97 + number % 3), 0, ("old",) if number < 3 else ())])
    letters = Indexer(1, lambda key, value: (f"letter/{value.decode()}",))
    one, two = await asyncio.gather(opened(settings, indexer=letters), opened(settings, indexer=letters))
    assert len(await one.by_term("letter/b")) == 110
    assert await two.by_term("old") == []
    before = await one.revision()
    await opened(settings, indexer=letters)
    assert await one.revision() == before
    await opened(settings, indexer=Indexer(2, lambda key, value: ("all",)))
    assert (len(await one.by_term("all")), await one.by_term("letter/b")) == (330, [])


async def test_tls_with_client_certificates(start, opened, tmp_path):
    pki = ensure_pki(tmp_path / "pki")
    pki.issue_serving(["localhost"], ["127.0.0.1"]).write(tmp_path / "s.crt", tmp_path / "s.key")
    pki.issue_client("polder", ["x"]).write(tmp_path / "c.crt", tmp_path / "c.key")
    flags = ("--cert-file", "s.crt", "--key-file", "s.key", "--trusted-ca-file", "ca.crt")
    etcd = Etcd((*flags, "--client-cert-auth"), port=free_port(), scheme="https")
    for name in ("s.crt", "s.key"):
        shutil.copy(tmp_path / name, etcd.folder)
    shutil.copy(pki.clients_ca, f"{etcd.folder}/ca.crt")
    try:
        etcd.start()
        tls = Tls(pki.serving_ca, tmp_path / "c.crt", tmp_path / "c.key")
        store = await opened(etcd.settings(tls=tls))
        assert await store.commit([Put(pod("a"), b"1")]) == 2
        for wrong in (Tls(pki.serving_ca), Tls(pki.clients_ca, tmp_path / "c.crt", tmp_path / "c.key")):
            with pytest.raises(StoreFailedError, match="does not answer"):
                await open_etcd(etcd.settings(tls=wrong, attempt=0.3, patience=0.3))
        with pytest.raises(EtcdRefusedError, match="nowhere"):
            await open_etcd(etcd.settings(tls=Tls(tmp_path / "nowhere")))
    finally:
        etcd.stop()
