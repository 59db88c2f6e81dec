"""Whatever is sent is taken or refused, never a fault of the server: seeded random objects, patches and queries."""

from __future__ import annotations

import random
from typing import Any

from polder.api.kinds import BUILT_IN
from polder.api.schemas import Schema, Shape, schema_of

ROUNDS = 12
ODD: list[Any] = [
    None,
    "",
    "x",
    "a/b",
    0,
    -1,
    2**40,
    1.5,
    True,
    [],
    {},
    [None],
    [{}],
    {"": None},
    "10.0.0.0/8",
    "é\u0000",
    "-",
]


def value(schema: Schema | None, dice: random.Random, depth: int) -> Any:
    """A value that fits the schema more or less."""
    if schema is None or dice.random() < 0.06 or depth > 7:
        return dice.choice(ODD)
    match schema.shape:
        case Shape.OBJECT:
            names = [
                n for n in schema.fields if schema.fields[n].required or dice.random() < 3 / (len(schema.fields) + 1)
            ]
            return {n: value(schema.fields[n].schema, dice, depth + 1) for n in names}
        case Shape.LIST:
            return [value(schema.items, dice, depth + 1) for _ in range(dice.choice([0, 1, 1, 2]))]
        case Shape.MAP:
            keys = ["a", "polder.dev/network", "polder.dev/address", "cpu", "B_", ""]
            return {dice.choice(keys): value(schema.items, dice, depth + 1) for _ in range(dice.choice([0, 1, 2]))}
        case Shape.BOOLEAN:
            return dice.random() < 0.5
        case Shape.INT32 | Shape.INT64 | Shape.NUMBER:
            return dice.choice([0, 1, 80, 443, -1, 70000])
        case Shape.QUANTITY:
            return dice.choice(["1", "100m", "1Gi", "x", 3, "-1", "1e3"])
        case Shape.TIME | Shape.MICRO_TIME:
            return dice.choice(["2026-01-01T00:00:00Z", "x", "2026-01-01T00:00:00.123456+02:00"])
        case Shape.BYTES:
            return dice.choice(["aGk=", "!", ""])
    return dice.choice(["default", "x", "", "TCP", "10.0.0.9", "kube-system/default", "None", "Always", "a.b/c", "X Y"])


async def test_objects_and_patches(admin: Any) -> None:
    dice = random.Random(20261121)
    for kind in BUILT_IN:
        path = f"{kind.path}/namespaces/default/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"
        made = 0
        for number in range(ROUNDS):
            obj = value(schema_of(kind), dice, 0)
            if isinstance(obj, dict):
                meta = obj.get("metadata")
                obj["metadata"] = {**(meta if isinstance(meta, dict) else {}), "name": f"n{number}", "namespace": None}
                obj["metadata"].pop("deletionTimestamp", None)
                obj.pop("kind", None)
                obj.pop("apiVersion", None)
            answer = await admin.post(path, obj)
            assert answer.status < 500, (kind.plural, obj, answer.body)
            made += answer.status == 201
            patch = value(schema_of(kind), dice, 0)
            for how in ("merge-patch", "strategic-merge-patch"):
                for below in ("", "/status"):
                    answer = await admin.patch(f"{path}/n{number}{below}", patch, how)
                    assert answer.status < 500, (kind.plural, how, below, patch, answer.body)
            answer = await admin.get(path, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
            assert answer.status == (200 if "list" in kind.verbs else 405), answer.body


async def test_json_patches(admin: Any) -> None:
    dice = random.Random(7)
    path = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await admin.post(path, pod)).status == 201
    places = [
        "",
        "/",
        "/metadata",
        "/metadata/name",
        "/spec/containers/0",
        "/spec/containers/-",
        "/spec/x~1y",
        "/status",
        "/kind",
    ]
    for _ in range(300):
        names = ["add", "remove", "replace", "move", "copy", "test"]
        patch = [
            {
                "op": dice.choice(names),
                "path": dice.choice(places),
                "from": dice.choice(places),
                "value": dice.choice(ODD),
            }
            for _ in range(dice.choice([1, 2]))
        ]
        answer = await admin.patch(f"{path}/p", patch, "json-patch")
        assert answer.status < 500, (patch, answer.body)


