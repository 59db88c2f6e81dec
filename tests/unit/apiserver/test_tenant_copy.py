"""What of a saved tenant a copy does not take along."""

from __future__ import annotations

from typing import Any

import orjson

from polder.apiserver.tenant_copy import Copy, Stored
from polder.base.ids import TenantName
from polder.store.protocol import Key, Put

NAME = TenantName("copy")
LEFT = "2026-01-01T00:00:00Z"


def row(resource: str, namespace: str, name: str, kind: str = "ConfigMap", **rest: Any) -> Stored:
    meta = {"name": name, "uid": f"uid-{resource}-{namespace}-{name}", **rest.pop("meta", {})}
    if namespace:
        meta["namespace"] = namespace
    body = {"apiVersion": "v1", "kind": kind, "metadata": meta, **rest}
    return Key(resource, "acme", namespace, name), orjson.dumps(body)


def tenant(**spec: Any) -> Stored:
    body = {
        "apiVersion": "polder.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "acme", "uid": "u"},
        "spec": spec,
    }
    return Key("tenants.polder.dev", "root", "", "acme"), orjson.dumps(body)


def copied(*rows: Stored) -> list[Put]:
    found = [tenant(), *rows]
    return Copy.of(NAME, found).puts(found)


def places(puts: list[Put]) -> set[tuple[str, str, str]]:
    return {(p.key.resource, p.key.namespace, p.key.name) for p in puts if not p.key.resource.startswith("internal:")}


FIRST = ("tenants.polder.dev", "", "copy")


def test_credentials_and_requests_for_them_stay_behind() -> None:
    token = row(
        "secrets", "kube-system", "bootstrap-token-abcdef", "Secret", type="bootstrap.kubernetes.io/token", data={}
    )
    approved = {"conditions": [{"type": "Approved", "status": "True"}]}
    request = row(
        "certificatesigningrequests.certificates.k8s.io", "", "r", "CertificateSigningRequest", status=approved
    )
    secret = row("secrets", "default", "s", "Secret", type="Opaque", data={})
    assert places(copied(token, request, secret)) == {FIRST, ("secrets", "default", "s")}


def test_claims_of_services_in_deletion_stay_behind() -> None:
    rows: list[Stored] = []
    for name, meta in (("going", {"deletionTimestamp": LEFT}), ("stays", {})):
        parent = {"group": "", "resource": "services", "namespace": "default", "name": name}
        number = "1" if name == "going" else "2"
        rows.append(row("services", "default", name, "Service", meta=meta))
        rows.append(
            row("ipaddresses.networking.k8s.io", "", f"10.96.0.{number}", "IPAddress", spec={"parentRef": parent})
        )
        rows.append((Key("nodeports", "acme", "", f"3000{number}"), orjson.dumps({"owner": f"default/{name}"})))
    assert places(copied(*rows)) == {
        FIRST, ("services", "default", "stays"), ("ipaddresses.networking.k8s.io", "", "10.96.0.2"),
        ("nodeports", "", "30002"),
    }  # fmt: skip


def test_what_is_in_a_namespace_or_of_a_kind_in_deletion_stays_behind() -> None:
    leaving = {"deletionTimestamp": LEFT}
    found = copied(
        row("namespaces", "", "old", "Namespace", meta=leaving),
        row("configmaps", "old", "a"),
        (Key("internal-guards", "acme", "old", "guard"), b"{}"),
        row(
            "customresourcedefinitions.apiextensions.k8s.io",
            "",
            "w.example.com",
            "CustomResourceDefinition",
            meta=leaving,
        ),
        row("w.example.com", "default", "w", "W"),
        row("configmaps", "default", "b"),
    )
    assert places(found) == {FIRST, ("configmaps", "default", "b")}


def test_a_long_chain_of_owners_is_copied_in_its_order() -> None:
    rows = [row("configmaps", "default", "c0")]
    for number in range(1, 3000):
        owner = [{"uid": f"uid-configmaps-default-c{number - 1}"}]
        rows.append(row("configmaps", "default", f"c{number}", meta={"ownerReferences": owner}))
    first, last = "uid-configmaps-default-x", "uid-configmaps-default-y"
    rows.append(row("configmaps", "default", "x", meta={"ownerReferences": [{"uid": last}]}))
    rows.append(row("configmaps", "default", "y", meta={"ownerReferences": [{"uid": first}]}))
    names = [put.key.name for put in copied(*reversed(rows)) if put.key.resource == "configmaps"]
    chain = [name for name in names if name not in ("x", "y")]
    assert chain == [f"c{number}" for number in range(3000)]
    assert {"x", "y"} < set(names), "owners in a circle"


def test_members_that_are_its_own_accounts_are_the_copys_own() -> None:
    account = {"kind": "ServiceAccount", "namespace": "default", "name": "d", "role": "edit"}
    members = [{**account, "tenant": "acme"}, {**account, "tenant": "globex", "tenantUid": "g"}, account]
    found = [tenant(members=members)]
    puts = Copy.of(NAME, found).puts(found)
    raw = orjson.loads(puts[0].value)
    assert raw["spec"]["members"] == [{**account, "tenant": "copy"}, *members[1:]]
