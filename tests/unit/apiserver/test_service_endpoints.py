"""The endpoints of a service are found through the store's index: what else is in the namespace costs nothing."""

import orjson
import pytest

from polder.apiserver.objects import INDEXER, encode, terms, terms_of_row
from polder.apiserver.outcalls import SLICES, Outcalls
from polder.base.ids import TenantName
from polder.store.memory import MemoryStore
from polder.store.protocol import Delete, Indexer, Key, Put
from polder.store.sqlite import open_sqlite

ACME = TenantName("acme")
SLICES_OF = "endpointslices.discovery.k8s.io"


class CountingStore(MemoryStore):
    """Counts what is read."""

    reads = 0

    async def list(self, *args, **kwargs):
        page = await super().list(*args, **kwargs)
        self.reads += len(page.entries)
        return page

    async def get(self, key):
        self.reads += 1
        return await super().get(key)


@pytest.fixture
async def store():
    made = CountingStore()
    yield made
    await made.close()


def service(name, namespace="default"):
    meta = {"name": name, "namespace": namespace}
    spec = {"ports": [{"name": "https", "port": 443}]}
    obj = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    return Put(Key("services", "acme", namespace, name), encode(obj))


def slice_(name, of, address="10.0.0.1", namespace="default", tenant="acme", ready=True, **more):
    meta = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": of} if of else {}}
    obj = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}], **more,
    }  # fmt: skip
    return Put(Key(SLICES_OF, tenant, namespace, name), encode(obj), None, terms(obj))


async def test_the_namespace_may_be_as_large_as_it_likes(store):
    await store.commit([service("hook"), slice_("hook-1", "hook", "10.0.0.7")])
    calls = Outcalls(store, None)
    await calls.resolve(ACME, "default", "hook", 443)
    alone = store.reads
    await store.commit([slice_(f"s{n}", f"other{n}") for n in range(3000)])
    await store.commit([slice_("hook-1", "hook", "10.9.0.9", tenant="globex"), slice_("x", "hook", namespace="far")])
    store.reads = 0
    assert (await calls.resolve(ACME, "default", "hook", 443)).address == "10.0.0.7"
    assert store.reads == alone
    assert await calls.look(ACME, "default", "hook", 443) is None


async def test_labels_that_change_and_slices_that_go_are_seen(store):
    await store.commit([service("hook"), slice_("a", "hook", "10.0.0.7")])
    calls = Outcalls(store, None)
    await store.commit([slice_("a", "other"), slice_("b", "hook", "10.0.0.8")])
    assert (await calls.resolve(ACME, "default", "hook", 443)).address == "10.0.0.8"
    await store.commit([Delete(Key(SLICES_OF, "acme", "default", "b"))])
    assert (await calls.look(ACME, "default", "hook", 443))[0] == "MissingEndpoints"


async def test_many_slices_of_one_service_are_not_all_read(store):
    await store.commit([service("hook")])
    await store.commit([slice_(f"dead{n}", "hook", ready=False) for n in range(5 * SLICES)])
    calls = Outcalls(store, None)
    store.reads = 0
    assert (await calls.look(ACME, "default", "hook", 443))[0] == "MissingEndpoints"
    assert store.reads <= SLICES + 1
    await store.commit([slice_(f"dead{n}", "hook", f"10.0.{n % 250}.1") for n in range(5 * SLICES)])
    found = {(await calls.resolve(ACME, "default", "hook", 443)).address for _ in range(50)}
    assert len(found) > 10, "any of them may be chosen"


async def test_what_is_no_endpointslice_is_not_found_by_it(store):
    await store.commit([service("hook")])
    obj = orjson.loads(slice_("a", "hook").value)
    for kind in ("Endpoints", "EndpointSlice"):
        assert not terms({**obj, "apiVersion": "shop.dev/v1", "kind": kind})
    await store.commit([Put(Key("things.shop.dev", "acme", "default", "a"), encode(obj), None, terms(obj))])
    assert (await Outcalls(store, None).look(ACME, "default", "hook", 443))[0] == "MissingEndpoints"


async def test_rows_that_were_written_before_are_indexed_when_the_store_is_opened(tmp_path):
    put = slice_("a", "hook")
    assert terms_of_row(put.key, put.value) == put.terms != ()
    store = open_sqlite(tmp_path / "db", indexer=Indexer(2, lambda key, value: ()))
    await store.commit([Put(put.key, put.value), service("hook")])
    await store.close()
    store = open_sqlite(tmp_path / "db", indexer=INDEXER)
    assert (await Outcalls(store, None).resolve(ACME, "default", "hook", 443)).address == "10.0.0.1"
    await store.close()