async def test_queries(admin: Any) -> None:
    dice = random.Random(3)
    names = ["limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector", "dryRun"]
    names += ["fieldValidation", "propagationPolicy", "gracePeriodSeconds", "includeObject", "timeoutSeconds", "pretty"]
    values = [
        "",
        "0",
        "1",
        "-1",
        "x",
        "a=b",
        "!a",
        "a in (",
        "metadata.name=x",
        "%00",
        "All",
        "Exact",
        "9" * 30,
        "é",
        "a,,b",
    ]
    for _ in range(300):
        query = "&".join(f"{dice.choice(names)}={dice.choice(values)}" for _ in range(dice.choice([1, 2, 3])))
        method = dice.choice(["GET", "DELETE", "POST"])
        path = "/api/v1/namespaces/default/secrets" + dice.choice(["", "/x"])
        answer = await admin.call(method, f"{path}?{query}", {} if method == "POST" else None)
        assert answer.status < 500 or answer.json["reason"] == "Timeout", (method, query, answer.body)


VERSION = {
    "name": "v1",
    "served": True,
    "storage": True,
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
    "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "pods": {
        "metadata": {"labels": {"a": "b"}, "annotations": {"polder.dev/address": "10.1.0.9"}, "finalizers": ["a.b/c"]},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                }
            ],
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
        },
    },
    "services": {"spec": {"clusterIP": "None", "ports": [{"port": 80, "targetPort": "web"}], "selector": {"a": "b"}}},
    "endpointslices": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 80, "name": "p"}],
    },
    "customresourcedefinitions": {
        "spec": {
            "group": "e.x",
            "scope": "Namespaced",
            "names": {"plural": "ws", "singular": "w", "kind": "W", "listKind": "WList", "shortNames": ["s"]},
            "versions": [VERSION],
        }
    },
    "networks": {"spec": {"cidr": "10.77.0.0/24", "gateway": "10.77.0.1", "mtu": 1400}},
    "segments": {"spec": {"vni": 7, "tenant": "t", "network": "n/n", "networkUid": "u"}},
    "addresspools": {
        "spec": {"addresses": ["192.0.2.0/28", "192.0.2.40-192.0.2.50"], "tenants": ["*"], "perTenant": 1}
    },
    "ports": {
        "spec": {"network": "kube-system/default", "node": "n", "addresses": ["10.1.0.7"], "mac": "0a:58:0a:01:00:07"}
    },
}


def mutate(value: Any, dice: random.Random) -> Any:
    """The value with one part of it replaced or removed."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(sorted(value))
        if dice.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        return [*value[:at], mutate(value[at], dice), *value[at + 1 :]]
    return dice.choice(ODD)


async def test_examples_with_one_fault(admin: Any) -> None:
    dice = random.Random(11)
    for kind in BUILT_IN:
        example = EXAMPLES.get(kind.plural)
        if example is None or "create" not in kind.verbs:
            continue
        path = f"{kind.path}/namespaces/default/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"
        name = {"customresourcedefinitions": "ws.e.x", "segments": "vni-7"}.get(kind.plural, "same")
        whole = {**example, "metadata": {**example.get("metadata", {}), "name": name}}
        good = await admin.post(path, whole)
        assert good.status == 201, good.body
        for _ in range(60):
            wrong = mutate(whole, dice)
            answer = await admin.patch(f"{path}/{name}", wrong)
            assert answer.status < 500, (kind.plural, wrong, answer.body)
            other = {**wrong, "metadata": {"name": f"n{dice.randrange(10**6)}"}} if isinstance(wrong, dict) else wrong
            answer = await admin.post(path, other)
            assert answer.status < 500, (kind.plural, other, answer.body)
        if "list" not in kind.verbs:
            continue
        for accept in ("application/json;as=Table;v=v1;g=meta.k8s.io", "application/json"):
            answer = await admin.get(path, Accept=accept)
            assert answer.status == 200, answer.body
        answer = await admin.delete(path)  # the kubernetes service and its slice stay: they go with their tenant
        assert answer.status == (200 if "deletecollection" in kind.verbs else 405), answer.body
    assert (await admin.get("/apis")).status == 200
    assert (await admin.get("/openapi/v2")).status == 200
