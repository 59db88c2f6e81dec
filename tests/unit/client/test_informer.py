import asyncio
from contextlib import asynccontextmanager

import pytest

from polder.api.core import ConfigMap
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client import informer as module
from polder.client.informer import Informer


def ref(name, tenant="acme"):
    return Ref(TenantName(tenant), "default", name)


async def until(condition, seconds=8.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)


class Seen:
    def __init__(self, informer):
        self.changes = []
        informer.on_change(lambda ref, old, new: self.changes.append((str(ref), data(old), data(new))))


def data(obj):
    return obj.data.get("v") if obj is not None else None


@asynccontextmanager
async def running(informer):
    task = asyncio.ensure_future(informer.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_lists_then_follows(api, client):
    await api.put("acme", "a", v="1")
    informer = Informer(client, ConfigMap)
    seen = Seen(informer)
    assert not informer.synced
    async with running(informer):
        await asyncio.wait_for(informer.wait_synced(), 5)
        assert informer.get(ref("a")).data == {"v": "1"}
        await api.put("globex", "a", v="g")
        await api.put("acme", "a", v="2")
        await api.remove("acme", "a")
        await until(lambda: len(seen.changes) == 4)
    assert seen.changes == [
        ("acme:default/a", None, "1"),
        ("globex:default/a", None, "g"),
        ("acme:default/a", "1", "2"),
        ("acme:default/a", "2", None),
    ]
    assert [data(o) for o in informer.values()] == ["g"]
    assert api.lists == 1


async def test_a_dropped_connection_is_resumed_without_a_new_list(api, client):
    informer = Informer(client, ConfigMap)
    seen = Seen(informer)
    async with running(informer):
        await informer.wait_synced()
        await api.put("acme", "a", v="1")
        await until(lambda: seen.changes)
        api.drop_connections()
        await api.put("acme", "a", v="2")
        await until(lambda: len(seen.changes) == 2)
    assert api.lists == 1
    assert api.watches == 2


async def test_bookmarks_move_the_place_from_where_it_resumes(api, client):
    informer = Informer(client, ConfigMap)
    async with running(informer):
        await informer.wait_synced()
        await api.bookmark()
        await until(lambda: informer._version == "11")
        api.drop_connections()
        await until(lambda: api.watches == 2)
    assert api.requests[-1][2]["resourceVersion"] == "11"


async def test_410_makes_it_list_again_and_tell_what_was_missed(api, client):
    for name in ("stays", "goes", "changes", "replaced"):
        await api.put("acme", name, v="1")
    informer = Informer(client, ConfigMap)
    seen = Seen(informer)
    async with running(informer):
        await informer.wait_synced()
        await until(lambda: api.watches == 1)
        del seen.changes[:]
        api.log.clear()
        api.drop_connections()
        await api.remove("acme", "goes")
        await api.put("acme", "changes", v="2")
        await api.put("acme", "new", v="1")
        api.objects["acme", "replaced"]["metadata"]["uid"] = "another"
        api.log.clear()
        api.oldest = api.revision
        await until(lambda: len(seen.changes) == 4)
    assert sorted(seen.changes) == [
        ("acme:default/changes", "1", "2"),
        ("acme:default/goes", "1", None),
        ("acme:default/new", None, "1"),
        ("acme:default/replaced", "1", "1"),
    ]
    assert api.lists == 2


async def test_410_in_the_stream_is_followed_at_once_however_often(api, client):
    informer = Informer(client, ConfigMap)
    async with running(informer):
        await informer.wait_synced()
        began = asyncio.get_running_loop().time()
        for n in range(2, 9):
            await until(lambda n=n: api.watches == n - 1)
            await api.put("acme", f"c{n}", v="1")
            await api.raw_line("ERROR", {"code": 410, "reason": "Expired", "message": "tenant arrived"})
            await until(lambda n=n: api.lists == n)
        assert asyncio.get_running_loop().time() - began < 2


async def test_it_waits_for_a_server_that_is_away(api, connect, serve, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.2)
    client = connect(api.port)
    other = type(api)()
    await other.put("acme", "a", v="1")
    informer = Informer(client, ConfigMap)
    async with serve(other, 0) as port:
        pass
    away = connect(port)
    informer = Informer(away, ConfigMap)
    async with running(informer):
        await asyncio.sleep(0.3)
        assert not informer.synced
        async with serve(other, port):
            await asyncio.wait_for(informer.wait_synced(), 5)
        await asyncio.sleep(0.3)
        assert informer.get(ref("a")) is not None
        await other.put("acme", "b", v="1")
        async with serve(other, port):
            await until(lambda: informer.get(ref("b")))
    await away.close()
    await client.close()


async def test_indexes_follow_the_objects(api, client):
    await api.put("acme", "a", v="red")
    informer = Informer(client, ConfigMap)
    informer.add_index("early", lambda o: [o.data["v"]])
    async with running(informer):
        await informer.wait_synced()
        informer.add_index("late", lambda o: [o.data["v"], "all"])
        await api.put("acme", "b", v="red")
        await api.put("acme", "a", v="blue")
        await until(lambda: informer.by_index("early", "blue"))
        assert [o.metadata.name for o in informer.by_index("early", "red")] == ["b"]
        assert {o.metadata.name for o in informer.by_index("late", "all")} == {"a", "b"}
        await api.remove("acme", "b")
        await until(lambda: not informer.by_index("early", "red"))
        assert [o.metadata.name for o in informer.by_index("late", "all")] == ["a"]


async def test_a_broken_handler_or_object_stops_nothing(api, client, caplog):
    informer = Informer(client, ConfigMap)

    def broken(ref, old, new):
        raise ValueError("handler")

    informer.on_change(broken)
    seen = Seen(informer)
    async with running(informer):
        await informer.wait_synced()
        await api.raw_line("ADDED", {"metadata": {"name": "odd", "namespace": "default"}, "data": [1]})
        await api.put("acme", "a", v="1")
        await until(lambda: seen.changes)
    assert "a handler failed on acme:default/a" in caplog.text


async def test_selectors_are_passed_on(api, client):
    informer = Informer(client, ConfigMap, TenantName("acme"), fields="spec.nodeName=n1", labels="a=b")
    async with running(informer):
        await until(lambda: api.watches == 1)
    for request in api.requests:
        assert request[1] == "/tenants/acme/api/v1/configmaps"
        assert (request[2]["fieldSelector"], request[2]["labelSelector"]) == ("spec.nodeName=n1", "a=b")


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refusal_is_tried_again_slowly(api, client, code, caplog):
    informer = Informer(client, ConfigMap)
    async with running(informer):
        await informer.wait_synced()
        for _ in range(3):
            await api.raw_line("ERROR", {"code": code, "reason": "Forbidden", "message": "not yours"})
        await until(lambda: api.lists == 2)
    assert "not yours" in caplog.text
