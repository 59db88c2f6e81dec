import asyncio
from contextlib import aclosing

import orjson
import pytest

from polder.api.core import ConfigMap
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, tenant_of
from polder.base.errors import PermanentError
from polder.base.ids import EVERY_TENANT, TenantName
from polder.base.ref import Ref
from polder.client.errors import BadAnswerError, UnreachableError
from polder.client.wire import Lines
from polder.system.pki import ensure_pki

ACME = TenantName("acme")


async def test_get_fills_in_the_tenant_and_ignores_what_it_does_not_know(api, client):
    await api.put("acme", "web", data="1")
    found = await client.get(ConfigMap, Ref(ACME, "default", "web"))
    assert found.metadata.name == "web"
    assert tenant_of(found.metadata) == "acme"
    assert api.requests[-1][1] == "/tenants/acme/api/v1/namespaces/default/configmaps/web"


async def test_a_refusal_is_an_api_error(api, client):
    with pytest.raises(ApiError) as caught:
        await client.get(ConfigMap, Ref(ACME, "default", "web"))
    assert caught.value.is_not_found
    assert caught.value.message == "gone"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_refusal(api, client, code):
    """What is passed on from a tenant's own server must not lead the platform's credential elsewhere."""
    api.redirect = code
    for method in ("GET", "DELETE", "POST"):
        with pytest.raises(ApiError) as caught:
            await client.raw(method, "/tenants/acme/api/v1/moved", b"{}")
        assert caught.value.code == code
    with pytest.raises(ApiError):
        async with aclosing(client.stream("/tenants/acme/api/v1/moved")) as parts:
            await anext(parts)
    assert {request[1] for request in api.requests} == {"/tenants/acme/api/v1/moved"}


async def test_lists_read_all_pages_of_one_state(api, client):
    api.page = 3
    for n in range(8):
        await api.put("acme" if n % 2 else "globex", f"c{n}")
    listing = await client.list(ConfigMap, labels="a=b", fields="metadata.name=x")
    assert {(tenant_of(o.metadata), o.metadata.name) for o in listing.items} == {
        ("acme" if n % 2 else "globex", f"c{n}") for n in range(8)
    }
    assert (len(listing.items), listing.resource_version, api.lists) == (8, "18", 3)
    assert api.requests[-1][1] == "/tenants/*/api/v1/configmaps"
    assert api.requests[-1][2] == {
        "limit": "500",
        "continue": "6",
        "labelSelector": "a=b",
        "fieldSelector": "metadata.name=x",
    }


async def test_a_list_whose_pages_expire_is_read_at_once(api, client):
    api.page, api.expire_continue = 3, True
    for n in range(8):
        await api.put("acme", f"c{n}")
    assert len((await client.list(ConfigMap, ACME)).items) == 8
    assert "limit" not in api.requests[-1][2]


async def test_an_item_that_cannot_be_understood_does_not_hide_the_others(api, client, caplog):
    await api.put("acme", "good")
    await api.put("acme", "bad")
    api.objects["acme", "bad"]["data"] = 5
    assert [o.metadata.name for o in (await client.list(ConfigMap, ACME)).items] == ["good"]
    assert "default/bad" in caplog.text
    with pytest.raises(BadAnswerError, match="ConfigMap"):
        await client.get(ConfigMap, Ref(ACME, "default", "bad"))


async def test_writes_leave_out_the_views_annotation(api, client):
    marked = ObjectMeta(name="x", namespace="default", annotations={"polder.dev/tenant": "acme", "mine": "1"})
    await client.create(ACME, ConfigMap(metadata=marked, data={"a": "b"}))
    method, path, _, headers, body = api.requests[-1]
    assert (method, path) == ("POST", "/tenants/acme/api/v1/namespaces/default/configmaps")
    assert headers["Content-Type"] == "application/json"
    assert orjson.loads(body) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "data": {"a": "b"},
        "metadata": {"name": "x", "namespace": "default", "annotations": {"mine": "1"}},
    }
    await client.update(ACME, ConfigMap(metadata=marked), subresource="status")
    assert api.requests[-1][:2] == ("PUT", "/tenants/acme/api/v1/namespaces/default/configmaps/x/status")


@pytest.mark.parametrize(
    ("how", "content_type"),
    [
        ("merge", "application/merge-patch+json"),
        ("json", "application/json-patch+json"),
        ("strategic", "application/strategic-merge-patch+json"),
    ],
)
async def test_patches_say_what_they_are(api, client, how, content_type):
    ref = Ref(ACME, "default", "x")
    patched = await client.patch(ConfigMap, ref, {"data": {"a": None}}, how=how, subresource="status")
    assert tenant_of(patched.metadata) == "acme"
    method, path, _, headers, body = api.requests[-1]
    assert (method, headers["Content-Type"], body) == ("PATCH", content_type, b'{"data":{"a":null}}')
    assert path.endswith("/configmaps/x/status")


