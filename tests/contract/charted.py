"""An operator's chart in two tenants under the same names: its manifests, its webhooks, and its releases by kubectl."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml
from aiohttp import web

from tests.contract.hooked import Answer, reply

Raw = dict[str, Any]
GIZMOS = "/apis/charts.example.com/v1/namespaces/default/gizmos"
LABEL = "app.kubernetes.io/instance=gizmo"


def chart(bundle: str) -> list[Raw]:
    """The first release's objects; ``bundle`` is base64 of the webhooks' authority."""
    text = (Path(__file__).parent / "chart.yaml").read_text()
    return list(yaml.safe_load_all(Template(text).substitute(bundle=bundle)))


def upgraded(objects: list[Raw]) -> list[Raw]:
    """The next release: a field more in the schema, another image, one object more and one less."""
    found = copy.deepcopy(objects)
    by_kind = {(obj["kind"], obj["metadata"]["name"]): obj for obj in found}
    version = by_kind["CustomResourceDefinition", "gizmos.charts.example.com"]["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["color"] = {
        "enum": ["red", "blue"],
        "type": "string",
    }
    container = by_kind["Deployment", "gizmo-operator"]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "gizmo:2"
    more = copy.deepcopy(by_kind["ConfigMap", "gizmo-config"])
    more["metadata"]["name"] = "gizmo-more"
    found.remove(by_kind["NetworkPolicy", "gizmo-operator"])
    return [*found, more]


def gizmo(name: str = "one", **spec: Any) -> Raw:
    return {
        "apiVersion": "charts.example.com/v1",
        "kind": "Gizmo",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/instance": "gizmo"}},
        "spec": spec,
    }


def endpoints(address: str, node: str) -> Raw:
    """What the controller of EndpointSlices makes of the operator's pod."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "gizmo-webhook-1", "labels": {"kubernetes.io/service-name": "gizmo-webhook"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "nodeName": node, "conditions": {"ready": True}}],
    }


def webhooks(tenant: str) -> dict[str, Answer]:
    """One tenant's answers: it signs what it sees, and refuses gizmos that are for another tenant."""

    def mutate(_: web.BaseRequest, review: Any) -> Any:
        patch = [{"op": "add", "path": "/spec/by", "value": tenant}]
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        return reply(review, allowed=True, patchType="JSONPatch", patch=encoded)

    def check(_: web.BaseRequest, review: Any) -> Any:
        spec = review["request"]["object"]["spec"]
        if spec.get("note", tenant) == tenant and spec["by"] == tenant:
            return reply(review, allowed=True)
        return reply(review, allowed=False, status={"code": 403, "message": f"{tenant} wants no other's"})

    return {"/mutate": mutate, "/check": check}


@dataclass(frozen=True)
class Release:
    """kubectl in one tenant, applying by the client or by the server."""

    kubectl: Any
    tenant: str
    server_side: bool

    async def apply(self, objects: list[Raw], *more: str) -> list[str]:
        """What kubectl said, a line for each object."""
        how = ("--server-side", "--field-manager=helm") if self.server_side else ()
        said = await self.kubectl("apply", *how, *more, "-f", "-", stdin=yaml.safe_dump_all(objects))
        return str(said).splitlines()

    def prunes(self, kind: str) -> str:
        """The option that names the kind that is pruned, which was called otherwise once."""
        return ("--prune-whitelist=" if "debian" in self.kubectl.path else "--prune-allowlist=") + kind

    async def refused(self, objects: list[Raw]) -> str:
        how = ("--server-side", "--field-manager=helm") if self.server_side else ()
        return str(await self.kubectl.refused("apply", *how, "-f", "-", stdin=yaml.safe_dump_all(objects)))

    async def state(self, objects: list[Raw]) -> dict[tuple[str, str], tuple[str, str]]:
        """(kind, name) to (uid, resourceVersion)."""
        said = await self.kubectl("get", "-f", "-", "-o", "json", stdin=yaml.safe_dump_all(objects))
        found = [obj["metadata"] | {"kind": obj["kind"]} for obj in json.loads(said)["items"]]
        return {(meta["kind"], meta["name"]): (meta["uid"], meta["resourceVersion"]) for meta in found}
