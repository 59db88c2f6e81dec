"""Every kind of the table, served: made, read, listed, patched, put, watched and deleted by a real server."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from polder.api.kinds import BUILT_IN, STORED_FORM, Kind

STORED = [kind for kind in BUILT_IN if kind.stored and STORED_FORM[kind.resource] is kind]
SERVED = [kind for kind in BUILT_IN if kind.stored]


def fixtures() -> dict[str, Any]:
    text = (Path(__file__).parent / "kinds.yaml").read_text()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    pem = signed.public_bytes(serialization.Encoding.PEM)
    loaded: dict[str, Any] = yaml.safe_load(text.replace("${request}", base64.b64encode(pem).decode()))
    return loaded


FIXTURES = fixtures()


def collection(kind: Kind) -> str:
    return f"{kind.path}/namespaces/default/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"


def sound(kind: Kind) -> dict[str, Any]:
    fixture = FIXTURES[kind.resource]
    return {**fixture["object"], "metadata": {"name": fixture.get("name", "x")}}


def test_there_is_one_object_for_each_stored_kind() -> None:
    assert set(FIXTURES) == {kind.resource for kind in STORED}


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.resource)
async def test_a_kind_is_made_read_changed_watched_and_deleted(running: Any, kind: Kind) -> None:
    api = running.component() if kind.group == "polder.dev" and kind.kind != "Tenant" else running.admin()
    path, obj, change = collection(kind), sound(kind), FIXTURES[kind.resource]["change"]
    made = await api.post(f"{path}?fieldValidation=Strict", obj)
    assert made.status == 201, made.body
    one = f"{path}/{obj['metadata']['name']}"
    read = (await api.get(one)).json
    assert (read["apiVersion"], read["kind"]) == (kind.api_version, kind.kind)
    assert read["metadata"]["uid"] == made.json["metadata"]["uid"]
    assert obj["metadata"]["name"] in [item["metadata"]["name"] for item in (await api.get(path)).json["items"]]
    same = await api.put(one, read)
    assert same.status == 200, same.body
    assert same.json["metadata"]["resourceVersion"] == read["metadata"]["resourceVersion"], (read, same.json)
    watched = f"{path}?watch=1&timeoutSeconds=10&resourceVersion={read['metadata']['resourceVersion']}"
    async with api.watch(watched) as stream:
        applied = await round_of_apply(api, one, kind, obj)
        patched = await api.patch(one, change)
        assert patched.status == 200, patched.body
        assert patched.json["metadata"]["resourceVersion"] != applied
        gone = await api.delete(one, {"gracePeriodSeconds": 0})
        assert gone.status == 200, gone.body
        seen = [json.loads(await stream.content.readline()) for _ in range(3)]
    assert [event["type"] for event in seen[:2]] == ["MODIFIED", "MODIFIED"]
    assert seen[0]["object"]["metadata"]["resourceVersion"] == applied
    assert {event["object"]["kind"] for event in seen} == {kind.kind}


async def round_of_apply(api: Any, one: str, kind: Kind, obj: dict[str, Any]) -> str:
    """The object taken over by an applier, and applied again, which changes nothing: its version then."""
    config = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
    config["metadata"] = {**obj["metadata"], "labels": {"applied": "yes"}}
    path = f"{one}?fieldManager=applier&force=true&fieldValidation=Strict"
    media = "application/apply-patch+yaml"
    first, again = [await api.call("PATCH", path, config, Content_Type=media) for _ in range(2)]
    assert first.status == again.status == 200, (first.body, again.body)
    owners = {(entry["manager"], entry["operation"]) for entry in first.json["metadata"]["managedFields"]}
    assert ("applier", "Apply") in owners
    assert again.json == first.json
    return str(first.json["metadata"]["resourceVersion"])


@pytest.mark.parametrize("kind", [k for k in STORED if k.group != "polder.dev"], ids=lambda kind: kind.resource)
async def test_a_generation_counts_what_is_wanted_only(admin: Any, kind: Kind) -> None:
    path, obj = collection(kind), sound(kind)
    made = (await admin.post(path, obj)).json
    first = made["metadata"].get("generation")
    marked = await admin.patch(f"{path}/{obj['metadata']['name']}", {"metadata": {"labels": {"x": "y"}}})
    expected = first + 1 if kind.resource == "endpointslices.discovery.k8s.io" else first
    assert marked.json["metadata"].get("generation") == expected, marked.body


async def test_every_served_kind_has_a_table_and_metadata_alone(admin: Any) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"

    async def shown(kind: Kind) -> None:
        found = (await admin.get(kind.path + f"/{kind.plural}", Accept=table)).json
        assert found["kind"] == "Table" and len(found["columnDefinitions"]) > 1, kind
        assert (await admin.get(kind.path + f"/{kind.plural}", Accept=partial)).json["kind"] == (
            "PartialObjectMetadataList"
        )

    await asyncio.gather(*(shown(kind) for kind in SERVED))


async def test_discovery_and_openapi_name_exactly_what_is_served(admin: Any) -> None:
    legacy = {}
    groups = (await admin.get("/apis")).json["groups"]
    versions = ["api/v1", *(f"apis/{v['groupVersion']}" for group in groups for v in group["versions"])]
    for version in versions:
        listed = (await admin.get(f"/{version}")).json
        legacy |= {(version, row["name"]): row for row in listed["resources"]}
    expected = {
        (k.path[1:], name) for k in BUILT_IN for name in (k.plural, *(f"{k.plural}/{s}" for s in k.subresources))
    }
    assert set(legacy) == expected
    aggregated: dict[tuple[str, str], Any] = {}
    accept = "application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"
    for root in ("/api", "/apis"):
        for group in (await admin.get(root, Accept=accept)).json["items"]:
            for version in group["versions"]:
                name = group["metadata"].get("name")
                path = f"apis/{name}/{version['version']}" if name else "api/v1"
                for row in version["resources"]:
                    aggregated[path, row["resource"]] = row["verbs"]
                    subs = {
                        f"{row['resource']}/{sub['subresource']}": sub["verbs"] for sub in row.get("subresources", [])
                    }
                    aggregated |= {(path, name): verbs for name, verbs in subs.items()}
    assert aggregated == {place: row["verbs"] for place, row in legacy.items()}
    index = (await admin.get("/openapi/v3")).json["paths"]
    assert set(index) >= set(versions)
    for version in versions:
        paths = (await admin.get(index[version]["serverRelativeURL"])).json["paths"]
        named = {path.rpartition("/{name}/")[0].rpartition("/")[2] + "/" + path.rpartition("/")[2]
                 if "/{name}/" in path else path.removesuffix("/{name}").rpartition("/")[2] for path in paths}  # fmt: skip
        assert named == {name for place, name in legacy if place == version}, version


async def test_the_store_is_a_component_that_can_be_looked_at(admin: Any) -> None:
    listed = await admin.get("/api/v1/componentstatuses")
    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["etcd-0"]
    assert "deprecated in v1.19+" in listed.headers["Warning"]
    one = (await admin.get("/api/v1/componentstatuses/etcd-0")).json
    assert one["conditions"] == [{"type": "Healthy", "status": "True", "message": "ok"}]
    assert (await admin.get("/api/v1/componentstatuses/none")).status == 404
    assert (await admin.post("/api/v1/componentstatuses", {"metadata": {"name": "x"}})).status == 405


async def test_what_is_not_stored_has_no_table(admin: Any) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    review = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    assert (await admin.post(path, review)).status == 201
    assert (await admin.post(path, review, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).status == 406
