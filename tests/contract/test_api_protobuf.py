"""Clients that speak protobuf alone: what Go's typed clients send, and what one that accepts nothing else is answered."""

from __future__ import annotations

from typing import Any

from polder.apiserver.protobuf import MAGIC, MEDIA, decode_body
from polder.apiserver.protobuf_encode import encode_body

MAPS = "/api/v1/namespaces/default/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


async def test_written_and_read_in_protobuf_alone(admin: Any) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 0},
    }
    made = await admin.post(
        LEASES, encode_body({**lease, "spec": {"holderIdentity": "me"}}), Content_Type=MEDIA, Accept=MEDIA
    )
    assert made.status == 201
    assert made.headers["Content-Type"] == MEDIA
    found = await admin.get(f"{LEASES}/l", Accept=MEDIA)
    assert decode_body(found.body)["spec"]["holderIdentity"] == "me"
    listed = decode_body((await admin.get(LEASES, Accept=MEDIA)).body)
    assert (listed["kind"], listed["items"][0]["metadata"]["name"]) == ("LeaseList", "l")


async def test_a_watch_in_protobuf(admin: Any) -> None:
    await admin.post(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    answer = await admin.get(
        f"{MAPS}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name=a", Accept=f"{MEDIA};stream=watch"
    )
    assert answer.headers["Content-Type"] == f"{MEDIA};stream=watch"
    size = int.from_bytes(answer.body[:4], "big")
    event = answer.body[4 : 4 + size]
    assert b"ADDED" in event
    assert decode_body(event[event.index(MAGIC) :])["data"] == {"k": "v"}


async def test_custom_kinds_have_no_such_form(admin: Any) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    spec = {
        "group": "x.io",
        "scope": "Cluster",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await admin.post(crds, {"metadata": {"name": "widgets.x.io"}, "spec": spec})).status == 201
    assert (await admin.get("/apis/x.io/v1/widgets", Accept=MEDIA)).status == 406
