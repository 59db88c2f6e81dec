"""watch: every change once and in order, transitions of selectors, bookmarks, 410, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

MAPS = "/api/v1/namespaces/default/configmaps"


@contextlib.asynccontextmanager
async def watching(api: Any, path: str) -> AsyncIterator[Any]:
    async with api.watch(path) as stream:
        assert stream.status == 200, await stream.read()
        assert stream.headers["Content-Type"] == "application/json"

        async def one() -> Any:
            line = await asyncio.wait_for(stream.content.readline(), 10)
            return json.loads(line) if line else None

        yield one


def short(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


async def make(api: Any, name: str, **labels: str) -> Any:
    made = await api.post(MAPS, {"metadata": {"name": name, "labels": labels}})
    assert made.status == 201, made.body
    return made.json


async def test_from_a_revision(admin: Any) -> None:
    start = (await make(admin, "a"))["metadata"]["resourceVersion"]
    await make(admin, "b")
    await admin.patch(f"{MAPS}/a", {"data": {"x": "y"}})
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion={start}") as one:
        assert short(await one()) == ("ADDED", "b")
        changed = await one()
        assert short(changed) == ("MODIFIED", "a") and changed["object"]["data"] == {"x": "y"}
        await admin.delete(f"{MAPS}/b")
        gone = await one()
        assert short(gone) == ("DELETED", "b")
        assert int(gone["object"]["metadata"]["resourceVersion"]) > int(
            changed["object"]["metadata"]["resourceVersion"]
        )


async def test_without_a_revision_begins_with_what_is_there(admin: Any) -> None:
    await make(admin, "a")
    for query in ("watch=true", "watch=1&resourceVersion=0"):
        async with watching(admin, f"{MAPS}?{query}") as one:
            assert [short(await one()), short(await one())] == [("ADDED", "a"), ("ADDED", "kube-root-ca.crt")]
    async with watching(admin, "/api/v1/watch/namespaces/default/configmaps/a") as one:
        assert short(await one()) == ("ADDED", "a")
        await make(admin, "b")
        await admin.delete(f"{MAPS}/a")
        assert short(await one()) == ("DELETED", "a")


async def test_streaming_list(admin: Any) -> None:
    await make(admin, "a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with watching(admin, f"{MAPS}?{query}") as one:
        assert [short(await one()), short(await one())] == [("ADDED", "a"), ("ADDED", "kube-root-ca.crt")]
        end = await one()
        assert end["type"] == "BOOKMARK" and end["object"]["kind"] == "ConfigMap"
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_from_the_beginning_marks_where_it_ends(admin: Any) -> None:
    async with watching(admin, f"{MAPS}?watch=1&allowWatchBookmarks=true") as one:
        assert short(await one()) == ("ADDED", "kube-root-ca.crt")
        assert (await one())["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_options_that_contradict_each_other(admin: Any) -> None:
    """kubectl prints the causes alone."""
    for query, path, part in (
        ("watch=1&sendInitialEvents=true", "resourceVersionMatch", "requires setting resourceVersionMatch"),
        ("watch=1&resourceVersionMatch=NotOlderThan", "resourceVersionMatch", "unless sendInitialEvents is provided"),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact", "resourceVersionMatch", "requires setting"),
        ("resourceVersionMatch=Exact", "resourceVersionMatch", "unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", "resourceVersionMatch", "forbidden for resourceVersion"),
        ("resourceVersionMatch=Some&resourceVersion=1", "resourceVersionMatch", 'Unsupported value: "Some"'),
        ("sendInitialEvents=false", "sendInitialEvents", "forbidden for list"),
    ):
        refused = await admin.get(f"{MAPS}?{query}")
        assert (refused.status, refused.json["details"]["kind"]) == (422, "ListOptions"), query
        cause = refused.json["details"]["causes"][0]
        assert cause["field"] == path and part in cause["message"], query


async def test_a_watch_has_an_audit_id(admin: Any) -> None:
    async with admin.watch(f"{MAPS}?watch=1&timeoutSeconds=1") as stream:
        assert stream.headers["Audit-Id"]


async def test_selectors_see_objects_come_and_go(admin: Any) -> None:
    now = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion={now}&labelSelector=color%3Dred") as one:
        await make(admin, "a", color="blue")
        await admin.patch(f"{MAPS}/a", {"metadata": {"labels": {"color": "red"}}})
        assert short(await one()) == ("ADDED", "a")
        await admin.patch(f"{MAPS}/a", {"data": {"k": "v"}})
        assert short(await one()) == ("MODIFIED", "a")
        await admin.patch(f"{MAPS}/a", {"metadata": {"labels": {"color": "green"}}})
        left = await one()
        assert short(left) == ("DELETED", "a") and left["object"]["metadata"]["labels"] == {"color": "red"}
        await make(admin, "b", color="red")
        assert short(await one()) == ("ADDED", "b")


async def test_bookmarks_bring_progress(admin: Any) -> None:
    now = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion={now}&allowWatchBookmarks=true") as one:
        mark = await one()
        assert (mark["type"], mark["object"]["kind"]) == ("BOOKMARK", "ConfigMap")
        assert mark["object"]["metadata"]["resourceVersion"] == now
        made = await make(admin, "a")
        seen = []
        while not seen or seen[-1]["type"] != "BOOKMARK" or len({e["type"] for e in seen}) < 2:
            seen.append(await one())
        assert seen[-1]["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_history_that_is_gone(admin: Any, running: Any) -> None:
    old = (await make(admin, "a"))["metadata"]["resourceVersion"]
    await make(admin, "b")
    await running.store.compact(await running.store.revision())
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion={old}") as one:
        said = await one()
        assert (said["type"], said["object"]["code"], said["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await one() is None
    async with admin.watch(f"{MAPS}?watch=1&resourceVersion=99999") as stream:
        assert stream.status == 504


async def test_time_is_kept_and_the_connection_lives_on(admin: Any) -> None:
    began = time.monotonic()
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1") as one:
        while await one() is not None:
            pass
    assert 0.8 < time.monotonic() - began < 3
    assert (await admin.get(MAPS)).status == 200


async def test_tables_and_metadata(admin: Any) -> None:
    now = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    admin.session.headers["Accept"] = "application/json;as=Table;v=v1;g=meta.k8s.io"
    async with watching(admin, f"{MAPS}?watch=1&resourceVersion={now}") as one:
        await make_any(admin, "a")
        event = await one()
        assert event["type"] == "ADDED" and event["object"]["kind"] == "Table"
        assert event["object"]["rows"][0]["cells"][0] == "a"


async def make_any(api: Any, name: str) -> None:
    assert (await api.post(MAPS, {"metadata": {"name": name}})).status == 201


async def test_many_watchers_share_what_is_sent(admin: Any) -> None:
    now = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    async with contextlib.AsyncExitStack() as stack:
        path = f"{MAPS}?watch=1&resourceVersion={now}"
        readers = [await stack.enter_async_context(watching(admin, path)) for _ in range(50)]
        for number in range(5):
            await make(admin, f"m{number}")
        for one in readers:
            assert [short(await one())[1] for _ in range(5)] == [f"m{n}" for n in range(5)]


async def test_every_tenant(admin: Any) -> None:
    await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})
    now = (await admin.at("*").get("/api/v1/configmaps")).json["metadata"]["resourceVersion"]
    async with watching(admin.at("*"), f"/api/v1/configmaps?watch=1&resourceVersion={now}") as one:
        await admin.at("acme").post(MAPS, {"metadata": {"name": "x"}})
        await make(admin, "y")
        first, second = await one(), await one()
        assert first["object"]["metadata"]["annotations"] == {"polder.dev/tenant": "acme"}
        assert second["object"]["metadata"]["annotations"] == {"polder.dev/tenant": "root"}
    async with watching(admin.at("acme"), f"/api/v1/configmaps?watch=1&resourceVersion={now}") as one:
        assert short(await one()) == ("ADDED", "x")
        await make(admin, "z")
        await admin.at("acme").delete(f"{MAPS}/x")
        assert short(await one()) == ("DELETED", "x")


async def test_a_client_that_leaves_is_forgotten(admin: Any, running: Any) -> None:
    async with watching(admin, f"{MAPS}?watch=1"):
        assert b"polder_watches 1\n" in (await admin.get("/metrics")).body
    for _ in range(50):
        if b"polder_watches 0\n" in (await admin.get("/metrics")).body:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the watch is still there")


async def test_a_client_that_does_not_read_costs_bounded_memory(admin: Any, running: Any, tmp_path: Any) -> None:
    """Its socket fills, the server stops writing to it, everybody else goes on."""
    running.client(running.admin_leaf())
    context = ssl.create_default_context(cafile=str(running.pki.serving_ca))
    context.load_cert_chain(running.folder / "c.crt", running.folder / "c.key")
    raw = socket.create_connection(("127.0.0.1", running.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1024)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, sock=raw, ssl=context, server_hostname="127.0.0.1")
    transport.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asyncio.sleep(0.3)
    transport.pause_reading()
    for number in range(60):
        made = await admin.post(MAPS, {"metadata": {"name": f"big{number}"}, "data": {"x": "y" * 200_000}})
        assert made.status == 201
    (stalled,) = [c for c in running.api._listener._server.connections if c._paused]
    assert stalled.transport.get_write_buffer_size() < 2_000_000
    transport.abort()
