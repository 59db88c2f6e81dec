"""Custom kinds whose versions a webhook converts: batches, what it may change, and what its failures say.

Transcribes the behaviours that upstream's test/e2e/apimachinery/crd_conversion_webhook.go checks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.customkit import GROUP, crd, define, fields, path, redefine, version, widget
from tests.contract.hooked import Site, expose, site

TEXT = {"type": "string"}


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, "hook.default.svc") as found:
        found.paths["/convert"] = convert
        yield found


def one(obj: Any, wanted: str) -> Any:
    """v1 holds ``hostPort``, v2 holds ``host`` and ``port``."""
    found = json.loads(json.dumps(obj))
    found["apiVersion"] = wanted
    spec = found.get("spec", {})
    if wanted.endswith("v2") and "hostPort" in spec:
        spec["host"], spec["port"] = spec.pop("hostPort").split(":")
    elif wanted.endswith("v1") and "host" in spec:
        spec["hostPort"] = f"{spec.pop('host')}:{spec.pop('port')}"
    found["metadata"].setdefault("labels", {})["converted"] = wanted.rpartition("/")[2]
    found["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "forged"}]
    return found


def convert(_: web.BaseRequest, review: Any) -> Any:
    asked = review["request"]
    made = [one(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
    return answered(review, convertedObjects=made)


def answered(review: Any, **response: Any) -> Any:
    head = {"apiVersion": review["apiVersion"], "kind": review["kind"]}
    return {**head, "response": {"uid": review["request"]["uid"], "result": {"status": "Success"}, **response}}


def definition(config: Any) -> Any:
    first = version("v1", fields(hostPort=TEXT))
    second = version("v2", fields(host=TEXT, port=TEXT), storage=False)
    webhook = {"clientConfig": config, "conversionReviewVersions": ["v1", "v1beta1"]}
    return crd(first, second, conversion={"strategy": "Webhook", "webhook": webhook})


async def test_objects_are_shown_in_each_version(admin: Any, hook: Any) -> None:
    await define(admin, definition(hook.url("/convert")))
    made = await admin.post(path(), widget("one", {"hostPort": "a:1"}))
    assert made.status == 201 and hook.asked == [], "what is stored in its own version needs no conversion"
    seen = (await admin.get(path("one", api="v2"))).json
    assert (seen["apiVersion"], seen["spec"]) == (f"{GROUP}/v2", {"host": "a", "port": "1"})
    assert seen["metadata"]["labels"] == {"converted": "v2"}
    assert "ownerReferences" not in seen["metadata"]
    assert seen["metadata"]["uid"] == made.json["metadata"]["uid"]
    second = await admin.post(path(api="v2"), widget("two", {"host": "b", "port": "2"}, api="v2"))
    assert second.status == 201 and second.json["spec"] == {"host": "b", "port": "2"}
    assert (await admin.get(path("two"))).json["spec"] == {"hostPort": "b:2"}
    put = await admin.put(path("one", api="v2"), {**seen, "spec": {"host": "c", "port": "3"}})
    assert put.status == 200 and put.json["spec"] == {"host": "c", "port": "3"}
    patched = await admin.patch(path("one", api="v2"), {"spec": {"port": "4"}})
    assert patched.json["spec"] == {"host": "c", "port": "4"}
    assert (await admin.get(path("one"))).json["spec"] == {"hostPort": "c:4"}


async def test_a_list_is_converted_in_one_call(admin: Any, hook: Any) -> None:
    await define(admin, definition(hook.url("/convert")))
    for name in ("a", "b", "c"):
        await admin.post(path(), widget(name, {"hostPort": f"{name}:1"}))

    def flip(found: Any) -> None:
        found["spec"]["versions"][0]["storage"] = False
        found["spec"]["versions"][1]["storage"] = True

    await redefine(admin, flip)
    await admin.post(path(api="v2"), widget("d", {"host": "d", "port": "1"}, api="v2"))
    hook.asked.clear()
    found = (await admin.get(path(api="v2"))).json
    assert [(o["metadata"]["name"], o["spec"]["host"]) for o in found["items"]] == [(n, n) for n in "abcd"]
    assert [len(said["request"]["objects"]) for _, said in hook.asked] == [3], "those that have the version stay"


async def test_watchers_see_their_version_and_share_its_conversion(admin: Any, hook: Any) -> None:
    await define(admin, definition(hook.url("/convert")))
    async with (
        admin.watch(f"{path(api='v2')}?watch=1&resourceVersion=0") as first,
        admin.watch(f"{path(api='v2')}?watch=1&resourceVersion=0") as second,
    ):
        await admin.post(path(), widget("w", {"hostPort": "w:1"}))
        for events in (first, second):
            event = json.loads(await events.content.readline())
            assert (event["type"], event["object"]["spec"]) == ("ADDED", {"host": "w", "port": "1"})
    assert len(hook.asked) == 1


async def test_deleting_needs_the_stored_form_only_where_it_is_shown(admin: Any, hook: Any) -> None:
    await define(admin, definition(hook.url("/convert")))
    await admin.post(path(), widget("gone", {"hostPort": "g:1"}, metadata={"finalizers": ["example.com/x"]}))
    marked = await admin.delete(path("gone", api="v2"))
    assert marked.json["spec"] == {"host": "g", "port": "1"} and marked.json["metadata"]["deletionTimestamp"]
    stored = (await admin.get(path("gone"))).json
    assert stored["spec"] == {"hostPort": "g:1"} and stored["metadata"]["finalizers"] == ["example.com/x"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"result": {"status": "Failure", "message": "no such luck"}}, "failed: no such luck"),
        ({"result": {}}, "failed: response.result.status was '', not 'Success'"),
        ({"uid": "other"}, 'expected response.uid="'),
        ({"convertedObjects": []}, "returned 0 objects, expected 1"),
    ],
)
async def test_answers_that_do_not_fit_are_refused(admin: Any, hook: Any, change: Any, words: str) -> None:
    await define(admin, definition(hook.url("/convert")))
    await admin.post(path(), widget("x", {"hostPort": "a:1"}))
    hook.paths["/convert"] = lambda _, review: answered(review, **change)
    found = await admin.get(path("x", api="v2"))
    assert found.status == 500 and words in found.json["message"], found.body
    assert found.json["message"].startswith(f"conversion webhook for {GROUP}/v1, Kind=Widget")


@pytest.mark.parametrize(
    ("path_in_object", "value", "words"),
    [
        (("metadata", "name"), "y", "must have the same name: x != y"),
        (("metadata", "uid"), "y", "must have the same UID"),
        (("metadata", "namespace"), "kube-system", "must have the same namespace: default != kube-system"),
        (("kind",), "Other", "invalid kind (expected Widget, received Other)"),
        (("apiVersion",), f"{GROUP}/v1", f"invalid groupVersion (expected {GROUP}/v2, received {GROUP}/v1)"),
        (("metadata", "labels"), {"k": 1}, "metadata.labels[k] must be a string"),
        (("metadata", "labels"), {"-bad-": "x"}, 'metadata.labels: Invalid value: "-bad-"'),
    ],
)
async def test_identity_is_not_the_webhooks(
    admin: Any, hook: Any, path_in_object: tuple[str, ...], value: Any, words: str
) -> None:
    def forge(_: web.BaseRequest, review: Any) -> Any:
        made = [one(obj, review["request"]["desiredAPIVersion"]) for obj in review["request"]["objects"]]
        at = made[0]
        for key in path_in_object[:-1]:
            at = at[key]
        at[path_in_object[-1]] = value
        return answered(review, convertedObjects=made)

    await define(admin, definition(hook.url("/convert")))
    await admin.post(path(), widget("x", {"hostPort": "a:1"}))
    hook.paths["/convert"] = forge
    found = await admin.get(path("x", api="v2"))
    assert found.status == 500 and words in found.json["message"], found.body


async def test_a_webhook_that_is_not_there(admin: Any, hook: Any) -> None:
    await define(admin, definition(hook.service("/convert")))
    await admin.post(path(), widget("x", {"hostPort": "a:1"}))
    missing = await admin.get(path(api="v2"))
    assert missing.status == 500
    assert 'service "hook" not found' in missing.json["message"]
    assert (await admin.get(path())).status == 200, "the stored version is served all the same"
    await expose(admin, hook.port)
    assert (await admin.get(path("x", api="v2"))).json["spec"] == {"host": "a", "port": "1"}