async def test_what_cannot_be_asked_is_refused_here(client):
    with pytest.raises(PermanentError, match="not 'apply'"):
        await client.patch(ConfigMap, Ref(ACME, "default", "x"), {}, how="apply")
    for ref in (Ref(ACME, "", "x"), Ref(EVERY_TENANT, "default", "x"), Ref(ACME, "default", "")):
        with pytest.raises(PermanentError, match="are needed"):
            await client.get(ConfigMap, ref)


async def test_delete_carries_its_conditions(api, client):
    await client.delete(
        ConfigMap, Ref(ACME, "default", "x"), uid="u", resource_version="7", grace=0, propagation="Orphan"
    )
    assert orjson.loads(api.requests[-1][4]) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Orphan",
        "preconditions": {"uid": "u", "resourceVersion": "7"},
    }
    await client.delete(ConfigMap, Ref(ACME, "default", "x"))
    assert orjson.loads(api.requests[-1][4]) == {"apiVersion": "v1", "kind": "DeleteOptions"}


async def test_a_watch_gives_events_lines_of_any_length_and_bookmarks(api, client):
    async with aclosing(client.watch(ConfigMap, ACME, since="10")) as watch:
        await api.put("globex", "other")
        await api.put("acme", "big", data="x" * 3_000_000)
        event = await asyncio.wait_for(anext(watch), 10)
        assert (event.type, tenant_of(event.object.metadata), event.resource_version) == ("ADDED", "acme", "12")
        await api.bookmark()
        event = await asyncio.wait_for(anext(watch), 10)
        assert (event.type, event.object, event.resource_version) == ("BOOKMARK", None, "13")
        await api.remove("acme", "big")
        event = await asyncio.wait_for(anext(watch), 10)
        assert (event.type, event.object.metadata.name) == ("DELETED", "big")
    query = api.requests[-1][2]
    assert 300 <= int(query["timeoutSeconds"]) <= 330
    assert (query["resourceVersion"], query["allowWatchBookmarks"]) == ("10", "true")


async def test_a_watch_that_is_too_old_or_broken_off_says_so(api, client):
    api.oldest = 20
    with pytest.raises(ApiError) as caught:
        await anext(client.watch(ConfigMap, ACME, since="10"))
    assert caught.value.is_expired
    api.oldest = 0
    watch = client.watch(ConfigMap, ACME, since="10")
    waiting = asyncio.ensure_future(anext(watch))
    while api.watches < 2:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0.005)
    api.drop_connections()
    with pytest.raises(UnreachableError):
        await asyncio.wait_for(waiting, 5)


async def test_nobody_there_a_wrong_authority_and_a_slow_answer_are_unreachable(api, connect, tmp_path):
    (tmp_path / "other").mkdir()
    strange = ensure_pki(tmp_path / "other")
    for client in (connect(1), connect(api.port, ca_file=strange.serving_ca), connect(api.port, timeout=0.0001)):
        with pytest.raises(UnreachableError):
            await client.raw("GET", "/tenants/acme/api")
        await client.close()


async def test_a_token_is_sent_and_never_shown(api, connect):
    client = connect(api.port, cert_file=None, key_file=None, token="hush")
    await client.list(ConfigMap, ACME)
    assert api.requests[-1][3]["Authorization"] == "Bearer hush"
    assert "hush" not in repr(client._settings)
    await client.close()


def test_lines_are_put_together_from_any_pieces():
    text = b"one\n\ntwo two\nthree"
    for size in range(1, len(text)):
        lines = Lines()
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert [x for p in pieces for x in lines.feed(p)] == [b"one", b"two two"]
        assert list(lines.feed(b"!\n")) == [b"three!"]


async def test_another_server_is_asked_when_one_does_not_answer(api, serve, connect):
    await api.put("acme", "web", data="1")
    async with serve(type(api)(), 0) as gone:
        pass
    made = connect(gone, others=(f"https://127.0.0.1:{api.port}",))
    try:
        assert (await made.get(ConfigMap, Ref(ACME, "default", "web"))).metadata.name == "web"
        seen = len(api.requests)
        assert (await made.get(ConfigMap, Ref(ACME, "default", "web"))).metadata.name == "web"
        assert len(api.requests) == seen + 1
    finally:
        await made.close()


async def test_a_write_whose_answer_was_lost_is_not_sent_to_another_server(api, serve, connect):
    class Losing(type(api)):
        async def handle(self, request):
            request.transport.abort()

    async with serve(Losing(), 0) as first:
        made = connect(first, others=(f"https://127.0.0.1:{api.port}",))
        try:
            with pytest.raises(UnreachableError):
                await made.raw("POST", "/tenants/acme/api/v1/namespaces/default/configmaps", b"{}")
            assert api.requests == []
            with pytest.raises(ApiError):  # the next request goes there
                await made.get(ConfigMap, Ref(ACME, "default", "web"))
            assert len(api.requests) == 1
        finally:
            await made.close()
